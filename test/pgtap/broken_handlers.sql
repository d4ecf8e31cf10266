-- A handler that cannot be called at all: its jobs wait, the status says why, the others go on.
\ir include/begin.sql
SELECT plan(22);

CREATE ROLE test_owner;
CREATE ROLE test_thief;
GRANT ALL ON SCHEMA t TO test_owner, test_thief;
GRANT ALL ON t.call, t.batch TO test_owner;
SELECT eros.grant_developer('test_owner');
CREATE FUNCTION t.answer(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, to_jsonb(current_user::text) FROM unnest(user_ids) AS u $$;
ALTER FUNCTION t.answer(bigint[]) OWNER TO test_owner;
SET ROLE test_owner;
SELECT eros.add_handler('answer', 't.answer', 1) AS n \gset
RESET ROLE;
SELECT eros.add_handler('echo', 't.echo', 1) AS n \gset

-- Its function is dropped.
DROP FUNCTION t.answer(bigint[]);
SELECT eros_touch(1);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT error FROM eros.status_handler WHERE handler = ''answer''',
  'function t.answer(bigint[]) of handler "answer" does not exist', 'the status says that the function is gone');
CALL eventually('SELECT eros.get(''echo'', 1) ->> ''user''', '1', 'the other handler goes on');
SELECT is((SELECT status || ' ' || attempts FROM eros.job), 'pending 0', 'the job waits, and no attempt is counted');
SELECT ok((SELECT error_at IS NOT NULL FROM eros.status_handler WHERE handler = 'answer'), 'since when is shown');
SELECT alike((SELECT status FROM eros.status), '1 handlers cannot be called%', 'the status of all says so');

-- Somebody else puts a function in its place: it would run with the owner's rights.
SET ROLE test_thief;
CREATE FUNCTION t.answer(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, '"stolen"'::jsonb FROM unnest(user_ids) AS u $$;
RESET ROLE;
SELECT eros.enable_handler('answer');
CALL eventually('SELECT error FROM eros.status_handler WHERE handler = ''answer''',
  'function t.answer(bigint[]) of handler "answer" has been replaced by another role''s', 'another role''s function is not called');
SELECT throws_ok($$SELECT eros.run_now('answer', 1)$$, '42501', NULL, 'nor by run_now');
SELECT is(eros.get('answer', 1), NULL, 'nothing of it is stored');

-- The owner makes it anew: it works again.
DROP FUNCTION t.answer(bigint[]);
SET ROLE test_owner;
CREATE FUNCTION t.answer(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, to_jsonb(current_user::text) FROM unnest(user_ids) AS u $$;
SELECT eros.enable_handler('answer');
RESET ROLE;
CALL eventually('SELECT eros.get(''answer'', 1) #>> ''{}''', 'test_owner', 'mended by its owner it runs');
CALL eventually('SELECT count(*) FROM eros.status_handler WHERE error IS NOT NULL', '0', 'and the error is gone');
CALL eventually('SELECT status FROM eros.status', 'ok', 'all is well');

-- The right to execute it is taken away.
ALTER FUNCTION t.answer(bigint[]) OWNER TO postgres;
REVOKE ALL ON FUNCTION t.answer(bigint[]) FROM PUBLIC, test_owner;
SELECT eros_touch(2);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT error FROM eros.status_handler WHERE handler = ''answer''',
  'role "test_owner" may not execute function t.answer(bigint[]) of handler "answer"', 'the status says that the right is gone');
CALL eventually('SELECT eros.get(''echo'', 2) ->> ''user''', '2', 'the other handler goes on');
GRANT EXECUTE ON FUNCTION t.answer(bigint[]) TO test_owner;
SELECT eros.enable_handler('answer');
CALL eventually('SELECT eros.get(''answer'', 2) #>> ''{}''', 'test_owner', 'with the right granted it runs');

-- Its owner is dropped, in another database.
SELECT eros.revoke_developer('test_owner');
REVOKE ALL ON SCHEMA t FROM test_owner;
REVOKE ALL ON t.call, t.batch FROM test_owner;
REVOKE ALL ON FUNCTION t.answer(bigint[]) FROM test_owner;
\! psql -qX -d template1 -c 'DROP ROLE test_owner'
SELECT eros_touch(3);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT error FROM eros.status_handler WHERE handler = ''answer''',
  'the owner of handler "answer" does not exist any more', 'the status says that the owner is gone');
CALL eventually('SELECT eros.get(''echo'', 3) ->> ''user''', '3', 'the other handler goes on');
SELECT is((SELECT count(*) FROM eros.status_handler), 2::bigint, 'the status can still be read');

-- Somebody takes it over.
SELECT is(eros.add_handler('answer', 't.answer', 1, replace => true), (SELECT handler_id FROM eros.handler WHERE name = 'answer'),
  'replaced, it keeps its number');
CALL eventually('SELECT eros.get(''answer'', 3) #>> ''{}''', 'postgres', 'and runs as its new owner');
-- It touches the users that it is called for: that would halt the very work on them, again and again.
CREATE FUNCTION t.toucher(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS
  $$ BEGIN PERFORM public.eros_touch(user_ids); RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) AS u; END $$;
SELECT eros.add_handler('toucher', 't.toucher', 1, max_attempts => 1) AS n \gset
SELECT throws_ok($$SELECT eros.run_now('toucher', 77)$$, '55000', 'cannot record a touch in a handler', 'a handler touches nobody');
SELECT eros_touch(77);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually($$SELECT status || ': ' || last_error FROM eros.job j JOIN eros.handler h USING (handler_id)
  WHERE h.name = 'toucher' AND j.user_id = eros.user_key(77)$$, 'failed: cannot record a touch in a handler', 'nor in a worker');
CALL eventually($$SELECT eros.get('echo', 77) ->> 'user'$$, '77', 'and the other handlers get their turn');
SELECT eros.drop_handler('toucher') AS n \gset
\ir include/end.sql
