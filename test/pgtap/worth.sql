-- Was it worth it: each suggestion of eros.status_worth, and results that no job has computed.
\ir include/begin.sql
SELECT plan(5);
SELECT eros.freeze_clock() AS t \gset
CREATE FUNCTION t.one(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, '1'::jsonb FROM unnest(user_ids) AS u $$;

-- results of eros.run_now() alone: no job was ever added
SELECT eros.add_handler('ran', 't.one', 1, ttl => '1 hour') AS t \gset
SELECT count(eros.run_now('ran', g)) AS t FROM generate_series(1, 120) g \gset
SELECT eros.advance_clock('4 hours') AS t \gset
CALL eventually($$SELECT eros.purge() >= 0 AND results_unread >= 100 FROM eros.status_worth WHERE handler = 'ran'$$, 'true', 'its results have expired unread');
SELECT is((SELECT suggestion FROM eros.status_worth WHERE handler = 'ran'), 'compute less, or only for those who come back',
  'a handler that only eros.run_now() has called');

-- what thirty days of history say of six handlers
SELECT eros.disable_handler('ran');
SELECT eros.add_handler('read', 't.one', 1), eros.add_handler('read anew', 't.one', 1), eros.add_handler('refreshed', 't.one', 1), eros.add_handler('early', 't.one', 1),
  eros.add_handler('late', 't.one', 2), eros.add_handler('last', 't.one', 3) \g /dev/null
INSERT INTO eros.history_ring (span_s, slot, sampled_at, counted_since, server, phases, handlers)
SELECT 3600, (extract(epoch FROM h.hour) / 3600)::bigint % 720, h.hour, h.hour - interval '1 hour',
  jsonb_populate_record(NULL::eros.sample_of_server, '{}'),
  ARRAY(SELECT p FROM jsonb_populate_recordset(NULL::eros.sample_of_phase, jsonb_build_array(
    jsonb_build_object('phase', 1, 'transitions', 10000), jsonb_build_object('phase', 2, 'transitions', 6000),
    jsonb_build_object('phase', 3, 'transitions', 5900))) p),
  ARRAY(SELECT jsonb_populate_record(NULL::eros.sample_of_handler, jsonb_build_object('handler_id', r.handler_id, 'phase', r.phase,
      'results_stored', 1000, 'results_expired', 1000, 'results_unread', CASE WHEN r.name LIKE 'read%' THEN 100 ELSE 900 END,
      'cpu_used_ms', 20000, 'jobs_added', 1000, 'jobs_refreshing', CASE WHEN r.name IN ('refreshed', 'read anew') THEN 500 ELSE 100 END))
    FROM eros.handler r WHERE r.name <> 'ran')
FROM (SELECT date_trunc('hour', eros.now()) - interval '1 day' AS hour) h;
SELECT results_eq($$SELECT handler, suggestion FROM eros.status_worth WHERE handler <> 'ran' ORDER BY handler$$,
  $$VALUES ('early', 'move it to phase 2: 40 % of the users come back before that, which saves 8.0 s of CPU'),
    ('last', 'it is in the last phase: compute less, or only for those who come back'),
    ('late', 'few users come back before phase 3: compute less, or only for those who come back'),
    ('read', 'keep it: most results are read'),
    ('read anew', 'double its ttl: 50 % of its jobs refresh results before they expire, half of that is saved, 5.0 s of CPU'),
    ('refreshed', 'double its ttl: 50 % of its jobs refresh results before they expire, half of that is saved, 5.0 s of CPU')$$,
  'each suggestion with its figures');
SELECT results_eq($$SELECT handler, round(cpu_read_ms), round(cpu_unread_ms), unread_percent FROM eros.status_worth WHERE handler IN ('read', 'late') ORDER BY handler$$,
  $$VALUES ('late', 2000::double precision, 18000::double precision, 90::double precision), ('read', 18000, 2000, 10)$$,
  'the CPU of what was read, and of what was not');

SELECT lives_ok('SELECT eros.report()', 'the report can be made of it');
\ir include/end.sql
