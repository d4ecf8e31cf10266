-- Prints one line for each finding in the installed extension; nothing when all is well.
SET client_min_messages = warning;
CREATE EXTENSION eros;
CREATE EXTENSION plpgsql_check;

CREATE TEMP VIEW member AS
  SELECT classid, objid FROM pg_depend
  WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
    AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'eros');

CREATE TEMP VIEW member_function AS
  SELECT p.* FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid;

CREATE TEMP VIEW member_relation AS
  SELECT c.* FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
  WHERE c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition;

-- PL/pgSQL that does not fit the schema, or is unsafe
SELECT format('%s line %s: %s: %s', p.oid::regprocedure, c.lineno, c.level, c.message)
FROM member_function p
JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
LEFT JOIN pg_trigger t ON t.tgfoid = p.oid
CROSS JOIN LATERAL plpgsql_check_function_tb(p.oid, coalesce(t.tgrelid, 0),
  performance_warnings => false, security_warnings => true) c
WHERE p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) OR t.oid IS NOT NULL
ORDER BY 1;

-- what would let somebody in
\ir safety.sql
SELECT pg_temp.catalog_findings('eros');
SELECT pg_temp.script_findings(pg_read_file(c.setting || '/extension/eros--' || e.extversion || '.sql'))
FROM pg_config c, pg_extension e WHERE c.name = 'SHAREDIR' AND e.extname = 'eros';

-- what COMMENT ON does not explain
SELECT format('%s: no comment', oid::regprocedure)
FROM member_function WHERE obj_description(oid, 'pg_proc') IS NULL ORDER BY 1;

SELECT format('%s: no comment', oid::regclass)
FROM member_relation WHERE obj_description(oid, 'pg_class') IS NULL ORDER BY 1;

SELECT format('%s.%I: no comment', r.oid::regclass, a.attname)
FROM member_relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE col_description(r.oid, a.attnum) IS NULL ORDER BY r.oid, a.attnum;
