-- From a touch to a result, through the scheduler and a worker that nobody called.
\ir include/begin.sql
SELECT plan(16);

SELECT is(eros.add_handler('echo', 't.echo', 1), 1, 'the first handler has number 1');
SELECT is(eros.get('echo', 1), NULL, 'no result before anything has happened');

SELECT eros_touch(ARRAY[1, 2, 3]::bigint[]);
SELECT is((SELECT active_users FROM eros.status), 3::bigint, 'three users are active');
SELECT is((SELECT count(*) FROM eros.activity), 0::bigint, 'a touch writes no row');

SELECT eros.advance_clock('9 minutes') AS t \gset
SELECT eros_touch(3);
SELECT is(eros.sweep(), 0::bigint, 'nobody is idle after 9 minutes');
SELECT eros.advance_clock('2 minutes') AS t \gset
CALL eventually('SELECT count(*) FROM eros.get_many(''echo'', ARRAY[1, 2, 3]::bigint[])', '2',
  'two users have been idle for 10 minutes, and have their results');
SELECT is(eros.get('echo', 1) ->> 'user', '1', 'the result is the user''s own');
SELECT is(eros.get('echo', 2) ->> 'user', '2', 'and so is the other one''s');
SELECT is(eros.get('echo', 3), NULL, 'who was seen 2 minutes ago has none');
SELECT results_eq('SELECT eros.user_bigint(user_id), phase FROM eros.activity ORDER BY 1',
  'VALUES (1::bigint, 1::smallint), (2::bigint, 1::smallint)', 'the idle users have their rows');
SELECT is((SELECT active_users FROM eros.status), 1::bigint, 'and left the active ones');
SELECT is((SELECT count(*) FROM eros.job), 0::bigint, 'a finished job is gone');
SELECT is((SELECT count(*) FROM t.call), 2::bigint, 'each user was computed once');

SELECT eros.advance_clock('20 minutes') AS t \gset
CALL eventually('SELECT string_agg(phase::text, '' '' ORDER BY user_id) FROM eros.activity', '2 2 1',
  'they go on to the next phase');
CALL eventually('SELECT string_agg(transitions::text, '' '' ORDER BY phase) FROM eros.status_phase', '3 2 0',
  'the crossings are counted');
SELECT is((SELECT status FROM eros.status), 'ok', 'all is well');
\ir include/end.sql
