-- Several workers side by side, and what is seen of them; the test holds them by an advisory lock.
\ir include/begin.sql
ALTER SYSTEM SET eros.workers = 2;
\ir include/reload.sql
SELECT plan(19);

UPDATE eros.phase SET batch_size = 3 WHERE phase = 1;
-- waits until the test lets it go
CREATE FUNCTION t.gated(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE plpgsql SET search_path = t, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(42);
  INSERT INTO call (user_id) SELECT unnest(user_ids);
  RETURN QUERY SELECT u, to_jsonb(pg_backend_pid()) FROM unnest(user_ids) AS u;
END $$;
SELECT eros.add_handler('gated', 't.gated', 1) AS n \gset
SELECT pg_advisory_lock(42);
SELECT eros_touch(array_agg(u)) FROM generate_series(1, 30) AS u;
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT string_agg(worker || '' '' || activity || '' '' || handler || '' '' || phase, '', '') FROM eros.status_worker',
  '1 computing gated 1, 2 computing gated 1', 'two workers compute at the same time');
SELECT is((SELECT workers || ' of ' || workers_limit FROM eros.status), '2 of 2', 'the status counts them');
SELECT ok(bool_and(batch_users BETWEEN 1 AND 3), 'a batch is no larger than the phase allows') FROM eros.status_worker;
SELECT ok(bool_and(batch_age > interval '0'), 'and has its age') FROM eros.status_worker;
CALL eventually($$SELECT count(*) FROM pg_stat_activity a JOIN eros.status_worker w ON a.pid = w.pid
  WHERE a.backend_type = 'eros worker' AND a.application_name = 'eros worker' AND a.state = 'active'
    AND a.query = 't.gated(bigint[])' AND a.wait_event_type = 'Lock'$$, '2', 'pg_stat_activity shows what they do');
SELECT is((SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eros scheduler' AND application_name = 'eros scheduler'
  AND datname = current_database()), 1::bigint, 'and the scheduler');
SELECT is((SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eros launcher'), 1::bigint, 'and the launcher');
SELECT is((SELECT jobs_pending FROM eros.status), 30::bigint, 'what is being computed is still pending');
SELECT is((SELECT count(*) FROM eros.cache), 0::bigint, 'nothing is stored yet');

SELECT pg_advisory_unlock(42);
CALL eventually('SELECT count(*) FROM eros.cache', '30', 'let go, they compute for all');
SELECT is((SELECT count(*) FROM t.call), 30::bigint, 'for each user once');
SELECT is((SELECT count(DISTINCT user_id) FROM t.call), 30::bigint, 'and for each');
SELECT is((SELECT count(DISTINCT pid) FROM t.call), 2::bigint, 'both have taken their part');
CALL eventually('SELECT users_done FROM eros.status_handler', '30', 'the users are counted');
SELECT is((SELECT results_stored FROM eros.status_handler), 30::bigint, 'and the results');
CALL eventually('SELECT batches >= 10 FROM eros.status_phase WHERE phase = 1', 'true', 'and the batches');
SELECT cmp_ok((SELECT cpu_used_ms FROM eros.status_phase WHERE phase = 1), '>', 0::float8, 'and the CPU time');

CALL eventually('SELECT workers FROM eros.status', '0', 'without work they end');

-- A worker that is killed: its jobs run again.
SELECT pg_advisory_lock(42);
SELECT eros_touch(array_agg(u)) FROM generate_series(31, 40) AS u;
SELECT eros.advance_clock('15 minutes') AS t \gset
DO $$
BEGIN
  FOR i IN 1..18000 LOOP
    EXIT WHEN (SELECT count(*) FROM eros.status_worker WHERE activity = 'computing') = 2;
    COMMIT;
    PERFORM pg_sleep(0.01);
  END LOOP;
END $$;
SELECT pg_terminate_backend(pid) FROM eros.status_worker;
SELECT pg_advisory_unlock(42);
CALL eventually('SELECT count(*) || '' '' || count(DISTINCT user_id) FROM t.call WHERE user_id > 30', '10 10',
  'what a terminated worker had begun is computed by another one, once');
\ir include/end.sql
