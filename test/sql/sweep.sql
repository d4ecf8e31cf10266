-- From idle to a job; no worker runs in this test.
SET client_min_messages = warning;
ALTER SYSTEM SET eros.workers = 0;
SELECT pg_reload_conf();
\c
SHOW eros.workers;
CREATE FUNCTION regress_one(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS $$ SELECT u, '1'::jsonb FROM unnest(user_ids) AS u $$;
SELECT eros.add_handler('first', 'public.regress_one', 1) > 0 AS added;
SELECT eros.add_handler('second', 'public.regress_one', 2) > 0 AS added;
SELECT eros.add_handler('third', 'public.regress_one', 3) > 0 AS added;
CREATE FUNCTION regress_jobs() RETURNS TABLE (usr bigint, handlers text) LANGUAGE sql AS $$
  SELECT eros.user_bigint(j.user_id), string_agg(h.name, ', ' ORDER BY h.phase)
  FROM eros.job j JOIN eros.handler h USING (handler_id) WHERE j.status = 'pending' AND j.attempts = 0 AND eros.user_bigint(j.user_id) BETWEEN 8001 AND 8003
  GROUP BY 1 ORDER BY 1
$$;
CREATE FUNCTION regress_idle() RETURNS TABLE (usr bigint, phase smallint) LANGUAGE sql AS $$
  SELECT eros.user_bigint(a.user_id), a.phase FROM eros.activity a
  WHERE eros.user_bigint(a.user_id) BETWEEN 8001 AND 8003 ORDER BY 1
$$;
SELECT eros_touch(ARRAY[8001, 8002, 8003]::bigint[]);
SELECT eros.sweep() IS NULL;
SELECT * FROM regress_jobs();
SELECT eros.advance_clock('9 minutes 50 seconds') IS NULL;
SELECT eros_touch(8001);
SELECT eros.advance_clock('10 seconds') IS NULL;
SELECT eros.sweep() IS NULL;
SELECT * FROM regress_jobs();
SELECT * FROM regress_idle();
-- the same once more makes no second job
SELECT eros.sweep() IS NULL;
SELECT * FROM regress_jobs();
-- who has a fresh result needs no job
SELECT eros.run_now('second', 8002);
SELECT eros.advance_clock('20 minutes') IS NULL;
SELECT eros.sweep() IS NULL;
SELECT * FROM regress_jobs();
SELECT * FROM regress_idle();
-- a return takes the jobs away, when the sweep sees it
SELECT eros_touch(8003);
SELECT eros.sweep() IS NULL;
SELECT * FROM regress_jobs();
SELECT * FROM regress_idle();
-- all at once
SELECT eros.advance_clock('1 hour') IS NULL;
SELECT eros.sweep() IS NULL;
SELECT * FROM regress_jobs();
SELECT * FROM regress_idle();
SELECT phase, jobs_pending >= 2 AS pending FROM eros.status_phase;
SELECT handler, phase, jobs_pending >= 2 AS pending, jobs_failed, next_due <= eros.now() AS due, oldest_wait >= '0' AS waits FROM eros.status_queue;
SELECT eros.drop_handler('first');
SELECT eros.drop_handler('second');
SELECT eros.drop_handler('third');
SELECT * FROM regress_jobs();
SELECT jobs_pending FROM eros.status;
DROP FUNCTION regress_jobs(), regress_idle(), regress_one(bigint[]);
ALTER SYSTEM RESET eros.workers;
SELECT pg_reload_conf();
