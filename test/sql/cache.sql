-- Reading results: eros.get, eros.get_many, eros.invalidate.
CREATE FUNCTION regress_square(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS $$ SELECT u, jsonb_build_object('square', u * u) FROM unnest(user_ids) AS u $$;
CREATE FUNCTION regress_uuid(user_ids uuid[]) RETURNS TABLE (user_id uuid, value jsonb)
LANGUAGE sql AS $$ SELECT u, to_jsonb(u) FROM unnest(user_ids) AS u $$;
SELECT eros.add_handler('square', 'public.regress_square', 1, enabled => false) > 0 AS added;
SELECT eros.add_handler('uuid', 'public.regress_uuid', 1, enabled => false) > 0 AS added;
SELECT eros.get('square', 7001);
SELECT count(eros.run_now('square', u::bigint)) FROM generate_series(7001, 7003) AS u;
SELECT eros.run_now('square', -7001);
SELECT eros.run_now('uuid', '0190a2b4-0000-7000-8000-000000007001'::uuid);
SELECT eros.get('square', 7001), eros.get('square', -7001), eros.get('square', '7002'::text), eros.get('square', 7004);
SELECT eros.get('uuid', '0190a2b4-0000-7000-8000-000000007001'::uuid), eros.get('uuid', '0190a2b4-0000-7000-8000-000000007001'::text);
-- each handler has its own
SELECT eros.get('uuid', 7001), eros.get('square', '0190a2b4-0000-7000-8000-000000007001'::uuid);
SELECT eros.get(NULL, 7001), eros.get('square', NULL::bigint);
-- several at once: no row for who has none, NULL is skipped
SELECT * FROM eros.get_many('square', ARRAY[7003, 7004, NULL, 7001]::bigint[]);
SELECT * FROM eros.get_many('uuid', ARRAY['0190a2b4-0000-7000-8000-000000007001']::uuid[]);
SELECT * FROM eros.get_many('square', '{}'::bigint[]);
SELECT u, eros.get('square', u) FROM generate_series(7001, 7004) AS u;
SELECT eros.get('cube', 7001);
-- also in a read-only transaction
BEGIN READ ONLY;
SELECT eros.get('square', 7001);
COMMIT;
-- what is read is counted
SELECT handler, hits, misses, hit_percent, results_stored FROM eros.status_handler;
-- an administrator's unique index is not taken for the one that EROS looks into
BEGIN;
DO $$
DECLARE
	p regclass;
BEGIN
	FOR p IN SELECT c.partition FROM eros.cache_partitions() c LOOP
		EXECUTE format('CREATE UNIQUE INDEX ON %s (user_id, handler_id)', p);
	END LOOP;
END $$;
SELECT eros.get('square', 7001);
SELECT eros.run_now('square', 7001);
ROLLBACK;
-- invalidated
SELECT eros.invalidate('square', 7001);
SELECT eros.invalidate('square', 7001);
SELECT eros.invalidate('square', '7002'::text);
SELECT eros.invalidate('uuid', '0190a2b4-0000-7000-8000-000000007001'::uuid);
SELECT eros.get('square', 7001), eros.get('square', 7002), eros.get('square', 7003);
-- a result of this transaction can be read in it
BEGIN;
SELECT eros.run_now('square', 7001);
SELECT eros.get('square', 7001);
SELECT eros.invalidate('square', 7001);
SELECT eros.get('square', 7001);
ROLLBACK;
-- expired
SELECT eros.add_handler('square', 'public.regress_square', 1, ttl => '1 minute', enabled => false, replace => true) > 0 AS replaced;
SELECT eros.run_now('square', 7005);
SELECT eros.advance_clock('59 seconds') IS NULL;
SELECT eros.get('square', 7005) IS NOT NULL AS there;
SELECT eros.advance_clock('1 second') IS NULL;
SELECT eros.get('square', 7005) IS NOT NULL AS there;
SELECT eros.drop_handler('square');
SELECT eros.drop_handler('uuid');
DROP FUNCTION regress_square(bigint[]), regress_uuid(uuid[]);
