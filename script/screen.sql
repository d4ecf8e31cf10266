-- One look at EROS; script/play includes it again and again in one session. From outside come: begin,
-- unix time at which the play began; seconds, how long it lasts; speed, how much faster than life; day,
-- the unix time that it plays first; format, how to print that; terminal, on: draw eros.top() over the
-- last one, off: print one line; ascii, on: the terminal has no block characters.
WITH play AS (
  SELECT greatest(0.0, least(1.0, (extract(epoch FROM clock_timestamp()) - :begin) / :seconds)) AS done
)
SELECT to_char(to_timestamp(:day + done * :seconds * :speed) AT TIME ZONE 'UTC', :'format') AS clock,
  round(100 * done) AS percent, repeat('#', (40 * done)::integer) AS bar
FROM play \gset

\if :terminal
  \if :{?up}
  \else
    \set up ''
  \endif
  SELECT :'up' || format(E'%s  [%s] %s %%\033[K\n\033[K', :'clock', rpad(:'bar', 40, '.'), :percent);
  SELECT rtrim(screen) || E'\033[K' FROM eros.top(height => 27, seconds => 2, ascii => :'ascii');
  \set up '\033[22A'
\else
  WITH phase AS (
    SELECT string_agg(users::text, '/' ORDER BY phase) AS users,
      string_agg(jobs_pending::text, '/' ORDER BY phase) AS jobs,
      string_agg(round(used_percent)::text, '/' ORDER BY phase) AS used,
      string_agg(round(granted_percent)::text, '/' ORDER BY phase) AS granted
    FROM eros.status_phase JOIN eros.top_rates(5) USING (phase))
  SELECT format('%s %3s %%  active %s, idle %s, jobs %s, CPU %s of %s %%, results %s, halts %s', :'clock', :percent,
    active_users, phase.users, phase.jobs, used, granted, (SELECT sum(results_stored) FROM eros.status_handler), halts)
  FROM phase, eros.status;
\endif
