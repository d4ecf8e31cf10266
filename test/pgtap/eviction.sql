-- The cache has a limit: what would expire first is evicted.
\ir include/begin.sql
ALTER SYSTEM SET eros.cache_limit = '200kB';
\ir include/reload.sql
SELECT plan(24);

-- results of about 10 kB that compress badly
CREATE FUNCTION t.large(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT u, (SELECT to_jsonb(string_agg(md5(u || ' ' || i), '')) FROM generate_series(1, 320) AS i)
  FROM unnest(user_ids) AS u
$$;
SELECT eros.add_handler('large', 't.large', 1) AS n \gset

SELECT eros.run_now('large', u::bigint) IS NOT NULL FROM generate_series(1, 10) AS u \g /dev/null
SELECT is(eros.evict(), 0::bigint, 'below the limit nothing is evicted');
SELECT is((SELECT count(*) FROM eros.cache), 10::bigint, 'ten results');
SELECT cmp_ok((SELECT cache_bytes FROM eros.status), '>', 50000::bigint, 'their bytes are accounted');
SELECT cmp_ok((SELECT cache_bytes FROM eros.status), '<', 150000::bigint, 'no more than they take');
SELECT is((SELECT sum(live_bytes) FROM eros.status_cache)::bigint, (SELECT cache_bytes FROM eros.status), 'also per partition');
SELECT is((SELECT sum(cache_bytes)::bigint FROM eros.sample_handlers(NULL)), (SELECT cache_bytes FROM eros.status), 'and per handler');

SELECT eros.run_now('large', u::bigint) IS NOT NULL FROM generate_series(11, 40) AS u \g /dev/null
SELECT eros.advance_clock('1 s') AS t \gset
-- has the scheduler look
CALL eventually('SELECT cache_bytes <= cache_limit_bytes FROM eros.status', 'true', 'above it the scheduler evicts');
SELECT cmp_ok((SELECT count(*) FROM eros.cache), '>', 5::bigint, 'not more than needed');
SELECT cmp_ok((SELECT count(*) FROM eros.cache), '<', 40::bigint, 'but some');
SELECT is(eros.get('large', 1), NULL, 'the oldest is gone');
SELECT ok(eros.get('large', 40) IS NOT NULL, 'the newest is there');
SELECT is((SELECT count(*) FROM eros.cache), (SELECT 40 - min(eros.user_bigint(user_id)) + 1 FROM eros.cache),
  'those that are left are the newest');
SELECT is((SELECT evicted FROM eros.status), 40 - (SELECT count(*) FROM eros.cache), 'the evicted are counted');
SELECT is((SELECT sum(cache_bytes)::bigint FROM eros.sample_handlers(NULL)), (SELECT cache_bytes FROM eros.status), 'they are off the account of the handler, too');

-- what is invalidated or replaced leaves the account
SELECT cache_bytes AS bytes FROM eros.status \gset
SELECT is(eros.invalidate('large', 40::bigint), true, 'a result is invalidated');
SELECT cmp_ok((SELECT cache_bytes FROM eros.status), '<', :bytes - 5000::bigint, 'and leaves the account');
SELECT is((SELECT sum(cache_bytes)::bigint FROM eros.sample_handlers(NULL)), (SELECT cache_bytes FROM eros.status), 'and that of the handler');
SELECT cache_bytes AS bytes FROM eros.status \gset
SELECT eros.run_now('large', 39) IS NOT NULL \g /dev/null
SELECT is((SELECT cache_bytes FROM eros.status), :bytes::bigint, 'replaced, it takes what it took before');

-- also when it compresses well, again and again
CREATE FUNCTION t.compressible(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS $$ SELECT u, to_jsonb(repeat('match ', 1000)) FROM unnest(user_ids) AS u $$;
SELECT eros.add_handler('compressible', 't.compressible', 1) AS n \gset
SELECT eros.run_now('compressible', 1) IS NOT NULL \g /dev/null
SELECT cache_bytes AS bytes FROM eros.status \gset
SELECT eros.run_now('compressible', 1) IS NOT NULL FROM generate_series(1, 5) \g /dev/null
SELECT is((SELECT cache_bytes FROM eros.status), :bytes::bigint, 'a compressible result, too');
SELECT is((SELECT sum(cache_bytes)::bigint FROM eros.sample_handlers(NULL)), (SELECT cache_bytes FROM eros.status), 'of either handler');
-- emptied by others: the account follows when there would be something to evict
TRUNCATE eros.cache;
SELECT cmp_ok((SELECT cache_bytes FROM eros.status), '>', 0::bigint, 'TRUNCATE does not tell the account');
ALTER SYSTEM SET eros.cache_limit = '1kB';
SELECT pg_reload_conf() \g /dev/null
CALL eventually('SELECT cache_bytes FROM eros.status', '0', 'the next eviction does');
SELECT is((SELECT sum(cache_bytes)::bigint FROM eros.sample_handlers(NULL)), 0::bigint, 'for each handler');
SELECT eros.drop_handler('compressible');
SELECT eros.drop_handler('large');
SELECT is((SELECT cache_bytes FROM eros.status), 0::bigint, 'nothing is left of dropped handlers');
\ir include/end.sql
