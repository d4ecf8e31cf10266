-- Who may do what: nobody, the application, the owner of handlers, the monitor.
\ir include/begin.sql
SELECT plan(65);

CREATE ROLE test_nobody;
CREATE ROLE test_app LOGIN;
CREATE ROLE test_dev LOGIN;
CREATE ROLE test_other LOGIN;
CREATE ROLE test_watch LOGIN IN ROLE pg_monitor;
SELECT eros.grant_application('test_app');
SELECT eros.grant_developer('test_dev');
SELECT eros.grant_developer('test_other');
GRANT USAGE ON SCHEMA t TO PUBLIC;

-- What a role may execute.
CREATE FUNCTION t.executable(name) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT DISTINCT p.proname::text FROM pg_proc p
  WHERE (p.pronamespace = 'eros'::regnamespace OR p.proname = 'eros_touch')
    AND has_function_privilege($1, p.oid, 'EXECUTE')
$$;
-- What a role may read or change.
CREATE FUNCTION t.accessible(name) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT c.relname::text FROM pg_class c
  WHERE c.relnamespace = 'eros'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
    AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege($1, c.oid, 'USAGE, SELECT, UPDATE')
        ELSE has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
          OR has_any_column_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES') END
$$;

-- nobody
SELECT set_eq($$SELECT t.executable('test_nobody')$$, ARRAY['user_key', 'user_bigint', 'now'],
  'PUBLIC may execute nothing that reads or changes state');
SELECT is_empty($$SELECT t.accessible('test_nobody')$$, 'PUBLIC has no right on a table, view or sequence');
SELECT is(has_schema_privilege('test_nobody', 'eros', 'USAGE, CREATE'), false, 'PUBLIC has no right on the schema');
SET ROLE test_nobody;
SELECT throws_ok('SELECT eros_touch(1)', '42501', NULL, 'nobody cannot touch');
SELECT throws_ok('SELECT eros.get(''x'', 1)', '42501', NULL, 'nobody cannot read a result');
RESET ROLE;

-- the application
SELECT set_eq($$SELECT t.executable('test_app')$$,
  ARRAY['user_key', 'user_bigint', 'now', 'eros_touch', 'get', 'get_many'], 'what an application may execute');
SELECT is_empty($$SELECT t.accessible('test_app')$$, 'an application has no right on a table, view or sequence');
SELECT is(has_schema_privilege('test_app', 'eros', 'CREATE'), false, 'an application cannot create in the schema');

-- the owner of handlers
SELECT set_eq($$SELECT t.executable('test_dev')$$,
  ARRAY['user_key', 'user_bigint', 'now', 'eros_touch', 'get', 'get_many', 'add_handler', 'drop_handler',
    'enable_handler', 'disable_handler', 'retry', 'run_now', 'invalidate'], 'what a developer may execute');
SELECT is_empty($$SELECT t.accessible('test_dev')$$, 'a developer has no right on a table, view or sequence');

-- the monitor
SELECT set_eq($$SELECT t.accessible('test_watch')$$, ARRAY['status', 'status_phase', 'status_handler', 'status_worker',
  'status_queue', 'status_cache', 'status_halt', 'status_halt_recent', 'status_error', 'status_database', 'phase', 'handler', 'status_latency', 'status_prediction', 'status_worth',
  'history_server', 'history_phase', 'history_handler', 'history_part', 'last_hour_sample', 'last_hour', 'last_hour_phase', 'lately_handler', 'last_day_handler',
  'metrics', 'metric_family'],
  'what pg_monitor may read');
