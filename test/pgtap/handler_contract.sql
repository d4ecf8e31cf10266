-- What a handler must be, what it may return, and in which context it runs.
\ir include/begin.sql
SELECT plan(38);

-- What it must be.
CREATE FUNCTION t.no_argument() RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS 'SELECT 1::bigint, ''1''::jsonb';
CREATE FUNCTION t.one_user(bigint) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS 'SELECT 1::bigint, ''1''::jsonb';
CREATE FUNCTION t.no_set(bigint[]) RETURNS jsonb LANGUAGE sql AS 'SELECT ''1''::jsonb';
CREATE FUNCTION t.one_row(bigint[], OUT user_id bigint, OUT value jsonb) LANGUAGE sql AS 'SELECT 1::bigint, ''1''::jsonb';
CREATE FUNCTION t.json_value(bigint[]) RETURNS TABLE (user_id bigint, value json) LANGUAGE sql AS 'SELECT 1::bigint, ''1''::json';
CREATE FUNCTION t.mixed(bigint[]) RETURNS TABLE (user_id uuid, value jsonb) LANGUAGE sql AS 'SELECT gen_random_uuid(), ''1''::jsonb';
CREATE FUNCTION t.three(bigint[]) RETURNS TABLE (user_id bigint, value jsonb, more int) LANGUAGE sql AS 'SELECT 1::bigint, ''1''::jsonb, 1';
CREATE FUNCTION t.integers(integer[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS 'SELECT 1::bigint, ''1''::jsonb';
CREATE AGGREGATE t.total(bigint[]) (SFUNC = array_cat, STYPE = bigint[]);
CREATE PROCEDURE t.proc(bigint[]) LANGUAGE sql AS '';

SELECT throws_ok($$SELECT eros.add_handler('h', 't.missing', 1)$$, '42883', NULL, 'no such function');
SELECT throws_ok($$SELECT eros.add_handler('h', 't.no_argument', 1)$$, '42883', NULL, 'a function without an argument is not found');
SELECT throws_ok($$SELECT eros.add_handler('h', 't.one_user', 1)$$, '42883', NULL, 'nor is one that takes a single user');
SELECT throws_ok($$SELECT eros.add_handler('h', 't.one_user(bigint)', 1)$$, '42P13',
  'function t.one_user(bigint) cannot be a handler', 'and by its signature it is refused');
SELECT throws_ok($$SELECT eros.add_handler('h', 't.integers(integer[])', 1)$$, '42P13', NULL, 'integer[] is refused');
SELECT throws_ok($$SELECT eros.add_handler('h', 't.no_set', 1)$$, '42P13', NULL, 'a function that returns no set is refused');
SELECT throws_ok($$SELECT eros.add_handler('h', 't.one_row', 1)$$, '42P13', NULL, 'one that returns a single row, too');
SELECT throws_ok($$SELECT eros.add_handler('h', 't.json_value', 1)$$, '42P13', NULL, 'json is not jsonb');
SELECT throws_ok($$SELECT eros.add_handler('h', 't.mixed', 1)$$, '42P13', NULL, 'bigint[] in and uuid out is refused');
SELECT throws_ok($$SELECT eros.add_handler('h', 't.three', 1)$$, '42P13', NULL, 'three columns are refused');
SELECT throws_ok($$SELECT eros.add_handler('h', 't.total(bigint[])', 1)$$, '42P13', NULL, 'an aggregate is refused');
SELECT throws_ok($$SELECT eros.add_handler('h', 't.proc(bigint[])', 1)$$, '42P13', NULL, 'a procedure is refused');
SELECT is((SELECT count(*) FROM eros.handler), 0::bigint, 'none of them was registered');

-- Users as bigint and as uuid, side by side under one function name.
CREATE FUNCTION t.both(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, '"number"'::jsonb FROM unnest(user_ids) AS u $$;
CREATE FUNCTION t.both(user_ids uuid[]) RETURNS TABLE (user_id uuid, value jsonb) LANGUAGE sql AS
  $$ SELECT u, '"uuid"'::jsonb FROM unnest(user_ids) AS u $$;
SELECT throws_ok($$SELECT eros.add_handler('both', 't.both', 1)$$, '42725', NULL, 'the name of two functions is ambiguous');
SELECT eros.add_handler('number', 't.both(bigint[])', 1) AS n \gset
SELECT eros.add_handler('uuid', 't.both(uuid[])', 1) AS n \gset
SELECT eros_touch(-7);
SELECT eros_touch('0190a2b4-0000-7000-8000-000000000001'::uuid);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually($$SELECT eros.get('number', -7) #>> '{}'$$, 'number', 'a bigint user goes to the bigint handler');
CALL eventually($$SELECT eros.get('uuid', '0190a2b4-0000-7000-8000-000000000001'::uuid) #>> '{}'$$, 'uuid',
  'a uuid user to the uuid handler');
SELECT is((SELECT count(*) FROM eros.cache), 2::bigint, 'and to no other');
SELECT throws_ok($$SELECT eros.run_now('uuid', 1::bigint)$$, '42809', NULL, 'a uuid handler is not run for a bigint user');

-- What it returns.
CREATE FUNCTION t.foreign_row(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT 4711::bigint, '1'::jsonb $$;
CREATE FUNCTION t.twice(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, '1'::jsonb FROM unnest(user_ids || user_ids) AS u $$;
CREATE FUNCTION t.null_user(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT NULL::bigint, '1'::jsonb $$;
CREATE TABLE t.answer (value jsonb);
CREATE FUNCTION t.answers(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
  LANGUAGE sql SET search_path = t, pg_temp AS
  $$ SELECT u, value FROM unnest(user_ids) AS u, answer $$;
SELECT eros.add_handler(f, 't.' || f, 1) AS n FROM unnest(ARRAY['foreign_row', 'twice', 'null_user', 'answers']) AS f \g /dev/null
SELECT throws_ok($$SELECT eros.run_now('foreign_row', 1)$$, '22023',
  'handler "foreign_row" returned a row for a user who was not asked for', 'a row for somebody else is an error');
SELECT throws_ok($$SELECT eros.run_now('twice', 1)$$, '21000',
  'handler "twice" returned more than one row for a user', 'several rows for one user are an error');
SELECT throws_ok($$SELECT eros.run_now('null_user', 1)$$, '22004',
  'handler "null_user" returned a row without a user', 'a row for nobody is an error');
SELECT is((SELECT count(*) FROM eros.cache WHERE user_id = eros.user_key(1)), 0::bigint, 'nothing of it was stored');

INSERT INTO t.answer VALUES ('{"a": 1}');
SELECT is(eros.run_now('answers', 1), '{"a": 1}', 'a value is a result');
UPDATE t.answer SET value = 'null';
SELECT is(eros.run_now('answers', 1), 'null', 'a JSON null is one, too');
SELECT is(eros.get('answers', 1), 'null', 'and is kept');
UPDATE t.answer SET value = NULL;
SELECT is(eros.run_now('answers', 1), NULL, 'an SQL NULL is none');
SELECT is(eros.get('answers', 1), NULL, 'and deletes the old one');
UPDATE t.answer SET value = '2';
SELECT eros.run_now('answers', 1);
DELETE FROM t.answer;
SELECT is(eros.run_now('answers', 1), NULL, 'no row is no result');
SELECT is(eros.get('answers', 1), NULL, 'and deletes the old one');

-- How large a result may be (eros.max_result_size: 50 KB of jsonb before compression).
INSERT INTO t.answer VALUES (to_jsonb(repeat('x', 50 * 1024 - 100)));
SELECT is(length(eros.run_now('answers', 1) #>> '{}'), 50 * 1024 - 100, 'a result just below the limit is kept');
UPDATE t.answer SET value = to_jsonb(repeat('x', 50 * 1024));
SELECT throws_like($$SELECT eros.run_now('answers', 1)$$, 'handler "answers" returned % bytes for a user, more than the 51200 allowed',
  'a larger one is an error of the handler');
SELECT is(length(eros.get('answers', 1) #>> '{}'), 50 * 1024 - 100, 'and leaves the last result alone');

-- Where it runs.
CREATE ROLE test_owner;
GRANT ALL ON SCHEMA t TO test_owner;
GRANT ALL ON ALL TABLES IN SCHEMA t TO test_owner;
SELECT eros.grant_developer('test_owner');
CREATE FUNCTION t.context(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, jsonb_build_array(current_user, current_setting('search_path')) FROM unnest(user_ids) AS u $$;
-- runs, for each user, one of the statements that a handler may not get through with
CREATE TABLE t.statement (user_id bigint, statement text);
GRANT ALL ON t.statement TO test_owner;
INSERT INTO t.statement VALUES
  (1, 'SET ROLE postgres'), (2, 'SET SESSION AUTHORIZATION postgres'), (3, 'RESET ROLE'),
  (4, 'CREATE TEMP TABLE secret (a int)'), (5, 'DECLARE c CURSOR WITH HOLD FOR SELECT 1'),
  (6, 'SELECT * FROM eros.job'), (7, 'COMMIT'), (8, 'INSERT INTO t.note VALUES (8)');
CREATE FUNCTION t.tries(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
DECLARE
  try record;
BEGIN
  FOR try IN SELECT * FROM t.statement AS s WHERE s.user_id = ANY (user_ids) LOOP
    user_id := try.user_id;
    BEGIN
      EXECUTE try.statement;
      value := '"done"';
    EXCEPTION WHEN OTHERS THEN
      value := to_jsonb(SQLSTATE);
    END;
    RETURN NEXT;
  END LOOP;
END $$;
CREATE TABLE t.note (user_id bigint);
GRANT ALL ON t.note TO test_owner;
SET ROLE test_owner;
SELECT eros.add_handler('context', 't.context', 1) AS n \gset
SELECT eros.add_handler('tries', 't.tries', 1) AS n \gset
RESET ROLE;
SELECT eros_touch(u) FROM generate_series(1, 8) AS u;
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually($$SELECT eros.get('context', 1)$$, '["test_owner", "pg_catalog, pg_temp"]',
  'a worker calls it as its owner, with a safe search_path');
CALL eventually($$SELECT string_agg(user_id || ' ' || (value #>> '{}'), ', ' ORDER BY user_id)
  FROM eros.get_many('tries', ARRAY[1, 2, 3, 4, 5, 6, 7, 8]::bigint[])$$,
  '1 42501, 2 42501, 3 42501, 4 42501, 5 42501, 6 42501, 7 0A000, 8 done',
  'it can become nobody else, leave nothing behind, and not commit; but it can write to its tables');
SELECT is((SELECT array_agg(user_id) FROM t.note), ARRAY[8::bigint], 'what it wrote is there');
SELECT eros.run_now('context', 9);
SELECT is(eros.get('context', 9), '["test_owner", "pg_catalog, pg_temp"]', 'run_now does likewise');
SELECT is(eros.run_now('tries', 1) #>> '{}', '42501', 'a superuser who runs it lends it no right');
SELECT is(eros.run_now('tries', 4) #>> '{}', '42501', 'nor can it create a temporary table then');
\ir include/end.sql
