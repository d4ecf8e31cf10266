-- Results live for their ttl, and are refreshed before it ends while the user stays away.
\ir include/begin.sql
SELECT plan(19);

SELECT eros.add_handler('day', 't.echo', 1, ttl => '24 hours') AS n \gset
SELECT eros_touch(ARRAY[1, 2]::bigint[]);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT count(*) FROM t.call', '2', 'both are computed');
SELECT is((SELECT min(expires_at - computed_at) FROM eros.cache), interval '24 hours', 'a result lives for 24 hours by default');

SELECT eros.advance_clock('21 hours') AS t \gset
SELECT eros.add_handler('other', 't.echo', 3) AS n \gset
CALL eventually('SELECT count(*) FROM eros.get_many(''other'', ARRAY[1, 2]::bigint[])', '2', 'another handler is computed meanwhile');
SELECT is((SELECT count(*) FROM t.call), 4::bigint, 'after 21 hours nothing is refreshed yet');
SELECT ok(eros.get('day', 1) IS NOT NULL, 'the result is there');

-- One is back: his result is not refreshed, and expires.
SELECT eros_touch(2);
SELECT eros.advance_clock('9 minutes') AS t \gset
SELECT eros_touch(2);
SELECT eros.disable_handler('other');
SELECT eros.get('day', 1) ->> 'batch' AS first \gset
SELECT computed_at AS first_at FROM eros.cache JOIN eros.handler h USING (handler_id)
  WHERE h.name = 'day' AND user_id = eros.user_key(1) \gset
SELECT eros.advance_clock('9 minutes') AS t \gset
SELECT eros_touch(2);

-- He stays active while the time goes on, in steps shorter than the first phase.
DO $$ BEGIN FOR i IN 1..10 LOOP PERFORM eros.advance_clock('9 minutes'), public.eros_touch(2); END LOOP; END $$;
CALL eventually(format('SELECT (eros.get(''day'', 1) ->> ''batch'')::int > %s', :'first'), 'true', 'who stays away has his result refreshed');
SELECT ok(computed_at < timestamptz :'first_at' + interval '24 hours', 'before the old one has expired')
  FROM eros.cache JOIN eros.handler h USING (handler_id) WHERE h.name = 'day' AND user_id = eros.user_key(1);
SELECT is((SELECT count(*) FROM eros.cache JOIN eros.handler h USING (handler_id) WHERE h.name = 'day' AND user_id = eros.user_key(1)),
  1::bigint, 'the old one is gone');
SELECT is((SELECT count(*) FROM t.call WHERE user_id = 2), 2::bigint, 'who is active is not computed');
SELECT ok(eros.get('day', 2) IS NOT NULL, 'his old result is still there');
DO $$ BEGIN FOR i IN 1..10 LOOP PERFORM eros.advance_clock('9 minutes'), public.eros_touch(2); END LOOP; END $$;
SELECT is(eros.get('day', 2), NULL, 'after 24 hours it has expired');
SELECT is((SELECT count(*) FROM eros.get_many('day', ARRAY[2]::bigint[])), 0::bigint, 'also for get_many');
SELECT is(eros.invalidate('day', 2::bigint), false, 'and there is nothing to invalidate');
SELECT ok(eros.get('day', 1) IS NOT NULL, 'the refreshed one is there');

-- A short life: seconds.
SELECT eros.add_handler('short', 't.echo', 8 - 5, ttl => '1 minute', enabled => false) AS n \gset
SELECT eros.run_now('short', 9);
SELECT ok(eros.get('short', 9) IS NOT NULL, 'a result with a short life is there');
SELECT eros.advance_clock('1 minute') AS t \gset
SELECT is(eros.get('short', 9), NULL, 'and is gone at its end, to the moment');

-- A new one lies in the partition where the expired one still is.
SELECT eros.advance_clock(date_trunc('hour', eros.now()) + interval '1 hour' - eros.now()) AS t \gset
SELECT eros.run_now('short', 9);
SELECT eros.advance_clock('10 minutes') AS t \gset
SELECT ok(eros.run_now('short', 9) IS NOT NULL, 'after it has expired, it can be computed again');
SELECT is((SELECT count(*) FROM eros.cache JOIN eros.handler h USING (handler_id) WHERE h.name = 'short' AND expires_at >= date_trunc('hour', eros.now())), 1::bigint, 'in the place of the old one');

-- it takes its place, and is not a new row beside a deleted one
BEGIN;
SELECT sum(pg_stat_get_xact_tuples_updated(partition)) AS updated, sum(pg_stat_get_xact_tuples_inserted(partition)) AS inserted
  FROM eros.cache_partitions() \gset
SELECT eros.run_now('short', 9) IS NOT NULL;
SELECT is((SELECT sum(pg_stat_get_xact_tuples_updated(partition)) - :updated || ' ' || sum(pg_stat_get_xact_tuples_inserted(partition)) - :inserted
  FROM eros.cache_partitions()), '1 0', 'the row is overwritten');
COMMIT;
\ir include/end.sql
