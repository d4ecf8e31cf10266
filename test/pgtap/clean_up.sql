-- Users who stay away for longer than eros.max_idle are forgotten, with all that is theirs.
\ir include/begin.sql
ALTER SYSTEM SET eros.max_idle = '10d';
\ir include/reload.sql
SELECT plan(15);

CREATE FUNCTION t.fails_for_2(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, to_jsonb(1 / (u - 2)) FROM unnest(user_ids) AS u $$;
SELECT eros.add_handler('long', 't.echo', 1, ttl => '100 days') AS n \gset
SELECT eros.add_handler('fails', 't.fails_for_2', 1, ttl => '100 days', max_attempts => 1) AS n \gset
SELECT eros_touch(array_agg(u)) FROM generate_series(1, 1500) AS u; -- more than one batch of the clean-up
SELECT eros.advance_clock('1 day') AS t \gset
CALL eventually('SELECT count(*) FROM eros.cache', '2999', 'all have their results');
CALL eventually('SELECT count(*) FROM eros.job WHERE status = ''failed''', '1', 'one has a failed job');
SELECT eros_touch(3);
SELECT eros.advance_clock('9 days 1 hour') AS t \gset
CALL eventually('SELECT string_agg(eros.user_bigint(user_id)::text, '' '') FROM eros.activity', '3',
  'those who have been idle for longer are forgotten');
CALL eventually('SELECT count(*) FROM eros.cache', '2', 'their results are deleted');
SELECT ok(eros.get('long', 3) IS NOT NULL, 'his are there who was back in between');
SELECT is(eros.get('long', 4), NULL, 'theirs are not');
CALL eventually('SELECT count(*) FROM eros.job', '0', 'the failed job is gone, and his jobs are done');
SELECT is((SELECT idle_users FROM eros.status), 1::bigint, 'one idle user is counted');
SELECT is((SELECT jobs_failed FROM eros.status), 0::bigint, 'no failed job is counted');
SELECT cmp_ok((SELECT cache_bytes FROM eros.status), '<', 2000::bigint, 'and the bytes are off the account');
SELECT is((SELECT sum(cache_bytes)::bigint FROM eros.sample_handlers(NULL)), (SELECT cache_bytes FROM eros.status), 'also of each handler');

-- he is not refreshed for ever either
SELECT eros.advance_clock('11 days') AS t \gset
CALL eventually('SELECT count(*) FROM eros.activity', '0', 'later he is forgotten, too');
CALL eventually('SELECT count(*) FROM eros.cache', '0', 'with his results');

-- what finds nothing leaves the configuration as it is, or everybody would read it anew
CREATE TABLE t.change (at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION t.note_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t.change DEFAULT VALUES; RETURN NULL; END $$;
CREATE TRIGGER note_change AFTER UPDATE ON eros.handler FOR EACH STATEMENT EXECUTE FUNCTION t.note_change();
SELECT is(eros.clean_up(), 0::bigint, 'a clean-up that finds nobody');
SELECT is((SELECT count(*) FROM t.change), 0::bigint, 'changes no handler');
\ir include/end.sql
