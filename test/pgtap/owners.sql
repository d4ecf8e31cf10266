-- A worker serves one owner's handlers only; owners take turns when there are more of them than workers.
\ir include/begin.sql
ALTER SYSTEM SET eros.workers = 1;
\ir include/reload.sql
SELECT plan(11);
UPDATE eros.phase SET batch_size = 5;

CREATE ROLE test_one;
CREATE ROLE test_two;
CREATE ROLE test_three;
GRANT USAGE, CREATE ON SCHEMA t TO test_one, test_two, test_three;
SELECT eros.grant_developer(r::regrole) FROM unnest('{test_one,test_two,test_three}'::text[]) r;
CREATE TABLE t.served (owner text, handler text, user_id bigint, pid integer DEFAULT pg_backend_pid(), n serial);
GRANT INSERT ON t.served TO PUBLIC;
GRANT USAGE ON SEQUENCE t.served_n_seq TO PUBLIC;
CREATE PROCEDURE t.own(role name, handler text, seconds double precision) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('SET LOCAL ROLE %I', role);
  EXECUTE format($f$CREATE FUNCTION t.%I(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $b$
    BEGIN
      PERFORM pg_sleep(%s);
      INSERT INTO t.served (owner, handler, user_id) SELECT current_user, %L, unnest(user_ids);
      RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) u;
    END $b$ $f$, handler, seconds, handler);
  PERFORM eros.add_handler(handler, 't.' || handler, 1);
END $$;

-- One owner, two handlers: one process.
BEGIN; CALL t.own('test_one', 'one_a', 0); CALL t.own('test_one', 'one_b', 0); COMMIT;
SELECT eros_touch(array_agg(u)) FROM generate_series(1, 20) u;
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT count(*) FROM t.served', '40', 'the handlers of one owner run');
SELECT is((SELECT count(DISTINCT pid) FROM t.served), 1::bigint, 'in one process');

-- Another owner: another process, although there is one worker at a time.
BEGIN; CALL t.own('test_two', 'two', 0); COMMIT;
CALL eventually('SELECT count(*) FROM t.served WHERE owner = ''test_two''', '20', 'the handler of another owner runs');
SELECT is_empty('SELECT pid FROM t.served GROUP BY pid HAVING count(DISTINCT owner) > 1', 'in another process');
CALL eventually('SELECT count(*) FROM eros.status_worker', '0', 'workers end when there is nothing to do');

-- An owner who never runs out of work does not keep the others from theirs.
TRUNCATE t.served;
BEGIN; CALL t.own('test_three', 'three', 0.1); COMMIT;
SELECT eros_touch(array_agg(u)) FROM generate_series(1001, 9000) u;
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT count(*) > 0 FROM t.served WHERE owner = ''test_three''', 'true', 'one owner has work for long');
CALL eventually('SELECT count(*) > 0 FROM t.served WHERE owner = ''test_one''', 'true', 'the second gets his turn');
CALL eventually('SELECT count(*) > 0 FROM t.served WHERE owner = ''test_two''', 'true', 'so does the third');
CALL eventually($$SELECT count(DISTINCT pid) >= 2 FROM t.served WHERE owner = 'test_three'$$, 'true', 'and the first again');
SELECT is_empty('SELECT pid FROM t.served GROUP BY pid HAVING count(DISTINCT owner) > 1', 'each in processes of his own');

-- A turn is more than a batch: no process for each.
SELECT cmp_ok((SELECT count(DISTINCT pid) FROM t.served), '<', (SELECT count(DISTINCT (pid, n / 5)) FROM t.served) / 2,
  'a process runs many batches');
SELECT eros.pause();
\ir include/end.sql
