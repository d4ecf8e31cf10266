-- Touches, and what the return of a user does.
\ir include/begin.sql
ALTER SYSTEM SET eros.workers = 0; -- jobs stay pending
ALTER SYSTEM SET eros.sweep_interval = '50ms';
\ir include/reload.sql
SELECT plan(25);

CALL eventually('SELECT workers FROM eros.status', '0', 'no worker runs');
SELECT eros.add_handler('echo', 't.echo', 1) AS n \gset

-- A touch is not part of the transaction.
BEGIN READ ONLY;
SELECT eros_touch(1);
COMMIT;
SELECT is((SELECT active_users FROM eros.status), 1::bigint, 'a touch in a read-only transaction counts');
BEGIN;
SELECT eros_touch(2);
ROLLBACK;
SELECT is((SELECT active_users FROM eros.status), 2::bigint, 'ROLLBACK does not undo a touch');
BEGIN;
SELECT eros_touch(3);
SELECT is(pg_current_xact_id_if_assigned(), NULL, 'a touch needs no transaction id');
SELECT is((SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'eros.activity'::regclass), 0::bigint,
  'and no lock on the table');
COMMIT;
SELECT eros_touch(NULL::bigint), eros_touch(NULL::uuid), eros_touch(NULL::bigint[]);
SELECT eros_touch(ARRAY[NULL, 4, NULL]::bigint[]);
SELECT eros_touch('{}'::bigint[]);
SELECT is((SELECT active_users FROM eros.status), 4::bigint, 'NULL is nobody, also within an array');
SELECT eros_touch(4);
SELECT is((SELECT active_users FROM eros.status), 4::bigint, 'a user is active once');

-- All are idle, and wait for a worker.
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT jobs_pending FROM eros.status', '4', 'idle, each has a job');
SELECT is((SELECT count(*) FROM eros.job WHERE status = 'pending'), 4::bigint, 'in the table, too');
SELECT is((SELECT active_users FROM eros.status), 0::bigint, 'nobody is active');
SELECT is((SELECT users FROM eros.status_phase WHERE phase = 1), 4::bigint, 'four users are in phase 1');

-- One returns: no work for him.
SELECT eros_touch(1);
CALL eventually('SELECT string_agg(eros.user_bigint(user_id)::text, '' '' ORDER BY user_id) FROM eros.job', '2 3 4',
  'the job of a returning user is dropped');
CALL eventually('SELECT string_agg(eros.user_bigint(user_id)::text, '' '' ORDER BY user_id) FROM eros.activity', '2 3 4',
  'and so is his row');
SELECT is((SELECT jobs_pending FROM eros.status), 3::bigint, 'he is not counted as pending any more');
SELECT is((SELECT users FROM eros.status_phase WHERE phase = 1), 3::bigint, 'nor as idle');
SELECT is((SELECT active_users FROM eros.status), 1::bigint, 'but as active');

-- Results: computed once, and again only after he was there.
ALTER SYSTEM RESET eros.workers;
SELECT pg_reload_conf() AS reloaded \gset
-- has the scheduler look
SELECT eros.advance_clock('1 s') AS t \gset
CALL eventually('SELECT string_agg(user_id::text, '' '' ORDER BY user_id) FROM t.call', '2 3 4', 'a worker computes for the three');
SELECT is(eros.get('echo', 1), NULL, 'but nothing for the one who is there');
SELECT eros.get('echo', 2) AS first \gset
SELECT eros_touch(2);
SELECT is(eros.get('echo', 2), :'first', 'back again, he reads what was computed while he was away');
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT string_agg(user_id::text, '' '' ORDER BY user_id) FROM t.call', '1 2 2 3 4',
  'idle again, he is computed anew; who stayed away is not');
SELECT isnt(eros.get('echo', 2), :'first', 'his result is a new one');
SELECT is((SELECT count(*) FROM eros.cache), 4::bigint, 'and the only one');

-- Who has no fresh result gets one, who has does not, though both cross the threshold.
SELECT eros_touch(ARRAY[5, 6]::bigint[]);
SELECT eros.run_now('echo', 5);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT count(*) FROM t.call WHERE user_id = 6', '1', 'who has no result is computed');
SELECT is((SELECT count(*) FROM eros.job), 0::bigint, 'nothing is left to do');
SELECT is((SELECT count(*) FROM t.call WHERE user_id = 5), 1::bigint, 'whose result is younger than his last touch is not');
\ir include/end.sql
