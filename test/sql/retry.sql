-- Failed jobs and eros.retry; no worker runs in this test.
ALTER SYSTEM SET eros.workers = 0;
SELECT pg_reload_conf();
\c
CREATE FUNCTION regress_one(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS $$ SELECT u, '1'::jsonb FROM unnest(user_ids) AS u $$;
SELECT eros.add_handler('one', 'public.regress_one', 1) > 0 AS added;
SELECT eros.add_handler('two', 'public.regress_one', 1) > 0 AS added;
-- as a worker would leave them
INSERT INTO eros.job (user_id, handler_id, phase, attempts, due_at, status, last_error)
SELECT eros.user_key(u), handler_id, 1, 5, eros.now(), s::eros.job_status, 'because'
FROM eros.handler, (VALUES (9001, 'failed'), (9002, 'failed'), (9003, 'pending')) AS v (u, s);
SELECT eros.retry('one');
SELECT h.name, eros.user_bigint(user_id), status, attempts, last_error, due_at <= eros.now() AS due
FROM eros.job JOIN eros.handler h USING (handler_id) WHERE eros.user_bigint(user_id) BETWEEN 9001 AND 9003 ORDER BY 1, 2;
SELECT eros.retry('one');
SELECT eros.retry(NULL);
-- run by hand, the failed job is done
SELECT eros.run_now('two', 9001);
SELECT eros.retry('two');
SELECT eros.drop_handler('one');
SELECT eros.drop_handler('two');
DROP FUNCTION regress_one(bigint[]);
ALTER SYSTEM RESET eros.workers;
SELECT pg_reload_conf();
