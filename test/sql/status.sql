-- The status views: their columns, and what they show of an idle database.
\a
SELECT c.relname || '.' || a.attname AS column, a.atttypid::regtype AS type
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'eros'::regnamespace AND c.relkind = 'v' AND c.relname LIKE 'status%' ORDER BY c.relname, a.attnum;
\a
SELECT count(*) AS rows, bool_and(workers_limit >= workers) AS within_limit, bool_and(launcher_pid > 0) AS launcher,
  bool_and(tracker_users <= tracker_capacity AND tracker_bytes <= tracker_limit_bytes) AS within_memory,
  bool_and(cache_limit_bytes = pg_size_bytes(current_setting('eros.cache_limit'))) AS cache_limit,
  min(maintenance_by) AS maintenance_by, min(touches_lost) AS touches_lost
FROM eros.status;
SELECT eros.cpu_cores() > 0 AS counts_cores;
SELECT phase, idle_after, cpu_percent, batch_size FROM eros.status_phase;
SELECT count(*) FROM eros.status_handler;
SELECT count(*) FROM eros.status_queue;
-- a handler that has never run
CREATE FUNCTION regress_one(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS $$ SELECT u, '1'::jsonb FROM unnest(user_ids) AS u $$;
SELECT eros.add_handler('one', 'public.regress_one', 3, enabled => false) > 0 AS added;
\x
SELECT handler, function, phase, enabled, owner = current_user::regrole AS mine, ttl, jobs_pending, jobs_failed, batches,
  users_done, batches_failed, batches_halted, cpu_used_ms, cpu_halted_ms, cost_ms, results_stored, hits, misses,
  hit_percent, results_expired, results_unread, error, error_at FROM eros.status_handler;
SELECT * FROM eros.status_queue;
\x
SELECT count(*) >= 5 AS partitions, bool_and(upper - lower = width) AS widths, bool_and(live_bytes >= 0) AS bytes
FROM eros.status_cache;
SELECT eros.drop_handler('one');
DROP FUNCTION regress_one(bigint[]);
