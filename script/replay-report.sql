-- What EROS did with a log that was played.
\pset footer off
\echo
\echo '== What EROS did'
WITH gap AS (
  SELECT coalesce(lead(at) OVER (PARTITION BY user_id ORDER BY at) - at, 'infinity') AS seconds FROM replay.event
), crossing AS (
  SELECT phase, count(*) AS crossings FROM gap JOIN replay.phase ON seconds >= extract(epoch FROM idle_after) GROUP BY 1)
SELECT s.phase, p.idle_after, coalesce(c.crossings, 0) AS "crossings in the log", s.transitions AS "as EROS saw them",
  coalesce(h.jobs, 0) AS "jobs done", coalesce(h.failed, 0) AS failed, s.jobs_pending AS "jobs left", s.batches, round(s.cpu_used_ms) AS "CPU ms",
  round(s.cpu_used_ms::numeric / nullif(h.jobs, 0), 2) AS "ms a job"
FROM eros.status_phase AS s
JOIN replay.phase AS p USING (phase)
LEFT JOIN crossing AS c USING (phase)
LEFT JOIN (SELECT phase, sum(users_done) AS jobs, sum(jobs_failed) AS failed FROM eros.status_handler GROUP BY 1) AS h USING (phase)
ORDER BY s.phase;

\pset tuples_only on
\pset format unaligned
WITH log AS (
  SELECT count(*) AS touches, count(DISTINCT user_id) AS users FROM replay.event
), cost AS (
  SELECT sum(cpu_used_ms) / 1000 AS seconds, sum(users_done) AS jobs FROM eros.status_handler
), size AS (
  SELECT pg_total_relation_size('eros.activity') AS activity, pg_total_relation_size('eros.job') AS job,
    (SELECT coalesce(sum(size_bytes), 0) FROM eros.status_cache) AS cache
), life AS (
  SELECT *, greatest(last_at - first_at, 1) AS seconds FROM replay.played)
SELECT concat_ws(E'\n',
  format('log       %s touches by %s users, %s to %s', touches, users,
    to_char(to_timestamp(first_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),
    to_char(to_timestamp(last_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')),
  format('play      %s times faster, %s touches a second, at most %s ms late', speed,
    round((touches * speed / life.seconds)::numeric), round(1000 * extract(epoch FROM max_late))),
  format('touches   %s µs each; %s returns, %s halts', round(1e6 * extract(epoch FROM touch_time) / touches, 2), returns, halts),
  format('CPU       workers %s s, scheduler %s s; at the log''s own pace the workers'' is %s s a day', round(cost.seconds::numeric, 1),
    round(scheduler_cpu_ms::numeric / 1000, 1), round((cost.seconds / life.seconds * 86400)::numeric, 3)),
  format('memory    %s users active at most; %s of shared memory for them, of %s reserved', max_active,
    pg_size_pretty(tracker_bytes), pg_size_pretty(tracker_limit_bytes)),
  format('tables    %s idle users; eros.activity %s, eros.job %s, results %s: %s bytes a user', idle_users,
    pg_size_pretty(activity), pg_size_pretty(job), pg_size_pretty(cache),
    round((activity + job + cache) / greatest(idle_users, 1))),
  format('status    %s', status),
  CASE WHEN shortest_ms < 100 THEN
    format(E'\n%s were %s ms here: EROS misses some absences that are hardly longer. A lower SPEED shows more of them.',
      shortest, round(shortest_ms, 1))
  END)
FROM log, cost, size, life, eros.status,
  (SELECT 1000 * extract(epoch FROM min(idle_after)) AS shortest_ms FROM eros.phase) AS p,
  (SELECT min(idle_after) AS shortest FROM replay.phase) AS o;
