-- DROP and CREATE EXTENSION: what ends, what is left, and what begins again by itself.
\ir include/begin.sql
SELECT plan(17);

CALL eventually('SELECT count(*) FROM pg_stat_activity WHERE backend_type = ''eros scheduler''
  AND datname = current_database()', '1', 'the scheduler starts by itself after CREATE EXTENSION');
SELECT eros.add_handler('echo', 't.echo', 1);
SELECT eros.run_now('echo', 1);
SELECT eros_touch(1);
SELECT eros_touch(2);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT string_agg(user_id::text, '' '' ORDER BY user_id) FROM t.call', '1 1 2', 'it does its work');
SELECT eros_touch(3);

DROP EXTENSION eros;
SELECT hasnt_schema('eros');
SELECT is((SELECT count(*) FROM pg_proc WHERE proname = 'eros_touch'), 0::bigint, 'eros_touch is gone');
SELECT is((SELECT count(*) FROM pg_class WHERE relname LIKE 'cache\_b%'), 0::bigint, 'no partition of the cache is left');
CALL eventually('SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE ''eros %''
  AND datname = current_database()', '0', 'no process of EROS is left in this database');

CREATE SCHEMA eros;
SELECT throws_ok('CREATE EXTENSION eros', '42P06', NULL, 'a schema eros that somebody else made is refused');
DROP SCHEMA eros;

CREATE SCHEMA app;
CREATE EXTENSION eros SCHEMA app;
SELECT is((SELECT string_agg(DISTINCT pronamespace::regnamespace::text, ' ') FROM pg_proc WHERE proname = 'eros_touch'), 'app',
  'eros_touch lives in the schema that CREATE EXTENSION was given');
SELECT has_table('eros'::name, 'job'::name);
CALL eventually('SELECT count(*) FROM pg_stat_activity WHERE backend_type = ''eros scheduler''
  AND datname = current_database()', '1', 'the scheduler starts again');
SELECT is((SELECT count(*) FROM eros.handler), 0::bigint, 'nothing is left of the handlers of before');
CALL eventually('SELECT active_users FROM eros.status', '0', 'nor of the active users');

UPDATE eros.phase SET cpu_percent = 95;
SELECT eros.add_handler('echo', 't.echo', 1);
SELECT app.eros_touch(7);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT eros.get(''echo'', 7) ->> ''user''', '7', 'it works again');
SELECT is(eros.get('echo', 1), NULL, 'results of before are not there');

-- what is rolled back has not happened
BEGIN;
DROP EXTENSION eros;
ROLLBACK;
SELECT has_table('eros'::name, 'job'::name);
SELECT app.eros_touch(8);
CALL eventually('SELECT count(*) FROM pg_stat_activity WHERE backend_type = ''eros scheduler''
  AND datname = current_database()', '1', 'the scheduler comes back when DROP EXTENSION is rolled back');
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT eros.get(''echo'', 8) ->> ''user''', '8', 'and goes on');
\ir include/end.sql
