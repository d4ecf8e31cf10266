-- The time until a failed job is tried again: doubled every time, with a jitter, up to a limit.
\ir include/begin.sql
ALTER SYSTEM SET eros.retry_delay = '1min';
ALTER SYSTEM SET eros.retry_delay_max = '3min';
\ir include/reload.sql
SELECT plan(9);

CREATE FUNCTION t.fails(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'no'; END $$;
SELECT eros.add_handler('fails', 't.fails', 1, max_attempts => 4) AS n \gset
SELECT eros_touch(1);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT attempts FROM eros.job', '1', 'it fails once');
SELECT ok((SELECT due_at - eros.now() BETWEEN '30 s' AND '75 s' FROM eros.job), 'and is tried again in 45 to 75 seconds');
SELECT is((SELECT oldest_wait FROM eros.status_queue), NULL, 'no job is due until then');
SELECT eros.advance_clock('75 s') AS t \gset
CALL eventually('SELECT attempts FROM eros.job', '2', 'it fails twice');
SELECT ok((SELECT due_at - eros.now() BETWEEN '75 s' AND '150 s' FROM eros.job), 'and is tried again in 90 to 150 seconds');
SELECT eros.advance_clock('150 s') AS t \gset
CALL eventually('SELECT attempts FROM eros.job', '3', 'it fails three times');
SELECT ok((SELECT due_at - eros.now() BETWEEN '120 s' AND '225 s' FROM eros.job), 'the delay grows up to eros.retry_delay_max');
SELECT eros.advance_clock('4 minutes') AS t \gset
CALL eventually('SELECT attempts || '' '' || status FROM eros.job', '4 failed', 'at last it is set to failed');
SELECT eros.advance_clock('1 hour') AS t \gset
SELECT eros.add_handler('echo', 't.echo', 1) AS n \gset
CALL eventually('SELECT (eros.get(''echo'', 1) IS NOT NULL) || '' '' || (SELECT attempts FROM eros.job WHERE status = ''failed'')', 'true 4',
  'and stays alone from then on');
\ir include/end.sql
