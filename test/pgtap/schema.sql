-- What CREATE EXTENSION makes: where it is, what it is called, and that all of it is explained.
\ir include/begin.sql
SELECT plan(15);

SELECT has_extension('eros');
SELECT functions_are('eros', ARRAY(
  SELECT DISTINCT p.proname::text FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
  JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'eros'
  WHERE p.pronamespace = 'eros'::regnamespace), 'all functions in the schema belong to the extension');
SELECT views_are('eros', ARRAY['status', 'status_phase', 'status_handler', 'status_worker', 'status_queue',
  'status_cache', 'status_halt', 'status_halt_recent', 'status_error', 'status_database', 'status_latency', 'status_prediction', 'status_worth', 'history_server', 'history_phase',
  'history_handler', 'history_filled', 'history_part', 'last_hour_sample', 'last_hour', 'last_hour_phase', 'lately_handler', 'last_day_handler',
  'metrics', 'metric_family'],
  'the views');
SELECT set_eq($$SELECT relname::text FROM pg_class WHERE relnamespace = 'eros'::regnamespace
  AND relkind IN ('r', 'p') AND NOT relispartition$$, ARRAY['phase', 'activity', 'handler', 'job', 'cache', 'spilled_touch',
  'history_ring', 'snapshot', 'unlogged_mark'], 'the tables');
SELECT is((SELECT count(*) FROM pg_proc WHERE proname = 'eros_touch' AND pronamespace = 'public'::regnamespace), 5::bigint,
  'eros_touch is in public, for bigint, uuid, text and arrays of bigint and uuid');
SELECT is((SELECT relpersistence FROM pg_class WHERE oid = 'eros.activity'::regclass), 'u', 'eros.activity is unlogged');
SELECT is((SELECT relpersistence FROM pg_class WHERE oid = 'eros.job'::regclass), 'p', 'eros.job is logged');

SELECT is(obj_description('eros'::regnamespace, 'pg_namespace') IS NOT NULL, true, 'the schema has a comment');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p
  WHERE (p.pronamespace = 'eros'::regnamespace OR p.proname = 'eros_touch')
    AND coalesce(obj_description(p.oid, 'pg_proc'), '') = ''$$, 'every function has a comment');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c
  WHERE c.relnamespace = 'eros'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
    AND coalesce(obj_description(c.oid, 'pg_class'), '') = ''$$, 'every table and view has a comment');
SELECT is_empty($$SELECT format('%s.%s', c.oid::regclass, a.attname) FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  WHERE c.relnamespace = 'eros'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
    AND coalesce(col_description(c.oid, a.attnum), '') = ''$$, 'every column has a comment');
SELECT is_empty($$SELECT t.oid::regtype FROM pg_type t
  WHERE t.typnamespace = 'eros'::regnamespace AND t.typtype IN ('e', 'd')
    AND coalesce(obj_description(t.oid, 'pg_type'), '') = ''$$, 'every type has a comment');

-- the defaults of the design
SELECT results_eq('SELECT phase::integer, idle_after, batch_size FROM eros.phase ORDER BY phase',
  $$VALUES (1, interval '10 min', 15), (2, interval '30 min', 75), (3, interval '60 min', 250)$$, 'the phases');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
  WHERE p.pronamespace = 'eros'::regnamespace AND l.lanname <> 'c'
    AND NOT coalesce(p.proconfig::text LIKE '%search_path=pg_catalog%', false)$$,
  'every function that is not in C has a safe search_path');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p
  WHERE (p.pronamespace = 'eros'::regnamespace OR p.proname = 'eros_touch') AND p.prosecdef$$,
  'no function is SECURITY DEFINER');
\ir include/end.sql
