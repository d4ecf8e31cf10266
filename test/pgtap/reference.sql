-- docs/reference.md against the catalog: every column, type, function and setting is in it, and none that is not there.
\ir include/begin.sql
SELECT plan(11);

\set reference `cat docs/reference.md`
CREATE TABLE t.line (n bigint, line text, heading text);
INSERT INTO t.line
SELECT n, line, max(heading) OVER (PARTITION BY part)
FROM (SELECT n, line, substring(line FROM '^#{2,4} (.*)$') AS heading, count(*) FILTER (WHERE line ~ '^#{2,4} ') OVER (ORDER BY n) AS part
  FROM regexp_split_to_table(:'reference', E'\n') WITH ORDINALITY AS l (line, n)) AS l;
SELECT cmp_ok((SELECT count(*) FROM t.line), '>', 500::bigint, 'there is a reference');

SELECT is((SELECT string_agg(n::text, ', ' ORDER BY n)
  FROM (SELECT n, line, lag(line) OVER (ORDER BY n) AS before FROM t.line) AS l
  WHERE line LIKE '|%' AND before LIKE '|%' AND regexp_count(line, '(?<!\\)\|') <> regexp_count(before, '(?<!\\)\|')), NULL, 'each line of a table has as many cells as the one before');

-- the columns of each table, view and type that has some; those of a sample are those of its view
CREATE VIEW t.column AS
SELECT 'eros.' || regexp_replace(c.relname, '^sample_of_', 'history_') AS relation, a.attname::text AS name, replace(format_type(a.atttypid, a.atttypmod), 'timestamp with time zone', 'timestamptz') AS type
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'eros'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'c') AND NOT c.relispartition;
CREATE VIEW t.documented AS
SELECT heading AS relation, r[1] AS name, r[2] AS type, btrim(r[3]) AS meaning
FROM t.line, regexp_match(line, '^\| `(\w+)` \| ([^|,]+?)(?:, key)? \|(.*)\|$') AS r
WHERE r IS NOT NULL AND heading IN (SELECT relation FROM t.column) AND r[1] !~ '^eros_'; -- a metric
SELECT is((SELECT string_agg(format('%s.%s %s', relation, name, type), ', ' ORDER BY 1) FROM
    (SELECT relation, name, type FROM t.column EXCEPT SELECT relation, name, type FROM t.documented) AS m), NULL,
  'every column of a table, view or type is there, with its type, under the heading of its name');
SELECT is((SELECT string_agg(format('%s.%s %s', relation, name, type), ', ' ORDER BY 1) FROM
    (SELECT relation, name, type FROM t.documented EXCEPT SELECT relation, name, type FROM t.column) AS m), NULL,
  'and none that is not');
SELECT is((SELECT string_agg(format('%s.%s', relation, name), ', ' ORDER BY 1) FROM t.documented WHERE meaning = ''), NULL, 'each with its meaning');
SELECT is((SELECT string_agg(DISTINCT typname, ', ') FROM pg_type
    WHERE typnamespace = 'eros'::regnamespace AND typtype IN ('e', 'd', 'r') AND strpos(:'reference', format('`eros.%s`', typname)) = 0), NULL, 'so is every other type');

SELECT is((SELECT string_agg(relation || '.' || name, ', ') FROM t.column WHERE name = 'server'
    AND relation NOT IN ('eros.history_ring', 'eros.history_filled', 'eros.history_part', 'eros.last_hour_sample')), NULL, 'the name "server" is left for the time when there are many');

-- functions: by name, those of the report in a word
SELECT is((SELECT string_agg(DISTINCT p.proname, ', ' ORDER BY p.proname)
  FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
  JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'eros'
  WHERE p.proname !~ '^report_' AND :'reference' !~ format('(\meros\.|\m)%s\(', p.proname)), NULL, 'every function is there');
SELECT is((SELECT string_agg(DISTINCT r[1], ', ') FROM regexp_matches(:'reference', '\meros\.(\w+)\(', 'g') AS r
  WHERE r[1] NOT IN (SELECT proname FROM pg_proc WHERE pronamespace = 'eros'::regnamespace)), NULL, 'and none that is not');

-- settings
CREATE VIEW t.setting AS
SELECT r[1] AS name, btrim(r[2]) AS takes_effect FROM t.line, regexp_match(line, '^\| `(eros\.\w+)` \|[^|]*\|[^|]*\| (reload|start) \|') AS r
WHERE heading = 'Settings' AND r IS NOT NULL;
SELECT is((SELECT string_agg(name, ', ' ORDER BY name) FROM (SELECT name, CASE context WHEN 'sighup' THEN 'reload' WHEN 'postmaster' THEN 'start' ELSE context END
    FROM pg_settings WHERE name LIKE 'eros.%' EXCEPT SELECT * FROM t.setting) AS m), NULL, 'every setting is there, with when it takes effect');
SELECT is((SELECT string_agg(name, ', ' ORDER BY name) FROM (SELECT name FROM t.setting EXCEPT SELECT name FROM pg_settings) AS m), NULL, 'and none that is not');
\ir include/end.sql
