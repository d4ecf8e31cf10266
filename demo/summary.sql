-- What EROS has to show when the days are over. speed: how much faster than life it was.
\set QUIET on
\pset footer off
\pset null '-'

\echo
\echo '== SELECT * FROM eros.status'
\pset expanded on
SELECT * FROM eros.status;
\pset expanded off

-- a member who left in the evening and has not been back, with all his results; to_day() tells the
-- community's time of day
SELECT begun_at FROM demo.day \gset
CREATE FUNCTION pg_temp.to_day(at timestamptz, speed integer) RETURNS text LANGUAGE sql AS $$
  SELECT to_char(timestamp 'epoch' + interval '6 hours' + (at - begun_at) * speed, 'HH24:MI') FROM demo.day
$$;
SELECT m.member_id, m.name, m.age, c.name AS city, a.last_seen, pg_temp.to_day(a.last_seen, :speed) AS left_at
FROM eros.activity AS a
JOIN dating.member AS m ON m.member_id = eros.user_bigint(a.user_id)
JOIN dating.city AS c USING (city_id)
JOIN LATERAL (
  SELECT count(*) FILTER (WHERE computed_at > a.last_seen) AS fresh,
    bool_or((value -> 0 ->> 'liked_at')::timestamptz > :'begun_at') AS liked_today, min(jsonb_array_length(value)) AS shortest
  FROM eros.cache WHERE user_id = a.user_id) AS r ON true
WHERE pg_temp.to_day(a.last_seen, :speed) BETWEEN '16:00' AND '22:00'
ORDER BY fresh DESC, shortest < 5, liked_today DESC NULLS LAST, a.last_seen DESC
LIMIT 1 \gset

\echo
\echo '== While' :name 'was away: member' :member_id, :age, :city, who left at :left_at and has not been back
\echo
\echo 'eros.get(''who_liked_you'',' :member_id), the latest five
SELECT name, age, city,
  CASE WHEN liked_at >= :'begun_at' THEN 'today ' || pg_temp.to_day(liked_at, :speed)
    ELSE liked_at::date::text END AS liked_at
FROM jsonb_to_recordset(eros.get('who_liked_you', :member_id))
  AS r (name text, age integer, city text, liked_at timestamptz) LIMIT 5;
\echo 'eros.get(''candidates'',' :member_id), the first five
SELECT name, age, city, shared_interests, through_friends
FROM jsonb_to_recordset(eros.get('candidates', :member_id))
  AS r (name text, age integer, city text, shared_interests integer, through_friends integer) LIMIT 5;
\echo 'eros.get(''matches'',' :member_id), the first five
SELECT name, age, city, shared_interests, percent
FROM jsonb_to_recordset(eros.get('matches', :member_id))
  AS r (name text, age integer, city text, shared_interests integer, percent integer) LIMIT 5;

\echo '== How fresh they are'
SELECT h.name AS result, pg_temp.to_day(r.computed_at, :speed) AS computed_at,
  date_trunc('minute', (r.computed_at - :'last_seen') * :speed) AS after_leaving,
  date_trunc('minute', all_members.median * :speed) AS median_of_all,
  date_trunc('minute', (clock_timestamp() - r.computed_at) * :speed) AS age_now
FROM eros.handler AS h
JOIN eros.cache AS r ON r.handler_id = h.handler_id AND r.user_id = eros.user_key(:member_id)
CROSS JOIN LATERAL (
  SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY c.computed_at - a.last_seen) AS median
  FROM eros.cache AS c JOIN eros.activity AS a USING (user_id)
  WHERE c.handler_id = h.handler_id AND c.computed_at > a.last_seen) AS all_members
ORDER BY h.phase;

\echo '== What was spent'
SELECT handler, phase, users_done AS served, batches, batches_halted AS halted,
  round(cpu_used_ms) AS cpu_ms, round(cpu_used_ms::numeric / nullif(users_done, 0), 1) AS ms_per_user,
  hits, misses, hit_percent
FROM eros.status_handler;

\pset tuples_only on
\pset format unaligned
WITH first AS (SELECT count(DISTINCT m) AS visits FROM demo.moment, unnest(coming) AS m)
SELECT format(E'In all %s s of CPU, the evening included; the scheduler took %s s.\n'
    'For all 20,000 members at once, as a nightly job does it: %s s.\n'
    'The first visits of %s members are misses, since the cache was empty on the first evening; later, %s %% are hits.',
  round(sum(h.cpu_used_ms)::numeric / 1000), round(i.scheduler_cpu_ms::numeric / 1000, 1),
  round(sum(h.cpu_used_ms / nullif(h.users_done, 0))::numeric * 20),
  visits, round(100.0 * sum(hits) / greatest(sum(hits + misses - visits), 1)))
FROM eros.status_handler AS h, eros.status AS i, first GROUP BY i.scheduler_cpu_ms, visits;

\pset tuples_only off
\pset format aligned
\echo
\echo '== Predicted beside measured: the second day, by what the first one taught'
SELECT quantity, phase, handler, round(predicted) AS predicted, round(measured) AS measured, unit, error_percent
FROM eros.status_prediction;
