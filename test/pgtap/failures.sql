-- A handler that fails for one user: the others' results are kept, he is retried, and then set to failed.
\ir include/begin.sql
SELECT plan(20);

CREATE TABLE t.bad (user_id bigint);
CREATE SEQUENCE t.bad_calls;
-- fails for the whole batch when one of t.bad is in it
CREATE FUNCTION t.picky(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE plpgsql SET search_path = t, pg_temp AS $$
DECLARE
  bad bigint := (SELECT min(b.user_id) FROM bad AS b WHERE b.user_id = ANY (user_ids));
BEGIN
  IF bad IS NOT NULL THEN
    IF cardinality(user_ids) = 1 THEN
      PERFORM nextval('bad_calls'); -- is not rolled back
    END IF;
    RAISE EXCEPTION 'cannot stand user %', bad;
  END IF;
  RETURN QUERY SELECT u, to_jsonb(cardinality(user_ids)) FROM unnest(user_ids) AS u;
END $$;
SELECT eros.add_handler('picky', 't.picky', 1, max_attempts => 3) AS n \gset
SELECT eros.add_handler('echo', 't.echo', 1) AS n \gset

-- One of twenty fails.
INSERT INTO t.bad VALUES (13);
SELECT eros_touch(array_agg(u)) FROM generate_series(1, 20) AS u;
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT count(*) FROM eros.cache c JOIN eros.handler h USING (handler_id) WHERE h.name = ''picky''', '19',
  'the others'' results are kept');
CALL eventually('SELECT jobs_failed FROM eros.status_handler WHERE handler = ''picky''', '1', 'the one is set to failed');
CALL eventually('SELECT count(*) FROM eros.cache c JOIN eros.handler h USING (handler_id) WHERE h.name = ''echo''', '20',
  'another handler is not troubled');
SELECT is(eros.get('picky', 13), NULL, 'and has no result');
SELECT results_eq('SELECT eros.user_bigint(user_id), status::text, attempts::integer, last_error FROM eros.job',
  $$VALUES (13::bigint, 'failed', 3, 'cannot stand user 13')$$, 'only his job is left, with its attempts and the error');
SELECT is((SELECT last_value FROM t.bad_calls), 3::bigint, 'he was tried as often as max_attempts says');
SELECT is((SELECT enabled AND error IS NULL FROM eros.status_handler WHERE handler = 'picky'), true, 'the handler goes on');
SELECT is((SELECT jobs_pending FROM eros.status_handler WHERE handler = 'picky'), 0::bigint, 'no job of it is pending');
SELECT is((SELECT batches_failed FROM eros.status_handler WHERE handler = 'picky'), 3::bigint,
  'his failures are counted, and not those of the calls by which he was found');
SELECT alike((SELECT status FROM eros.status), '1 jobs have failed%', 'the status says so');
SELECT is((SELECT jobs_failed FROM eros.status_queue WHERE handler = 'picky'), 1::bigint, 'and the queue');

-- Put back while still failing, then mended.
SELECT is(eros.retry('picky'), 1::bigint, 'eros.retry puts one job back');
CALL eventually('SELECT last_value FROM t.bad_calls', '6', 'he has all his attempts again');
CALL eventually('SELECT attempts || '' '' || status FROM eros.job', '3 failed', 'and fails again');
DELETE FROM t.bad;
SELECT is(eros.retry('picky'), 1::bigint, 'once the handler is mended');
CALL eventually('SELECT eros.get(''picky'', 13)', '1', 'he has his result');
SELECT is((SELECT count(*) FROM eros.job), 0::bigint, 'and no job');
SELECT is((SELECT jobs_failed FROM eros.status), 0::bigint, 'no failed job is counted');
SELECT is((SELECT status FROM eros.status), 'ok', 'all is well again');
SELECT is(eros.retry('picky'), 0::bigint, 'nothing is left to retry');
\ir include/end.sql
