-- A call over the handler's time-out is cancelled and counts as a failure.
\ir include/begin.sql
SELECT plan(10);

CREATE TABLE t.slow (user_id bigint);
CREATE FUNCTION t.sleepy(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE plpgsql SET search_path = t, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM slow AS s WHERE s.user_id = ANY (user_ids)) THEN
    PERFORM pg_sleep(60);
  END IF;
  RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) AS u;
END $$;
-- catches what it gets, and goes on
CREATE FUNCTION t.stubborn(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE plpgsql AS $$
BEGIN
  BEGIN
    PERFORM pg_sleep(60);
  EXCEPTION WHEN OTHERS OR query_canceled THEN
    NULL;
  END;
  RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) AS u;
END $$;
INSERT INTO t.slow VALUES (2);
SELECT eros.add_handler('sleepy', 't.sleepy', 1, timeout => '500 ms', max_attempts => 2) AS n \gset
SELECT eros_touch(ARRAY[1, 2, 3]::bigint[]);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT status || '' '' || attempts || '' '' || last_error FROM eros.job',
  'failed 2 handler "sleepy" was cancelled after 500 ms', 'a user over whom it takes too long is set to failed');
CALL eventually('SELECT string_agg(user_id::text, '' '' ORDER BY user_id) FROM eros.get_many(''sleepy'', ARRAY[1, 2, 3]::bigint[])',
  '1 3', 'the others have their results');
SELECT is(error_of($$SELECT eros.run_now('sleepy', 2)$$), '57014 handler "sleepy" was cancelled after 500 ms',
  'run_now shows the error');
SELECT is(eros.run_now('sleepy', 1), '1', 'and the session goes on');
SELECT is((SELECT status::text FROM eros.job), 'failed', 'a failing run_now leaves the job as it was');

SELECT eros.add_handler('stubborn', 't.stubborn', 1, timeout => '500 ms', max_attempts => 1) AS n \gset
SELECT is(error_of($$SELECT eros.run_now('stubborn', 1)$$), '57014 handler "stubborn" was cancelled after 500 ms',
  'a handler cannot catch its time-out');
CALL eventually('SELECT count(*) FROM eros.job j JOIN eros.handler h USING (handler_id)
  WHERE h.name = ''stubborn'' AND status = ''failed''', '3', 'nor in a worker');
SELECT is((SELECT count(*) FROM eros.get_many('stubborn', ARRAY[1, 2, 3]::bigint[])), 0::bigint, 'nothing of it is kept');

-- It is the handler's own failure, too, when it raises what a cancel does, or hands a remote server's on.
CREATE FUNCTION t.remote(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE plpgsql AS $$
BEGIN
  IF 2 = ANY (user_ids) THEN
    RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = 'query_canceled';
  END IF;
  RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) AS u;
END $$;
SELECT eros.add_handler('remote', 't.remote', 1, max_attempts => 1) AS n \gset
CALL eventually('SELECT string_agg(user_id::text, '' '' ORDER BY user_id) FROM eros.get_many(''remote'', ARRAY[1, 2, 3]::bigint[])',
  '1 3', 'an error that looks like a cancel keeps nobody else from his result');
CALL eventually('SELECT status || '' '' || last_error FROM eros.job j JOIN eros.handler h USING (handler_id) WHERE h.name = ''remote''',
  'failed canceling statement due to statement timeout', 'and counts as a failure');
\ir include/end.sql
