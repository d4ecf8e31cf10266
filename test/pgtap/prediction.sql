-- What it would cost, what it did cost, whether it was worth it, and the checklist.
\ir include/begin.sql
SELECT plan(62);
SELECT eros.freeze_clock() AS t \gset
CREATE FUNCTION t.half(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, to_jsonb(repeat('x', 100)) FROM unnest(user_ids) AS u $$;

-- the formulas
UPDATE eros.phase SET cpu_percent = CASE phase WHEN 1 THEN 5 WHEN 2 THEN 15 ELSE 95 END;
SELECT results_eq('SELECT phase::integer, round(cores::numeric, 4) FROM eros.cpu_formula(1)',
  'VALUES (1, 0.05), (2, 0.15), (3, 0.8)', 'a worker gives each phase its share of a core, and has one');
SELECT is((SELECT round(sum(cores)::numeric, 4) FROM eros.cpu_formula(1000)), round((0.95 * eros.cpu_cores())::numeric, 4),
  'all workers together stay below the hard cap');
SELECT is(eros.memory_formula(1000, 2000), 1000 * 1024 + 2000 * 51200::double precision, 'memory as it was conceived');
SELECT is(eros.tracker_formula(0), 256 * (128 + 32 * 32)::double precision, 'the least memory of the tracker');
SELECT is(eros.drain_formula('{10,0,0}', '{0.05,0.15,0.95}', 1, 2), 200::double precision, 'ten seconds of CPU at 5 percent');
SELECT is(eros.drain_formula('{10,0,0}', '{0.05,0.15,0.95}', 4, 2), 50::double precision, 'four workers are four times as fast');
SELECT is(eros.drain_formula('{10,0,0}', '{0.5,0.15,0.95}', 4, 1), 10::double precision, 'up to the hard cap');
-- phase 1 has its half for 10 s, phase 2 the other half, and then what it may take
SELECT is(eros.drain_formula('{5,14}', '{0.5,0.9}', 1, 2), 20::double precision, 'lower phases first, in one core');
SELECT is(eros.drain_formula('{1}', '{0}', 1, 2), 'infinity'::double precision, 'no share: never');
SELECT is(eros.drain_formula('{1}', '{0.5}', 0, 2), 'infinity'::double precision, 'no worker: never');

-- nothing has run here yet: guesses
CREATE FUNCTION t.predicted(q text, users bigint DEFAULT 100000, p integer DEFAULT NULL, h text DEFAULT NULL) RETURNS numeric LANGUAGE sql AS
  $$ SELECT round(value::numeric, 4) FROM eros.predict(users, idles_per_day => 2, active_users => 1000, cost_ms => 10, result_bytes => 1000)
     WHERE quantity = q AND phase IS NOT DISTINCT FROM p AND handler IS NOT DISTINCT FROM h $$;
SELECT is(t.predicted('idle users'), 99000.0000, 'who is not active is idle');
SELECT is(t.predicted('transitions', p => 1), round(100000 * 2 / 86400.0, 4), 'crossings a second');
SELECT is(t.predicted('cpu'), round(3 * 100000 * 2 / 86400.0 * 0.01, 4), 'an imaginary handler in each phase');
SELECT is(t.predicted('eros.cache'), 3 * 99000 * 1120.0000, 'and its results');
-- 990 CPU seconds in each phase: phase 1 has 5 percent of a core
SELECT is(t.predicted('time until all idle are done'), round(990 / 0.05, 4), 'and when all are done');
SELECT is(t.predicted('workers to be done in time'), 1.0000, 'one worker is enough for eight hours');
SELECT is((SELECT value FROM eros.predict(100000000, active_users => 0) WHERE quantity = 'workers to be done in time'), NULL,
  'no number of workers is, for a hundred million users');
SELECT is((SELECT count(*) FROM eros.predict(1000) WHERE basis ~ '(^|, )measured'), 0::bigint, 'nothing is called measured');
SELECT is((SELECT count(*) FROM eros.predict(0) WHERE value < 0 OR value = 'NaN'), 0::bigint, 'no users, no costs');
SELECT is(t.predicted('eros.job'), round(eros.job_formula(3 * 99000, eros.dead_rows(3 * 99000, 6 * 100000 * 2 / 86400.0))::numeric, 4), 'a job for each of them, and dead rows');
SELECT ok(t.predicted('eros.snapshot') > 14 * 100000 AND t.predicted('eros.history_ring') = eros.history_formula(3, 0), 'the snapshot and the history');
SELECT is((SELECT value FROM eros.predict(1000) WHERE quantity = 'shared memory, fixed'),
  (SELECT size FROM pg_shmem_allocations WHERE name = 'eros')::double precision, 'the fixed shared memory is what was allocated');
SELECT is(t.predicted('rows written'), round(100000 * 2 / 86400.0 * (3 + 1 + 3 * 4), 4), 'rows: crossings, returns, jobs and results');
SELECT is((SELECT count(*) FROM eros.predict(1000) WHERE basis LIKE '%more than%'), 0::bigint, 'a thousand users fit');
SELECT set_eq($$SELECT quantity, phase::integer FROM eros.predict(1000000000, cost_ms => 100) WHERE basis LIKE '%; more than%'$$,
  $$VALUES ('shared memory', NULL::integer), ('eros.cache', NULL)$$, 'a thousand million do not: the limits that they exceed are told');
SELECT is((SELECT basis FROM eros.predict(1000, done_by => eros.now() + '3 hours') WHERE quantity = 'workers to be done in time'),
  (SELECT basis FROM eros.predict(1000, within => '3 hours') WHERE quantity = 'workers to be done in time'), 'by an hour is within the time until then');
SELECT throws_ok('SELECT eros.predict(1, done_by => eros.now())', '22023', 'within is out of range', 'refused: an hour that is over');
SELECT throws_ok(format('SELECT eros.predict(%s)', q), '22023', what || ' is out of range', 'refused: ' || q)
FROM (VALUES ('-1', 'users'), ('NULL', 'users'), ('1, active_users => -1', 'active_users'), ('1, idles_per_day => ''NaN''', 'idles_per_day'),
  ('1, cost_ms => -0.1', 'cost_ms'), ('1, result_bytes => ''infinity''', 'result_bytes'), ('1, workers => 0', 'workers'),
  ('1, within => ''0''', 'within')) v (q, what);
SELECT is((SELECT state FROM eros.checklist() WHERE topic = 'halt response'), 'to do', 'a halt that was not measured is not assumed');
SELECT results_eq('SELECT item, level FROM eros.checklist()',
  $$VALUES (1, '1K'), (2, '1K'), (3, '1K'), (4, '1K'), (5, '10K'), (6, '10K'), (7, '10K'), (8, '10K'), (9, '100K'), (10, '100K'),
    (11, '100K'), (12, '1M'), (13, '1M')$$, 'the checklist');
SELECT is((SELECT string_agg(DISTINCT state, ' ' ORDER BY state) FROM eros.checklist() WHERE level = '1M'), 'does not apply',
  'a million users are not an issue yet');
SELECT ok((SELECT bool_and(state IN ('ok', 'attention', 'to do', 'does not apply') AND measured <> '' AND threshold <> ''
  AND (state = 'ok') = (advice = '')) FROM eros.checklist()), 'each row says what was measured, what should be, and what to do');

-- a history, and no handler
SELECT eros_touch(1) AS t \gset
SELECT eros.advance_clock('1 minute') AS t \gset
CALL eventually('SELECT count(*) > 0 FROM eros.history_part', 'true', 'a first sample');
SELECT eros_touch(2) AS t \gset
SELECT eros.advance_clock('90 seconds') AS t \gset
CALL eventually('SELECT eros.prediction_cut() IS NOT NULL AND count(*) > 1 FROM eros.history_part', 'true', 'and one after it');
SELECT results_eq($$SELECT DISTINCT quantity FROM eros.status_prediction ORDER BY 1$$,
  $$VALUES ('eros.activity'), ('shared memory'), ('transitions')$$, 'what was not learned is held against nothing');

-- something runs
SELECT eros.add_handler('half', 't.half', 1, ttl => '1 hour') AS t \gset
UPDATE eros.phase SET cpu_percent = 95;
SELECT count(eros_touch(g)) AS t FROM generate_series(1, 1000) g \gset
SELECT eros.advance_clock('11 minutes') AS t \gset
CALL eventually('SELECT users_done FROM eros.status_handler', '1000', 'a thousand users are done');
SELECT count(eros.get('half', g)) AS t FROM generate_series(1, 200) g \gset
SELECT is((SELECT count(*) FROM eros.predict(2000) WHERE handler = 'half' AND basis LIKE '%measured%'), 4::bigint, 'what ran is what predictions go by');
SELECT is((SELECT round(value) FROM eros.predict(2000, active_users => 0) WHERE quantity = 'eros.cache' AND handler IS NULL),
  (SELECT 2.0 * cache_bytes FROM eros.status)::double precision, 'twice the users, twice the cache');
SELECT is((SELECT state FROM eros.checklist() WHERE topic = 'cache in place, hit rate and size'), 'ok', 'the cache is in place');
SELECT ok((SELECT measured > 0 AND p50_ms <= p99_ms AND p99_ms <= max_ms FROM eros.status_latency WHERE operation = 'claim'),
  'claims are measured');

-- half of them come back before phase 2; the results expire, 200 have been read
SELECT is((SELECT suggestion FROM eros.status_worth), 'too early to tell: fewer than 100 results have expired', 'too early');
SELECT count(eros_touch(g)) AS t FROM generate_series(1, 500) g \gset
SELECT eros.advance_clock('20 minutes') AS t \gset
CALL eventually('SELECT transitions FROM eros.status_phase WHERE phase = 2', '500', 'half of them reach phase 2');
CALL eventually($$SELECT max(sampled_at) > eros.now() - interval '2 minutes' FROM eros.history_part$$, 'true', 'the history has it');
SELECT eros.disable_handler('half');
DELETE FROM eros.activity;
SELECT eros.advance_clock('4 hours') AS t \gset
-- the clock stands: a maintenance that had begun before it was moved may be the last one
CALL eventually('SELECT eros.purge() >= 0 AND results_read + results_unread >= 1000 FROM eros.status_worth', 'true', 'their results have expired');
SELECT ok((SELECT results_read BETWEEN 180 AND 220 FROM eros.status_worth), 'some of them were read');
SELECT ok((SELECT abs(cpu_unread_ms / (cpu_read_ms + cpu_unread_ms) * 100 - unread_percent) < 0.1 AND unread_percent > 75 FROM eros.status_worth),
  'the CPU is divided accordingly');
SELECT matches((SELECT suggestion FROM eros.status_worth), '^move it to phase 2: [3-7][0-9] % of the users come back before that, which saves [0-9.]+ s of CPU$',
  'a later phase would save some');

-- nobody has become idle since the cut: that is no reason to say nothing
SELECT eros.enable_handler('half');
SELECT results_eq($$SELECT quantity, handler, predicted >= 0 FROM eros.status_prediction
    WHERE quantity IN ('jobs', 'cpu', 'eros.cache', 'wal') ORDER BY 1, 2 NULLS LAST$$,
  $$VALUES ('cpu', 'half', true), ('eros.cache', NULL, true), ('jobs', 'half', true), ('wal', 'half', true), ('wal', NULL, true)$$, 'each has a figure');
SELECT eros.add_handler('late', 't.half', 2) AS t \gset
SELECT results_eq($$SELECT quantity, handler, predicted >= 0 FROM eros.status_prediction
    WHERE quantity IN ('jobs', 'cpu', 'eros.cache', 'wal') ORDER BY 1, 2 NULLS LAST$$,
  $$VALUES ('cpu', 'half', true), ('jobs', 'half', true), ('wal', 'half', true)$$, 'sums with a handler that was not there before are not told');

-- days: an hour with a busy minute, and minutes with jobs that wait
DELETE FROM eros.history_ring;
CREATE FUNCTION t.minute(slot integer, at timestamptz, active integer, returns integer, waiting integer, cpu_ms integer DEFAULT 0) RETURNS void LANGUAGE sql AS $$
  INSERT INTO eros.history_ring (span_s, slot, sampled_at, counted_since, server, phases, handlers)
  SELECT 60, slot, at, at - interval '1 minute',
    jsonb_populate_record((SELECT s FROM eros.sample_server(NULL) s), jsonb_build_object('active_users', active, 'idle_users', 1000 - active, 'returns', returns)),
    ARRAY(SELECT jsonb_populate_record(p, '{"transitions": 0, "users": 0}') FROM eros.sample_phases(NULL) p),
    ARRAY(SELECT jsonb_populate_record(h, jsonb_build_object('jobs_pending', waiting, 'jobs_failed', 0, 'users_done', 1, 'cpu_used_ms', cpu_ms)) FROM eros.sample_handlers(NULL) h) $$;
SELECT date_trunc('hour', eros.now(), 'UTC') AS hour \gset
SELECT count(t.minute(m, :'hour'::timestamptz - interval '50 hours' + make_interval(mins => m), CASE m WHEN 30 THEN 500 ELSE 10 END, CASE m WHEN 30 THEN 600 ELSE 0 END, 40)) AS t
FROM generate_series(1, 60) m \gset
SELECT count(t.minute(100 + m, :'hour'::timestamptz - interval '22 hours' + make_interval(mins => 10 * m), 10, 0, 2 * m)) AS t FROM generate_series(-2, 8) m \gset
SELECT eros.sum_up_history() AS t \gset
SELECT is((SELECT eros.prediction_cut() - (eros.now() - interval '22 hours') BETWEEN '-5 minutes' AND '5 minutes'), true, 'with more than a day of history, the cut is a minute of it');
SELECT results_eq('SELECT most_active, most_idle, most_users, round(writes_per_s::numeric, 3) FROM eros.learn_server(NULL, eros.prediction_cut())',
  'VALUES (500::bigint, 990::bigint, 1000::bigint, 10.000)', 'the most of an hour is that of its minutes');
SELECT ok((SELECT average_users = 1000 FROM eros.learn_server(NULL, eros.prediction_cut())), 'the average is that of the hour');
SELECT results_eq('SELECT DISTINCT left_over FROM eros.learn_handlers(NULL, eros.prediction_cut())',
  $$SELECT (handlers[1]).jobs_pending FROM eros.history_ring WHERE span_s = 60 AND sampled_at = eros.prediction_cut()$$, 'what waits at the cut is what waited in that minute');
SELECT is((SELECT sum(users_done) FROM eros.learn_handlers(NULL, eros.prediction_cut())),
  (SELECT 2.0 * (60 + count(*)) FROM eros.history_ring WHERE span_s = 60 AND slot >= 90 AND sampled_at <= eros.prediction_cut()), 'no minute counts twice');
-- calls that become cheaper: a sample counts half as much as one that is later by a quarter of the time
DELETE FROM eros.history_ring;
SELECT count(t.minute(m, :'hour'::timestamptz + make_interval(mins => m - 10), 10, 0, 0, 16 >> m)) AS t FROM generate_series(0, 4) m \gset
SELECT results_eq($$SELECT DISTINCT round(cost_ms::numeric, 4), cpu_used_ms FROM eros.learn_handlers(NULL, (SELECT max(sampled_at) FROM eros.history_ring WHERE slot = 4))$$,
  'VALUES (round(5 * 16 / 31.0, 4), 31::double precision)', 'what a job costs is learned from the latest above all');
\ir include/end.sql
