-- What would let somebody in: rules over an extension's objects and over its script, as functions that
-- give one line for each finding. Used by script/lint.sql and test/pgtap/safety.sql.

-- Rules over the objects that an extension has created.
CREATE FUNCTION pg_temp.catalog_findings(extension name) RETURNS SETOF text LANGUAGE sql AS $rules$
  WITH ext AS (SELECT e.oid, e.extname, e.extowner FROM pg_extension e WHERE e.extname = extension),
  member AS (SELECT d.classid, d.objid FROM pg_depend d JOIN ext ON d.refobjid = ext.oid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'),
  func AS (SELECT p.*, p.oid::regprocedure::text AS name, l.lanname FROM pg_proc p
    JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid JOIN pg_language l ON l.oid = p.prolang),
  rel AS (SELECT c.*, c.oid::regclass::text AS name FROM pg_class c
    JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid),
  -- a body, and what in it is the name of a relation
  body AS (SELECT f.name, regexp_replace(regexp_replace(f.prosrc, '--[^\n]*', '', 'g'), '''([^'']|'''')*''', '''''', 'g') AS src
    FROM func f WHERE f.lanname <> 'c'),
  used AS (SELECT b.name, b.src, lower(m[2]) AS relation FROM body b CROSS JOIN LATERAL regexp_matches(b.src,
    '\m(FROM|JOIN|UPDATE|INSERT INTO|LOCK TABLE|TRUNCATE)\s+(?!ONLY\M|SKIP\M|TABLE\M|EXCLUSIVE\M|LATERAL\M|SET\M)([a-z_][a-z0-9_]*)(?![a-z0-9_.(%])', 'gi') m
    WHERE b.src !~* ('\mDISTINCT\s+FROM\s+' || m[2] || '\M')),
  -- parts of members: constraints, rules, defaults, and what these use
  part AS (
    SELECT m.classid, m.objid FROM member m
    UNION SELECT 'pg_constraint'::regclass, c.oid FROM pg_constraint c JOIN rel ON rel.oid = c.conrelid
    UNION SELECT 'pg_rewrite'::regclass, r.oid FROM pg_rewrite r JOIN rel ON rel.oid = r.ev_class
    UNION SELECT 'pg_attrdef'::regclass, a.oid FROM pg_attrdef a JOIN rel ON rel.oid = a.adrelid
    UNION SELECT 'pg_trigger'::regclass, t.oid FROM pg_trigger t JOIN rel ON rel.oid = t.tgrelid
    UNION SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index i JOIN rel ON rel.oid = i.indrelid
    UNION SELECT 'pg_class'::regclass, t.typrelid FROM pg_type t
      JOIN member m ON m.classid = 'pg_type'::regclass AND m.objid = t.oid WHERE t.typrelid <> 0
    UNION SELECT 'pg_type'::regclass, x.oid FROM pg_type t JOIN pg_type x ON x.oid IN (t.oid, t.typarray)
      LEFT JOIN rel ON rel.oid = t.typrelid LEFT JOIN member m ON m.classid = 'pg_type'::regclass AND m.objid = t.oid
      WHERE rel.oid IS NOT NULL OR m.objid IS NOT NULL),
  foreign_part AS (
    SELECT d.classid, d.objid, d.refclassid, d.refobjid, d.refobjsubid FROM pg_depend d JOIN part USING (classid, objid)
    WHERE d.deptype IN ('n', 'a') AND d.refclassid IN ('pg_operator'::regclass, 'pg_proc'::regclass, 'pg_class'::regclass, 'pg_type'::regclass,
      'pg_opclass'::regclass, 'pg_collation'::regclass, 'pg_cast'::regclass)
      AND (pg_identify_object(d.refclassid, d.refobjid, 0)).schema IS DISTINCT FROM 'pg_catalog'
      AND NOT EXISTS (SELECT FROM part r WHERE r.classid = d.refclassid AND r.objid = d.refobjid))
  SELECT format('%s: search_path is not pinned to pg_catalog, pg_temp', f.name)
    FROM func f WHERE f.lanname NOT IN ('c', 'internal')
      AND NOT coalesce(f.proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']
  UNION ALL
  SELECT format('%s: SECURITY DEFINER', f.name) FROM func f WHERE f.prosecdef
  UNION ALL
  SELECT format('%s: in the body, relation %s has no schema', u.name, u.relation) FROM used u
    WHERE u.relation !~ '^pg_' AND u.src !~* ('\m' || u.relation || '(\s*\([^)]*\))?\s+AS\s+((NOT\s+)?MATERIALIZED\s+)?\(')
      -- variables of PL/pgSQL
      AND u.src !~* ('DECLARE.*\m' || u.relation || '\s+[a-z].*BEGIN')
  UNION ALL
  SELECT format('%s: PUBLIC may execute it', f.name) FROM func f
    CROSS JOIN LATERAL aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a
    WHERE a.grantee = 0 AND f.name NOT IN ('eros.user_key(bigint)', 'eros.user_bigint(uuid)', 'eros.now()')
  UNION ALL
  SELECT format('%s: %s is granted to %s', r.name, a.privilege_type, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
    FROM rel r CROSS JOIN LATERAL aclexplode(r.relacl) a
    WHERE a.grantee <> r.relowner AND (a.privilege_type <> 'SELECT' OR a.grantee = 0)
  UNION ALL
  SELECT format('schema %I: %s is granted to %s', n.nspname, a.privilege_type, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
    FROM pg_namespace n JOIN member m ON m.classid = 'pg_namespace'::regclass AND m.objid = n.oid
    CROSS JOIN LATERAL aclexplode(n.nspacl) a
    WHERE a.grantee <> n.nspowner AND (a.privilege_type <> 'USAGE' OR a.grantee = 0)
  UNION ALL
  SELECT format('%s: owned by %s, not by the extension''s owner', f.name, f.proowner::regrole) FROM func f, ext WHERE f.proowner <> ext.extowner
  UNION ALL
  SELECT format('%s: owned by %s, not by the extension''s owner', r.name, r.relowner::regrole) FROM rel r, ext WHERE r.relowner <> ext.extowner
  UNION ALL
  SELECT format('%s: uses %s, which is not PostgreSQL''s nor the extension''s', pg_describe_object(p.classid, p.objid, 0),
    pg_describe_object(p.refclassid, p.refobjid, 0)) FROM foreign_part p
  ORDER BY 1
$rules$;

-- Rules over the text of an extension's script.
CREATE FUNCTION pg_temp.script_findings(script text) RETURNS SETOF text LANGUAGE sql AS $rules$
  WITH code AS (
    -- without comments, psql's line and the bodies of functions
    SELECT regexp_replace(regexp_replace(regexp_replace(script, '/\*.*?\*/', '', 'g'), '^\\echo[^\n]*$|--[^\n]*', '', 'gn'),
      '\$\$.*?\$\$', '$$$$', 'g') AS c)
  SELECT 'the script does not begin with SET LOCAL search_path = pg_catalog, pg_temp'
    FROM code WHERE c !~* '^\s*SET LOCAL search_path (=|TO) pg_catalog, pg_temp;'
  UNION ALL
  SELECT format('%s: takes what is there already for its own', m[1]) FROM code, regexp_matches(c, '(CREATE OR REPLACE [^\n(;]*|[^\n;]*IF NOT EXISTS[^\n(;]*)', 'gi') m
  UNION ALL
  SELECT format('%s: no schema', m[1]) FROM code, regexp_matches(c,
    '\m(CREATE (?:OR REPLACE )?(?:UNLOGGED )?(?:TABLE|VIEW|MATERIALIZED VIEW|FUNCTION|PROCEDURE|TYPE|DOMAIN|SEQUENCE|AGGREGATE|OPERATOR)\s+(?:IF NOT EXISTS )?(?!eros\.|@extschema@\.|IF )[^\s(;]+)', 'gi') m
  UNION ALL
  SELECT format('%s: no schema', m[1]) FROM code, regexp_matches(c, '\m((?:INSERT INTO|DELETE FROM|ALTER TABLE|ON TABLE|REFERENCES)\s+(?!eros\.)[a-z_]+)', 'gi') m
  ORDER BY 1
$rules$;
