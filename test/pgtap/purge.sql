-- What has expired is purged by dropping partitions; what will be needed is created ahead.
\ir include/begin.sql
SELECT plan(21);

SELECT eros.add_handler('day', 't.echo', 1, ttl => '24 hours', enabled => false) AS n \gset
SELECT eros.add_handler('hour', 't.echo', 1, ttl => '1 hour', enabled => false) AS n \gset
SELECT cmp_ok((SELECT count(*) FROM eros.status_cache), '>=', 10::bigint, 'partitions are there before there is a result');
SELECT is((SELECT array_agg(DISTINCT width ORDER BY width) FROM eros.status_cache), ARRAY[interval '1 h', interval '8 h'],
  'they span a quarter of the lifetime, and more');
SELECT is(eros.create_partitions(), 0, 'nothing is created twice');
SELECT eros.run_now('day', 1), eros.run_now('hour', 1) \g /dev/null
SELECT c.tableoid::regclass::text AS hour_partition FROM eros.cache c JOIN eros.handler h USING (handler_id) WHERE h.name = 'hour' \gset
SELECT c.tableoid::regclass::text AS day_partition FROM eros.cache c JOIN eros.handler h USING (handler_id) WHERE h.name = 'day' \gset
SELECT is((SELECT count(*) FROM eros.status_cache p WHERE eros.now() + interval '1 h' >= p.lower AND eros.now() + interval '1 h' < p.upper
  AND width = '1 h' AND p.partition = to_regclass(:'hour_partition')), 1::bigint, 'a result lies in the partition of its expiry');
SELECT is(eros.purge(), 0, 'nothing has expired');
SELECT eros.get('day', 1) IS NOT NULL AND eros.get('hour', 1) IS NOT NULL \g /dev/null

SELECT eros.advance_clock('2 hours 1 second') AS t \gset
SELECT is(eros.get('hour', 1), NULL, 'the hour has passed');
CALL eventually(format('SELECT to_regclass(%L)', :'hour_partition'), NULL, 'the scheduler has dropped its partition');
SELECT ok(to_regclass(:'day_partition') IS NOT NULL, 'not that of what has not expired');
SELECT ok(eros.get('day', 1) IS NOT NULL, 'which is still there');
SELECT is((SELECT count(*) FROM eros.status_cache WHERE upper <= eros.now()), 0::bigint, 'no expired partition is left');
CALL eventually('SELECT count(*) FROM eros.status_cache WHERE width = ''1 h'' AND lower > eros.now() + interval ''1 h''', '4',
  'new ones have been created ahead');
SELECT is((SELECT results_expired || ' ' || results_unread FROM eros.status_handler WHERE handler = 'hour'), '1 0',
  'the purged result was read');

-- results that nobody reads are counted
SELECT eros.run_now('hour', u::bigint) FROM generate_series(1, 100) AS u \g /dev/null
SELECT eros.get('hour', u::bigint) FROM generate_series(1, 30) AS u \g /dev/null
SELECT eros.get('hour', 1) FROM generate_series(1, 50) \g /dev/null
SELECT eros.advance_clock('2 hours 1 second') AS t \gset
CALL eventually('SELECT results_expired FROM eros.status_handler WHERE handler = ''hour''', '101', 'a hundred more are purged');
SELECT ok(results_unread BETWEEN 65 AND 75, 'about seventy of them had never been read')
  FROM eros.status_handler WHERE handler = 'hour';

-- all has expired
SELECT eros.advance_clock('2 days') AS t \gset
CALL eventually('SELECT count(*) FROM eros.cache', '0', 'after two days the cache is empty');
SELECT is((SELECT cache_bytes FROM eros.status), 0::bigint, 'and its account at zero');
SELECT is((SELECT sum(cache_bytes)::bigint FROM eros.sample_handlers(NULL)), 0::bigint, 'also of each handler');
SELECT eros.run_now('day', u::bigint), eros.run_now('hour', u::bigint) FROM generate_series(1, 20) AS u \g /dev/null
SELECT is((SELECT sum(cache_bytes)::bigint FROM eros.sample_handlers(NULL)), (SELECT cache_bytes FROM eros.status), 'which begins anew with the next results');
SELECT is((SELECT count(*) FROM eros.sample_handlers(NULL) WHERE cache_bytes > 0), 2::bigint, 'of both handlers');

-- the accounts of a handler whose lifetime has changed, and with it its partitions
SELECT eros.add_handler('hour', 't.echo', 1, ttl => '30 days', enabled => false, replace => true) AS n \gset
SELECT eros.run_now('hour', u::bigint) FROM generate_series(1, 10) AS u \g /dev/null
SELECT is((SELECT sum(cache_bytes)::bigint FROM eros.sample_handlers(NULL)), (SELECT cache_bytes FROM eros.status), 'a longer lifetime, other partitions, the same account');
CALL eventually('SELECT eros.now() - last_maintenance < interval ''5 minutes'' FROM eros.status', 'true', 'the status says when that was');
\ir include/end.sql
