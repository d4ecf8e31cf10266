-- eros.pause() stops the work at once, eros.resume() lets it go on; all else goes on meanwhile.
\ir include/begin.sql
SELECT plan(11);

CREATE FUNCTION t.sleeps(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE plpgsql SET search_path = t, pg_temp AS $$
BEGIN
  INSERT INTO call (user_id) SELECT unnest(user_ids);
  IF NOT EXISTS (SELECT FROM awake) THEN
    PERFORM pg_sleep(60);
  END IF;
  RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) AS u;
END $$;
CREATE TABLE t.awake ();
SELECT eros.add_handler('sleeps', 't.sleeps', 1) AS n \gset
SELECT eros_touch(ARRAY[1, 2]::bigint[]);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT activity FROM eros.status_worker', 'computing', 'a worker computes');
SELECT eros.pause();
CALL eventually('SELECT count(*) FROM eros.status_worker WHERE activity = ''computing''', '0', 'paused, it stops at once');
SELECT is((SELECT status FROM eros.status), 'paused: eros.resume() lets the work go on', 'the status says so');
SELECT is((SELECT jobs_pending || ' ' || (SELECT max(attempts) FROM eros.job) FROM eros.status), '2 0',
  'the jobs are pending again, and no attempt is counted');
SELECT eros_touch(3);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT count(*) FROM eros.job', '3', 'the sweep goes on');
INSERT INTO t.awake DEFAULT VALUES;
SELECT is(eros.run_now('sleeps', 9), '1', 'run_now goes on');
SELECT is(eros.get('sleeps', 9), '1', 'eros.get goes on');
SELECT is((SELECT count(*) FROM t.call WHERE user_id < 9), 0::bigint, 'no worker has computed anything');
SELECT eros.resume();
CALL eventually('SELECT count(*) FROM eros.get_many(''sleeps'', ARRAY[1, 2, 3]::bigint[])', '3', 'resumed, they are computed');
SELECT is((SELECT status FROM eros.status), 'ok', 'all is well');

SELECT is((SELECT has_function_privilege('pg_monitor', 'eros.pause()', 'EXECUTE')), false, 'who may only look may not pause');
\ir include/end.sql
