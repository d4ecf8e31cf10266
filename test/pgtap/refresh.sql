-- The hand of the refresh: it goes round the pages of what expires soon, and misses nobody.
\ir include/begin.sql
ALTER SYSTEM SET eros.sweep_interval = '50ms';
\ir include/reload.sql
SELECT plan(20);

-- Lets time pass, and waits until the scheduler has done all that was to be done then.
CREATE PROCEDURE t.elapse(step interval) LANGUAGE plpgsql AS $$
DECLARE
  since timestamptz;
BEGIN
  PERFORM eros.advance_clock(step);
  FOR i IN 1..2 LOOP -- a look may be under way; the refresh comes after it
    since := eros.now();
    COMMIT;
    WHILE (SELECT last_sweep <= since FROM eros.status) LOOP
      COMMIT;
      PERFORM pg_sleep(0.01), eros.advance_clock('100 ms');
    END LOOP;
  END LOOP;
END $$;

SELECT eros.add_handler('day', 't.echo', 1, ttl => '24 hours') AS n \gset
SELECT eros.add_handler('month', 't.echo', 1, ttl => '30 days') AS n \gset
SELECT eros_touch(array_agg(u)) FROM generate_series(1, 5000) AS u;
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT count(*) FROM t.call', '10000', 'all are computed by both handlers');
SELECT cmp_ok((SELECT sum(pg_relation_size(partition)) / 8192 FROM eros.cache_partitions()), '>', 64::numeric, 'the results take many pages');
CALL t.elapse('21 hours 10 minutes');
SELECT eros.pause();
SELECT is((SELECT count(*) FROM eros.job), 0::bigint, 'with more than the lead left, 2.4 hours, nothing is refreshed');

-- two hours are left; of the 72 minutes that a round takes, 50 are over
CALL t.elapse('50 minutes');
SELECT cmp_ok((SELECT count(*) FROM eros.job), '>', 2500::bigint, 'the hand has passed more than half of the pages');
SELECT cmp_ok((SELECT count(*) FROM eros.job), '<', 4500::bigint, 'not all of them at once');
CALL t.elapse('30 minutes');
SELECT is((SELECT count(*) FROM eros.job), 5000::bigint, 'after a round it has missed nobody');
SELECT is((SELECT jobs_pending FROM eros.status_queue WHERE handler = 'day'), 5000::bigint, 'and they are counted');
SELECT is((SELECT jobs_pending FROM eros.status_queue WHERE handler = 'month'), 0::bigint, 'for the handler whose results expire');

SELECT eros.resume();
CALL eventually('SELECT count(*) FROM t.call', '15000', 'they are computed');
SELECT is((SELECT count(*) FROM eros.cache JOIN eros.handler h USING (handler_id) WHERE h.name = 'day' AND expires_at > eros.now() + interval '23 hours'),
  5000::bigint, 'before the old results have expired');
SELECT is((SELECT count(*) FROM eros.cache), 10000::bigint, 'which are gone');
CALL t.elapse('1 hour');
SELECT is((SELECT min(count(*)) OVER () || ' ' || max(count(*)) OVER () FROM t.call GROUP BY user_id LIMIT 1), '3 3', 'each once');

-- eros.sweep() looks at all at once
SELECT eros.pause();
CALL t.elapse('20 hours');
DELETE FROM eros.job;
CALL t.elapse('1 hour 30 minutes');
DELETE FROM eros.job WHERE user_id <> eros.user_key(1);
SELECT eros.sweep() >= 0;
SELECT is((SELECT count(*) FROM eros.job), 5000::bigint, 'eros.sweep() adds all that are missing');

-- what has expired while EROS was off, its partition, too
SELECT eros.resume();
CALL eventually('SELECT count(*) FROM eros.job', '0', 'the jobs are done');
ALTER SYSTEM SET eros.enabled = off;
SELECT pg_reload_conf() \g /dev/null
CALL eventually('SELECT count(*) FROM eros.status_worker', '0', 'EROS is off');
SELECT eros.advance_clock('40 hours') AS t \gset
ALTER SYSTEM RESET eros.enabled;
SELECT pg_reload_conf() \g /dev/null
CALL eventually('SELECT count(*) FROM eros.cache JOIN eros.handler h USING (handler_id) WHERE h.name = ''day'' AND expires_at > eros.now()',
  '5000', 'is computed anew when it is on again');
SELECT is((SELECT count(*) FROM eros.cache JOIN eros.handler h USING (handler_id) WHERE h.name = 'month'), 5000::bigint, 'what has not expired is not');

-- seconds: results that expire with their partition before anybody could look
SELECT eros.disable_handler('day'), eros.disable_handler('month');
SELECT eros.add_handler('seconds', 't.echo', 2, ttl => '10 seconds') AS n \gset
SELECT eros_touch(array_agg(u)) FROM generate_series(1, 20) AS u;
CALL t.elapse('35 minutes');
CALL eventually('SELECT count(*) FROM eros.get_many(''seconds'', ARRAY(SELECT generate_series(1::bigint, 20)))', '20', 'results that live for ten seconds');
CALL t.elapse(date_trunc('hour', eros.now()) + interval '59 minutes 56 seconds' - eros.now() + CASE WHEN extract(minute FROM eros.now()) >= 59 THEN interval '1 hour' ELSE interval '0' END);
CALL eventually('SELECT count(*) FROM eros.get_many(''seconds'', ARRAY(SELECT generate_series(1::bigint, 20)))', '20', 'are refreshed');
CALL t.elapse('1 minute');
CALL eventually('SELECT count(*) FROM eros.get_many(''seconds'', ARRAY(SELECT generate_series(1::bigint, 20)))', '20', 'also when their partition has ended unseen');
\ir include/end.sql
