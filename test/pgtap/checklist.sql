-- The growth checklist: each item in the states that a test can bring about.
\ir include/begin.sql
SELECT plan(29);
SELECT eros.freeze_clock() AS t \gset
CREATE FUNCTION t.state(item integer) RETURNS text LANGUAGE sql AS 'SELECT c.state FROM eros.checklist() c WHERE c.item = $1';
CREATE FUNCTION t.one(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, '1'::jsonb FROM unnest(user_ids) AS u $$;

-- a database in which nothing has run
SELECT is(t.state(1), 'to do', 'CPU of the last phase: nothing has run there');
SELECT is(t.state(2), 'to do', 'halts: there was none');
SELECT is(t.state(3), 'ok', 'the memory has room');
SELECT is(t.state(4), 'to do', 'performance: nothing is measured');
SELECT is((SELECT measured FROM eros.checklist() WHERE item = 4), 'nothing yet', 'and it says so');
SELECT is((SELECT string_agg(t.state(g), ' ' ORDER BY g) FROM generate_series(5, 8) g),
  'does not apply does not apply does not apply does not apply', 'what a thousand users ask for is not asked for yet');

-- down between the first sample, which is of nothing, and the next one
INSERT INTO eros.history_ring (span_s, slot, sampled_at, counted_since, server, phases, handlers)
SELECT 60, v.slot, v.at, v.since, jsonb_populate_record(NULL::eros.sample_of_server, '{"active_users": 1, "idle_users": 1}'), '{}', '{}'
FROM (SELECT date_trunc('minute', eros.now()) AS now) n
CROSS JOIN LATERAL (VALUES (1430, n.now - interval '16 hours', n.now - interval '16 hours'), (1431, n.now - interval '1 minute', n.now - interval '100 s')) v (slot, at, since);
SELECT cmp_ok((SELECT covered_s FROM eros.learn_server(NULL, NULL)), '>=', 40::double precision, 'the time in which the server was down is not taken off what was covered');
DELETE FROM eros.history_ring WHERE slot IN (1430, 1431);

-- a history of two days, with two million users
INSERT INTO eros.history_ring (span_s, slot, sampled_at, counted_since, server, phases, handlers)
SELECT 3600, (extract(epoch FROM h.hour) / 3600)::bigint % 720, h.hour, h.hour - interval '1 hour',
  jsonb_populate_record(NULL::eros.sample_of_server, '{"active_users": 1000000, "idle_users": 1000000}'),
  ARRAY[jsonb_populate_record(NULL::eros.sample_of_phase, '{"phase": 3, "cpu_granted_ms": 10000, "cpu_used_ms": 10000}')], '{}'
FROM generate_series(date_trunc('hour', eros.now()) - interval '2 days', date_trunc('hour', eros.now()), '1 hour') h (hour);
SELECT is(t.state(1), 'ok', 'CPU of the last phase: as granted');
SELECT is((SELECT string_agg(t.state(g), ' ' ORDER BY g) FROM generate_series(6, 8) g), 'to do to do to do', 'a cache, monitoring, a failover are missing');
SELECT is(t.state(9), 'ok', 'no table is large');
SELECT is((SELECT string_agg(t.state(g), ' ' ORDER BY g) FROM generate_series(10, 13) g), 'to do to do to do to do',
  'replicas, metrics, servers, regions are missing');
SELECT unalike((SELECT advice FROM eros.checklist() WHERE item = 10), '%eros_touch() work %', 'nobody is told to touch on a standby');
UPDATE eros.history_ring SET phases[1].cpu_used_ms = 20000 WHERE span_s = 3600;
SELECT is(t.state(1), 'attention', 'CPU of the last phase: twice what was granted');

-- metrics
SELECT eros.note_scrape() IS NULL AS t \gset
SELECT is(t.state(7), 'ok', 'somebody collects the metrics');
SELECT is(t.state(11), 'ok', 'and there is more than a day of history');
SELECT eros.advance_clock('10 minutes') AS t \gset
SELECT is(t.state(7), 'attention', 'he has stopped');
SELECT is(t.state(11), 'to do', 'which is not over time');

-- several servers
CREATE PUBLICATION test_elsewhere;
SELECT is(t.state(12), 'ok', 'a publication is another server');
DROP PUBLICATION test_elsewhere;
CREATE FOREIGN DATA WRAPPER test_wrapper;
CREATE SERVER test_server FOREIGN DATA WRAPPER test_wrapper;
SELECT is(t.state(12), 'ok', 'a foreign server, too');
DROP FOREIGN DATA WRAPPER test_wrapper CASCADE;

-- the queue, performance, the cache
SELECT is(t.state(5), 'does not apply', 'one worker is enough');
SELECT eros.add_handler('one', 't.one', 1) AS t \gset
SELECT eros.pause();
SELECT count(eros_touch(g)) AS t FROM generate_series(1, 200) g \gset
SELECT eros.advance_clock('11 minutes') AS t \gset
CALL eventually('SELECT jobs_pending FROM eros.status', '200', 'jobs wait');
SELECT eros.advance_clock('2 hours') AS t \gset
SELECT is(t.state(5), 'to do', 'they have waited for two hours: a second worker is missing');
SELECT eros.disable_handler('one');
SELECT is(t.state(5), 'does not apply', 'nor would it do jobs of a handler that is switched off');
SELECT eros.enable_handler('one');
SELECT is((SELECT count(*) FROM eros.problems() WHERE problem = 'queue_late'), 0::bigint, 'while EROS is paused, nobody is told that they are late');
SELECT eros.resume();
CALL eventually('SELECT jobs_pending FROM eros.status', '0', 'they are done');
SELECT is(t.state(4), 'to do', 'performance: no result was read yet');
SELECT count(eros.get('one', g)) AS t FROM generate_series(1, 200) g \gset
SELECT isnt(t.state(4), 'to do', 'all is measured');
SELECT is(t.state(6), 'ok', 'the cache is in place, and read');
SELECT count(eros.get('one', g)) AS t FROM generate_series(1001, 1200) g \gset
SELECT is(t.state(6), 'attention', 'half of the reads find nothing');
\ir include/end.sql
