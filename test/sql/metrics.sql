-- eros.metrics: Prometheus's conventions, every family, every label, and the text format.
CREATE FUNCTION regress_one(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS $$ SELECT u, '1'::jsonb FROM unnest(user_ids) AS u $$;
SELECT eros.add_handler(E'ho"st\\ile\n{}', 'public.regress_one', 3, enabled => false) > 0 AS added;
-- names that do not follow the conventions
SELECT name, type FROM eros.metric_family
WHERE name !~ '^eros(_[a-z]+)+$' OR (type = 'counter') <> (name ~ '_total$') OR type NOT IN ('counter', 'gauge', 'histogram')
  OR name ~ '(_ms|_percent|_mb|_kb|_minutes|_hours)(_|$)' OR help = '' OR labels @> '{datname}';
SELECT name FROM eros.metric_family GROUP BY name HAVING count(*) > 1;
-- subjects whose metrics have not the same labels
SELECT subject FROM eros.metric_family GROUP BY subject HAVING count(DISTINCT labels) > 1;
-- families without a sample; workers, problems, a cost and predictions may or may not be there
SELECT f.name FROM eros.metric_family f
WHERE f.subject NOT IN ('worker', 'problem') AND f.subject !~ '^prediction' AND f.name <> 'eros_handler_cost_seconds'
  AND NOT EXISTS (SELECT FROM eros.metrics m WHERE m.family = f.name) ORDER BY 1;
-- predictions in a unit that no metric has
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT (SELECT count(predicted) + count(measured) FROM eros.status_prediction)
  - (SELECT count(*) FROM eros.metrics WHERE subject ~ '^prediction') AS missing;
COMMIT;
-- samples with other labels than their family's, or twice
SELECT m.name, m.labels FROM eros.metrics m JOIN eros.metric_family f ON f.name = m.family
WHERE ARRAY(SELECT l FROM jsonb_object_keys(m.labels - 'le') l ORDER BY 1)
  <> ARRAY(SELECT l FROM unnest(f.labels || '{datname}'::text[]) l ORDER BY 1);
SELECT name, labels FROM eros.metrics GROUP BY 1, 2 HAVING count(*) > 1;
SELECT count(*) FROM eros.metrics WHERE labels ->> 'datname' <> current_database() OR value IS NULL;
-- figures
SELECT name, labels - 'datname' AS labels, value FROM eros.metrics
WHERE subject IN ('phase') AND family ~ '(ratio|after_seconds|limit_users)$' ORDER BY labels, name;
SELECT name, value FROM eros.metrics
WHERE name IN ('eros_server_launcher_up', 'eros_server_in_recovery', 'eros_server_enabled', 'eros_server_cpu_cap_ratio',
  'eros_database_workers_limit', 'eros_database_maintenance_interval_seconds', 'eros_database_touches_lost_total',
  'eros_cache_limit_bytes', 'eros_build_info') ORDER BY name COLLATE "C";
SELECT abs(value - extract(epoch FROM now())) < 86400 AS of_today
FROM eros.metrics WHERE name = 'eros_server_start_time_seconds';
SELECT name, labels ->> 'handler' AS handler, value FROM eros.metrics
WHERE name ~ '^eros_handler_(enabled|ttl_seconds|jobs_pending|cost_seconds)$' ORDER BY name COLLATE "C";
-- the histogram
SELECT labels ->> 'le' AS le, value >= coalesce(lag(value) OVER w, 0) AS cumulative
FROM eros.metrics WHERE name = 'eros_halt_latency_seconds_bucket'
WINDOW w AS (ORDER BY (labels ->> 'le')::double precision) ORDER BY (labels ->> 'le')::double precision;
SELECT count(*) AS buckets, count(upper_ms) AS bounds FROM eros.halt_histogram();
-- the text format
SELECT regexp_replace(line, '(halt_.*) [0-9]+$', '\1 N') AS line FROM regexp_split_to_table(eros.metrics_text(), '\n') line
WHERE line ~ 'eros_(handler_enabled|phase_share_ratio|database_workers_limit|halt_latency_seconds)($| |\{|_bucket.*le="(6|8|\+)|_count)';
SELECT (SELECT count(*) FROM regexp_split_to_table(eros.metrics_text(), '\n') line WHERE line LIKE 'eros%')
  = (SELECT count(*) FROM eros.metrics) AS as_many;
-- who looks counts as a scrape
SELECT scraped_at > eros.now() - interval '1 minute' AS noted FROM eros.monitor_info();
SELECT eros.drop_handler(E'ho"st\\ile\n{}');
DROP FUNCTION regress_one(bigint[]);
