-- A made-up history, full: every minute of the last day, every hour of the last thirty. 20,000 members,
-- most of them there in the evening, and the server down for forty minutes, ten hours ago.
INSERT INTO eros.history_ring (span_s, slot, sampled_at, counted_since, server, phases, handlers)
WITH sample AS (
  SELECT span_s, (n % CASE span_s WHEN 60 THEN 1440 ELSE 720 END)::smallint AS slot, to_timestamp(n * span_s::bigint) AS at,
    -- 0 to 1: how many are there at this time of the day
    0.55 + 0.45 * sin((extract(hour FROM to_timestamp(n * span_s::bigint)) + extract(minute FROM to_timestamp(n * span_s::bigint)) / 60 - 13) * pi() / 12)
      + 0.02 * sin(n * 1.7) AS tide,
    span_s / 60.0 AS minutes
  FROM (VALUES (60, 1440), (3600, 720)) AS s (span_s, samples),
    LATERAL (SELECT floor(extract(epoch FROM eros.now()) / span_s)::bigint - back AS n FROM generate_series(0, samples - 1) AS back) AS b
)
SELECT span_s, slot, at, at - make_interval(secs => span_s),
  ROW(150 + 900 * tide, 9000 + 4000 * (1 - tide), 40000000 + 30000000 * tide, 2, 40 * minutes, 20000 * minutes, 60 * tide * minutes,
    3 * tide * minutes, 0, 0, 0, 0, 0, 0)::eros.sample_of_server,
  ARRAY(SELECT ROW(p.phase, CASE p.phase WHEN 1 THEN 1200 * tide WHEN 2 THEN 1800 * (0.3 + tide) ELSE 6000 + 5000 * (1 - tide) END,
      55 * tide * minutes, 4 * minutes, 50 * tide * minutes,
      600 * minutes * p.cpu_percent * least(1, 0.2 + 1.2 * tide) * 1.0, 600 * minutes * p.cpu_percent * least(1, 0.2 + 1.2 * tide) * 0.9,
      0, 100 * minutes)::eros.sample_of_phase
    FROM eros.phase p),
  ARRAY(SELECT ROW(h.handler_id, h.phase, 400 * tide * h.phase, 0, 30000 * tide, 4 * minutes, 50 * tide * minutes, 0, tide * minutes,
      20 * h.phase * h.phase * tide * minutes, tide * 4 * minutes, 50 * tide * minutes, 40 * tide * minutes, 12 * minutes, 40 * minutes, 14 * minutes,
      50 * tide * minutes, 5 * minutes, 90000 * minutes, 60000 * minutes, 50 * tide * minutes, 0, minutes, 90000 * minutes)::eros.sample_of_handler
    FROM eros.handler h)
FROM sample
WHERE NOT (span_s = 60 AND at BETWEEN eros.now() - interval '10 hours' AND eros.now() - interval '9 hours 20 minutes')
ON CONFLICT (span_s, slot) DO UPDATE SET sampled_at = EXCLUDED.sampled_at, counted_since = EXCLUDED.counted_since,
  server = EXCLUDED.server, phases = EXCLUDED.phases, handlers = EXCLUDED.handlers;
