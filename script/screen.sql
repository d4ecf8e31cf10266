-- One look at the status views; script/play includes it again and again in one session, which keeps
-- the last look in variables. From outside come: begin, unix time at which the play began; seconds,
-- how long it lasts; speed, how much faster than life; day, the unix time that it plays first;
-- format, how to print that; terminal, on: draw a picture over the last one, off: print one line.
SELECT extract(epoch FROM clock_timestamp()) AS now, array_agg(cpu_used_ms ORDER BY phase) AS used,
  array_agg(cpu_granted_ms ORDER BY phase) AS granted
FROM eros.status_phase \gset

\if :{?last_now}
  \set again on
\else
  \set again off
  \set last_now :begin
  \set last_used {}
  \set last_granted {}
\endif

WITH play AS (
  SELECT greatest(0.0, least(1.0, (:now - :begin) / :seconds)) AS done, 10 * (:now - :last_now) AS ms_per_percent
), clock AS (
  SELECT to_char(to_timestamp(:day + done * :seconds * :speed) AT TIME ZONE 'UTC', :'format') AS clock,
    rpad(repeat('#', (40 * done)::integer), 40, '.') AS bar, round(100 * done) AS percent
  FROM play
), phase AS (
  SELECT phase, users, jobs_pending, users_done,
    round(extract(epoch FROM idle_after) * :speed / 60) AS minutes,
    round(((:'used'::numeric[])[n] - coalesce((:'last_used'::numeric[])[n], 0)) / ms_per_percent, 1) AS used,
    round(((:'granted'::numeric[])[n] - coalesce((:'last_granted'::numeric[])[n], 0)) / ms_per_percent, 1) AS granted
  FROM play, (SELECT *, row_number() OVER (ORDER BY phase) AS n FROM eros.status_phase) AS p
), total AS (
  SELECT sum(used) AS used, CASE WHEN :'again' = 'on' THEN format(E'\033[%sA', 9 + count(*)) ELSE '' END AS up,
    string_agg(format('%4s %8s min %9s %8s %9s %9s %% %9s %%  %s', phase, minutes, users, jobs_pending, users_done,
      granted, used, repeat('#', (used / 10)::integer)), E'\n' ORDER BY phase) AS phases,
    format('idle %s, jobs %s, CPU %s of %s %%', string_agg(users::text, '/' ORDER BY phase),
      string_agg(jobs_pending::text, '/' ORDER BY phase), string_agg(round(used)::text, '/' ORDER BY phase),
      string_agg(round(granted)::text, '/' ORDER BY phase)) AS line
  FROM phase
), handler AS (
  SELECT sum(results_stored) AS stored, sum(hits) AS hits FROM eros.status_handler)
SELECT CASE WHEN :'terminal' = 'on' THEN
  up || replace(concat_ws(E'\n',
    format('%s  [%s] %s %%', clock, bar, percent),
    '',
    'phase    idle for     users     jobs    served     granted        used  of a core, in CPU time',
    phases,
    '',
    format('active now        %s users', active_users),
    format('CPU used          %s %% of a core', total.used),
    format('results           %s computed, %s kept, read %s times', stored, pg_size_pretty(cache_bytes), hits),
    format('returns, halts    %s, %s', returns, halts),
    format('status            %s', status)) || E'\033[K', E'\n', E'\033[K\n')
ELSE
  format('%s %3s %%  active %s, %s, results %s, halts %s', clock, percent, active_users, line, stored, halts)
END
FROM clock, total, handler, eros.status;

\set last_now :now
\set last_used :used
\set last_granted :granted
