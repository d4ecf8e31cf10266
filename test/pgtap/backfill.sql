-- A handler that is added, or enabled, when users are idle already: they get their results.
\ir include/begin.sql
ALTER SYSTEM SET eros.sweep_interval = '50ms';
\ir include/reload.sql
SELECT plan(9);

SELECT eros_touch(array_agg(u)) FROM generate_series(1, 2500) AS u; -- more than one step of the backfill
SELECT eros_touch('0190a2b4-0000-7000-8000-000000000001'::uuid);
SELECT eros.advance_clock('35 minutes') AS t \gset
SELECT eros_touch(array_agg(u)) FROM generate_series(3001, 3010) AS u;
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT string_agg(users::text, '' '' ORDER BY phase) FROM eros.status_phase', '10 2501 0',
  'users are idle in phases 1 and 2');
SELECT eros.add_handler('second', 't.echo', 2) AS n \gset
CALL eventually('SELECT count(*) FROM t.call', '2500', 'a new handler of phase 2 gets those of phase 2');
SELECT is((SELECT count(*) FROM t.call WHERE user_id > 3000), 0::bigint, 'not those who have not come so far');
SELECT is((SELECT count(*) FROM eros.job), 0::bigint, 'nor those who are uuid');
SELECT eros.add_handler('first', 't.echo', 1) AS n \gset
CALL eventually('SELECT count(*) FROM eros.cache JOIN eros.handler h USING (handler_id) WHERE h.name = ''first''', '2510',
  'a new handler of phase 1 gets all of them');
SELECT is((SELECT count(*) FROM t.call), 5010::bigint, 'each once');

-- Disabled while somebody becomes idle.
SELECT eros.disable_handler('first');
SELECT eros_touch(5000);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT count(*) FROM eros.activity WHERE user_id = eros.user_key(5000)', '1', 'a user becomes idle');
SELECT is((SELECT jobs_pending FROM eros.status_handler WHERE handler = 'first'), 0::bigint, 'a disabled handler gets no job');
SELECT eros.enable_handler('first');
CALL eventually('SELECT eros.get(''first'', 5000) ->> ''user''', '5000', 'enabled again, it makes up for it');
\ir include/end.sql