SELECT is_empty($$SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'eros'::regnamespace AND c.relkind IN ('r', 'p', 'v')
  AND has_table_privilege('test_watch', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')$$, 'and it may change nothing');
SELECT set_eq($$SELECT t.executable('test_watch')$$, ARRAY['user_key', 'user_bigint', 'now', 'database_info', 'phase_info',
  'handler_info', 'worker_info', 'halt_info', 'error_info', 'databases_info', 'library_version', 'cpu_cores', 'cache_partitions', 'problems', 'note_scrape', 'monitor_info',
  'latency_info', 'cpu_formula', 'memory_formula', 'tracker_formula', 'drain_formula', 'activity_formula', 'job_wal_bytes', 'batch_wal_bytes', 'check_question',
  'result_wal_bytes', 'predict', 'forecast', 'prediction_cut', 'learn_handlers', 'learn_phases', 'learn_server', 'dead_rows', 'job_formula', 'history_formula', 'checklist', 'sample_server', 'sample_phases', 'sample_handlers',
  'halt_histogram', 'metrics_text',
  'halt_recent_info', 'recent_rates', 'show_number', 'show_bytes', 'show_ms', 'show_interval', 'show_text', 'show_bar',
  'top', 'top_head', 'top_phases', 'top_workers', 'top_queue', 'top_halts', 'top_rates',
  'report', 'report_area', 'report_cache', 'report_checklist', 'report_cpu', 'report_day', 'report_escape', 'report_figure',
  'report_halts', 'report_handlers', 'report_health', 'report_details', 'report_percent', 'report_legend', 'report_marks', 'report_prediction', 'report_queue',
  'report_row', 'report_section', 'report_style', 'report_table', 'report_tiles', 'report_top', 'report_unit', 'report_users'],
  'what pg_monitor may execute');

-- the developer registers a handler; it runs as him
CREATE SCHEMA dev AUTHORIZATION test_dev;
SET ROLE test_dev;
CREATE FUNCTION dev.whoami(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, to_jsonb(current_user::text) FROM unnest(user_ids) AS u $$;
SELECT lives_ok($$SELECT eros.add_handler('whoami', 'dev.whoami', 1)$$, 'a developer registers a handler');
SELECT is(eros.run_now('whoami', 1) #>> '{}', 'test_dev', 'a developer runs it');
RESET ROLE;
SELECT is(eros.run_now('whoami', 2) #>> '{}', 'test_dev', 'it runs as its owner, also when a superuser calls it');
SELECT is((SELECT owner::text FROM eros.status_handler WHERE handler = 'whoami'), 'test_dev', 'the status shows the owner');
SELECT eros_touch(3);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT eros.get(''whoami'', 3) #>> ''{}''', 'test_dev', 'and in a worker');

-- what the application does
SET ROLE test_app;
SELECT lives_ok('SELECT eros_touch(10)', 'an application touches');
SELECT is(eros.get('whoami', 1) #>> '{}', 'test_dev', 'an application reads a result');
SELECT is((SELECT count(*) FROM eros.get_many('whoami', ARRAY[1, 2, 99]::bigint[])), 2::bigint, 'or several');
SELECT throws_ok('SELECT * FROM eros.cache', '42501', NULL, 'but not the table');
SELECT throws_ok('SELECT * FROM eros.activity', '42501', NULL, 'nor who is idle');
SELECT throws_ok('SELECT * FROM eros.status', '42501', NULL, 'nor the status');
SELECT throws_ok('INSERT INTO eros.handler DEFAULT VALUES', '42501', NULL, 'nor can it write a handler');
SELECT throws_ok('UPDATE eros.phase SET cpu_percent = 90', '42501', NULL, 'nor change a phase');
SELECT throws_ok($$SELECT eros.add_handler('mine', 't.echo', 1)$$, '42501', NULL, 'nor register a handler');
SELECT throws_ok($$SELECT eros.run_now('whoami', 1)$$, '42501', NULL, 'nor run one');
SELECT throws_ok('SELECT eros.sweep()', '42501', NULL, 'nor sweep');
SELECT throws_ok($$SELECT eros.advance_clock('1 s')$$, '42501', NULL, 'nor move the time');
RESET ROLE;

-- another developer
SET ROLE test_other;
SELECT throws_ok($$SELECT eros.drop_handler('whoami')$$, '42501', NULL, 'another developer cannot drop the handler');
SELECT throws_ok($$SELECT eros.disable_handler('whoami')$$, '42501', NULL, 'nor disable it');
SELECT throws_ok($$SELECT eros.enable_handler('whoami')$$, '42501', NULL, 'nor enable it');
SELECT throws_ok($$SELECT eros.retry('whoami')$$, '42501', NULL, 'nor retry its jobs');
SELECT throws_ok($$SELECT eros.run_now('whoami', 1)$$, '42501', NULL, 'nor run it');
SELECT throws_ok($$SELECT eros.add_handler('whoami', 't.echo', 1, replace => true)$$, '42501', NULL, 'nor replace it');
SELECT throws_ok($$SELECT eros.advance_clock('1 s')$$, '42501', NULL, 'nor move the time');
RESET ROLE;
SELECT is(eros.run_now('whoami', 1) #>> '{}', 'test_dev', 'the handler is as it was');

-- a handler's function must be one that its owner may execute
CREATE FUNCTION dev.secret(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, '1'::jsonb FROM unnest(user_ids) AS u $$;
REVOKE ALL ON FUNCTION dev.secret(bigint[]) FROM PUBLIC;
SET ROLE test_dev;
SELECT throws_ok($$SELECT eros.add_handler('secret', 'dev.secret', 1)$$, '42501', NULL,
  'a function that one may not execute cannot be registered');
RESET ROLE;
SELECT is((SELECT count(*) FROM eros.handler WHERE name = 'secret'), 0::bigint, 'and is not');

-- the monitor reads all views
SET ROLE test_watch;
SELECT lives_ok('SELECT * FROM eros.status', 'pg_monitor reads eros.status');
SELECT lives_ok('SELECT * FROM eros.status_phase', 'and eros.status_phase');
SELECT lives_ok('SELECT * FROM eros.status_handler', 'and eros.status_handler');
SELECT lives_ok('SELECT * FROM eros.status_worker', 'and eros.status_worker');
SELECT lives_ok('SELECT * FROM eros.status_queue', 'and eros.status_queue');
SELECT lives_ok('SELECT * FROM eros.status_cache', 'and eros.status_cache');
SELECT lives_ok('SELECT * FROM eros.status_halt', 'and eros.status_halt');
SELECT lives_ok('SELECT * FROM eros.metrics', 'and eros.metrics');
SELECT lives_ok('SELECT eros.metrics_text()', 'and the same as text');
SELECT lives_ok(format('SELECT * FROM eros.%s', v), 'and eros.' || v)
  FROM unnest('{status_latency,status_prediction,status_worth,history_server,history_phase,history_handler,
    status_error,problems(),checklist(),predict(1000),note_scrape()}'::text[]) v;
SELECT throws_ok('SELECT * FROM eros.cache', '42501', NULL, 'but no results');
RESET ROLE;

-- what a handler's function says of its users is not for the monitor
SET ROLE test_dev;
CREATE OR REPLACE FUNCTION dev.whoami(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS
  $$ BEGIN RAISE 'no luck for user %', user_ids[1]; END $$;
RESET ROLE;
SELECT eros_touch(4711);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually($$SELECT count(*) FROM eros.status_error WHERE message = 'no luck for user 4711'$$, '1', 'a superuser sees the message of a failing handler');
SET ROLE test_watch;
SELECT results_eq($$SELECT message, sqlstate FROM eros.status_error WHERE handler = 'whoami'$$, $$VALUES (NULL, 'P0001')$$, 'the monitor does not');
SELECT is_empty($$SELECT FROM eros.error_info() WHERE message ~ '4711'$$, 'in whatever way');
RESET ROLE;
GRANT test_dev TO test_watch;
SET ROLE test_watch;
SELECT is((SELECT message FROM eros.status_error WHERE handler = 'whoami'), 'no luck for user 4711', 'the handler''s owner does');
RESET ROLE;
\ir include/end.sql
