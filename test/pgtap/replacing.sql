-- A handler is replaced: what becomes of its jobs and its results.
\ir include/begin.sql
ALTER SYSTEM SET eros.retry_delay = '1min';
\ir include/reload.sql
SELECT plan(9);

SELECT eros.add_handler('h', 't.echo', 3) AS n \gset
SELECT eros_touch(ARRAY[1, 2]::bigint[]);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT users FROM eros.status_phase WHERE phase = 1', '2', 'two users are in phase 1');
SELECT is((SELECT count(*) FROM eros.job), 0::bigint, 'a handler of phase 3 has nothing to do');
SELECT eros.add_handler('h', 't.echo', 1, replace => true) AS n \gset
CALL eventually('SELECT count(*) FROM eros.get_many(''h'', ARRAY[1, 2]::bigint[])', '2',
  'moved to phase 1, it computes for those who are there already');

-- another lifetime
SELECT eros.add_handler('h', 't.echo', 1, ttl => '2 hours', replace => true) AS n \gset
SELECT eros.get('h', 1) IS NOT NULL AS still_there \gset
SELECT eros.run_now('h', 1) AS newer \gset
SELECT is(eros.get('h', 1), :'newer', 'with another lifetime, the new result is read');
SELECT eros.add_handler('h', 't.echo', 1, ttl => '24 hours', replace => true) AS n \gset
SELECT isnt(eros.get('h', 1) ->> 'batch', '1', 'with the old lifetime again, no older result comes back');
SELECT eros.run_now('h', 1) AS newest \gset
SELECT is(eros.get('h', 1), :'newest', 'the newest is read');
SELECT is((SELECT count(*) FROM eros.cache WHERE user_id = eros.user_key(1)), 1::bigint, 'and is the only one');

-- another kind of users
CREATE FUNCTION t.uuids(user_ids uuid[]) RETURNS TABLE (user_id uuid, value jsonb) LANGUAGE sql AS
  $$ SELECT u, to_jsonb(u) FROM unnest(user_ids) AS u $$;
CREATE FUNCTION t.fails(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'no'; END $$;
SELECT eros.add_handler('h', 't.fails', 1, replace => true) AS n \gset
SELECT eros_touch(3);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT attempts FROM eros.job WHERE user_id = eros.user_key(3)', '1', 'a job of a bigint user waits for its next try');
SELECT eros.add_handler('h', 't.uuids', 1, replace => true) AS n \gset
SELECT eros_touch('0190a2b4-0000-7000-8000-000000000001'::uuid);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT string_agg(eros.get(''h'', ''0190a2b4-0000-7000-8000-000000000001''::uuid) #>> ''{}'' || '' '' ||
  (SELECT count(*) FROM eros.cache WHERE user_id = eros.user_key(3)), '''')', '0190a2b4-0000-7000-8000-000000000001 0',
  'after a change to uuid users it is not called for a bigint user');
\ir include/end.sql
