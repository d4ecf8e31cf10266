-- A returning user halts the batch that computes for him, whatever it is doing.
\ir include/begin.sql
ALTER SYSTEM SET eros.halt_timeout = '1min'; -- a busy machine is no reason to terminate a worker
\ir include/reload.sql
SELECT plan(14);

CREATE TABLE t.begun (user_id bigint);
-- whoever has an odd number keeps it busy for a minute, in one way or another
CREATE FUNCTION t.sleeps(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
BEGIN
  IF user_ids && ARRAY[1, 3, 5]::bigint[] THEN PERFORM pg_sleep(60); END IF;
  RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) AS u;
END $$;
CREATE FUNCTION t.loops(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
DECLARE
  i bigint := 0;
BEGIN
  WHILE user_ids && ARRAY[1, 3, 5]::bigint[] AND i < 1000000000 LOOP
    i := i + 1;
  END LOOP;
  RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) AS u;
END $$;
CREATE FUNCTION t.sorts(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
BEGIN
  IF user_ids && ARRAY[1, 3, 5]::bigint[] THEN
    PERFORM count(*) FROM (SELECT md5(i::text) AS m FROM generate_series(1, 100000000) AS i ORDER BY 1) AS s;
  END IF;
  RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) AS u;
END $$;
-- catches the halt, and goes on
CREATE FUNCTION t.stubborn(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
BEGIN
  BEGIN
    IF user_ids && ARRAY[1, 3, 5]::bigint[] THEN PERFORM pg_sleep(60); END IF;
  EXCEPTION WHEN OTHERS OR query_canceled THEN
    NULL;
  END;
  RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) AS u;
END $$;

-- Users 1 and 2 are away; while a worker computes for them user 1 comes back.
CREATE PROCEDURE t.come_back(handler text) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM eros_touch(ARRAY[1, 2]::bigint[]), eros.advance_clock('15 minutes');
  COMMIT;
  PERFORM eros.add_handler(handler, 't.' || handler, 1);
  COMMIT;
  FOR i IN 1..18000 LOOP
    EXIT WHEN EXISTS (SELECT FROM eros.status_worker w WHERE w.activity = 'computing' AND w.batch_users = 2);
    COMMIT;
    PERFORM pg_sleep(0.01);
  END LOOP;
  PERFORM eros_touch(1);
END $$;
CALL t.come_back('sleeps');
CALL eventually('SELECT eros.get(''sleeps'', 2)', '1', 'sleeping: the other user is computed');
SELECT is(eros.get('sleeps', 1), NULL, 'but not the one who is back');
SELECT eros.drop_handler('sleeps');
CALL t.come_back('loops');
CALL eventually('SELECT eros.get(''loops'', 2)', '1', 'in a loop: the other user is computed');
SELECT is(eros.get('loops', 1), NULL, 'but not the one who is back');
SELECT eros.drop_handler('loops');
CALL t.come_back('sorts');
CALL eventually('SELECT eros.get(''sorts'', 2)', '1', 'in a large sort: the other user is computed');
SELECT is(eros.get('sorts', 1), NULL, 'but not the one who is back');
SELECT eros.drop_handler('sorts');
CALL t.come_back('stubborn');
CALL eventually('SELECT eros.get(''stubborn'', 2)', '1', 'catching the halt: the other user is computed');
SELECT is(eros.get('stubborn', 1), NULL, 'but not the one who is back');
SELECT is((SELECT count(*) FROM eros.job), 0::bigint, 'no job is left');
SELECT is((SELECT jobs_failed || ' ' || batches_failed FROM eros.status_handler), '0 0', 'no attempt has been counted');
SELECT cmp_ok((SELECT halts FROM eros.status), '>=', 4::bigint, 'the halts are counted');
SELECT is((SELECT active_users FROM eros.status), 1::bigint, 'the user is active');

-- what is left to see
SELECT is((SELECT count(*) FROM eros.status_halt_recent r
  WHERE r.reason = 'return' AND r.latency_ms > 0 AND r.phase = 1 AND r.batch_users BETWEEN 1 AND 2 AND r.worker >= 1
    AND r.halted_at BETWEEN now() - interval '1 hour' AND clock_timestamp()),
  (SELECT h.halts FROM eros.status_halt h), 'each halt is among the last ones');
SELECT is_empty('SELECT FROM (SELECT r.halted_at, lag(r.halted_at) OVER () AS before FROM eros.status_halt_recent r) r
  WHERE r.halted_at > r.before', 'which come the latest first');
\ir include/end.sql
