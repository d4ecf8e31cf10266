-- An administrator works on the tables and indexes that EROS looks into without SQL.
\ir include/begin.sql
SELECT plan(23);

SELECT is(eros.add_handler('echo', 't.echo', 1), 1, 'a handler');
SELECT lives_ok('REINDEX TABLE eros.job', 'the indexes are made anew');
SELECT eros_touch(1);
SELECT eros.advance_clock('11 minutes') AS t \gset
CALL eventually('SELECT eros.get(''echo'', 1) ->> ''user''', '1', 'the jobs are found');

-- another index of that name: nobody crashes, the error says what is missing
DROP INDEX eros.job_pending_idx;
CREATE INDEX job_pending_idx ON eros.job (user_id, last_error, status) WHERE status = 'pending';
SELECT eros_touch(2);
SELECT eros.advance_clock('11 minutes') AS t \gset
CALL eventually('SELECT count(*) > 0 FROM eros.status_error WHERE message LIKE ''the index "job_pending_idx"%'' AND sqlstate = ''55000''', 'true',
  'an index of the same name and other columns is refused');
DROP INDEX eros.job_pending_idx;
SELECT is(eros.get('echo', 2), NULL, 'no job is claimed');
CREATE INDEX job_pending_idx ON eros.job (phase, handler_id, due_at) WHERE status = 'pending';
CALL eventually('SELECT eros.get(''echo'', 2) ->> ''user''', '2', 'with the right one the work goes on');
SELECT is((SELECT count(*) FROM eros.job), 0::bigint, 'to its end');

-- other columns than those that EROS goes by
ALTER TABLE eros.cache RENAME COLUMN value TO old_value;
SELECT is(eros.get('echo', 1) ->> 'user', '1', 'the name of a column does not matter to a reader');
ALTER TABLE eros.cache RENAME COLUMN old_value TO value;
BEGIN;
ALTER TABLE eros.cache ALTER COLUMN user_id TYPE text;
SELECT throws_ok('SELECT eros.get(''echo'', 1)', '55000', 'the columns of table eros.cache have been changed', 'its type does: an error, and no crash');
ROLLBACK;

-- columns that others add are null, also when they are gone again
ALTER TABLE eros.cache ADD COLUMN note text;
SELECT eros.run_now('echo', 1);
SELECT is((SELECT count(*) FILTER (WHERE note IS NULL) || ' of ' || count(*) FROM eros.cache WHERE user_id = eros.user_key(1)), '1 of 1', 'a result is stored beside a new column');
ALTER TABLE eros.cache DROP COLUMN note;
SELECT eros.run_now('echo', 1);
SELECT eros.run_now('echo', 3);
SELECT is((SELECT count(*) FROM eros.get_many('echo', ARRAY[1, 3]::bigint[])), 2::bigint, 'and beside a dropped one');

-- settings of a session do not reach the partitions that it makes
CREATE ACCESS METHOD test_heap TYPE TABLE HANDLER heap_tableam_handler;
SET default_table_access_method = test_heap;
SELECT is(eros.add_handler('long', 't.echo', 1, ttl => '200 days') > 0, true, 'a handler of another class of partitions');
RESET default_table_access_method;
SELECT is((SELECT count(*) FROM eros.cache_partitions() p JOIN pg_class c ON c.oid = p.partition JOIN pg_am a ON a.oid = c.relam WHERE a.amname <> 'heap'),
  0::bigint, 'its partitions are of the heap, whatever the session''s default');

-- tables that are emptied: the figures follow, at the commit
SELECT eros.pause() AS t \gset
SELECT eros_touch(u) FROM generate_series(1, 20) u \g /dev/null
SELECT eros.advance_clock('11 minutes') AS t \gset
CALL eventually('SELECT sum(jobs_pending) FROM eros.status_phase', '40', 'jobs wait');
SELECT is((SELECT users FROM eros.status_phase WHERE phase = 1), 20::bigint, 'their users are idle');
BEGIN;
TRUNCATE eros.job, eros.activity;
ROLLBACK;
SELECT is((SELECT sum(jobs_pending) FROM eros.status_phase), 40::numeric, 'a TRUNCATE that is rolled back changes nothing');
TRUNCATE eros.job;
SELECT is((SELECT sum(jobs_pending) FROM eros.status_phase), 0::numeric, 'TRUNCATE of eros.job: none waits');
TRUNCATE eros.activity;
SELECT is((SELECT sum(users) FROM eros.status_phase), 0::numeric, 'TRUNCATE of eros.activity: nobody is idle');
SELECT throws_ok('CREATE TRIGGER wrong AFTER DELETE ON eros.job FOR EACH STATEMENT EXECUTE FUNCTION eros.table_emptied();
  DELETE FROM eros.job', '39P01', 'function "eros.table_emptied" was not called by TRUNCATE', 'nothing but a TRUNCATE tells so');

-- constraints that were dropped: rows that they would have refused are, and nobody crashes
BEGIN;
ALTER TABLE eros.phase DROP CONSTRAINT phase_batch_size_check;
UPDATE eros.phase SET batch_size = 60000;
SELECT throws_ok('SELECT eros.retry(''echo'')', '55000', 'a row of table eros.phase is out of range', 'a batch that is too large');
ROLLBACK;
BEGIN;
ALTER TABLE eros.phase DROP CONSTRAINT phase_phase_check;
INSERT INTO eros.phase SELECT 100 + g, interval '10 days' + g * interval '1 day', 1, 1 FROM generate_series(1, 20) g;
SELECT throws_ok('SELECT eros.retry(''echo'')', '55000', 'a row of table eros.phase is out of range', 'too many phases');
ROLLBACK;
BEGIN;
ALTER TABLE eros.phase ALTER COLUMN idle_after DROP NOT NULL;
UPDATE eros.phase SET cpu_percent = cpu_percent;
SELECT throws_ok('SELECT eros.retry(''echo'')', '55000', 'the columns of table eros.phase have been changed', 'a column that may be NULL');
ROLLBACK;
BEGIN;
CREATE FUNCTION t.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER nothing BEFORE INSERT ON eros.job FOR EACH ROW EXECUTE FUNCTION t.nothing();
SELECT throws_ok('SELECT eros.run_now(''echo'', 77::bigint)', '55000', 'table eros.job takes no jobs', 'a trigger that keeps jobs out');
ROLLBACK;
\ir include/end.sql
