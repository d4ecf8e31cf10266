-- What becomes of handlers when their owner is dropped, or gives away or drops what he owns.
\ir include/begin.sql
SELECT plan(22);
CREATE ROLE test_owner;
CREATE ROLE test_heir;
CREATE ROLE test_creator CREATEROLE;
CREATE ROLE test_nobody;
CREATE SCHEMA app AUTHORIZATION test_owner;
SELECT eros.grant_developer('test_owner');
SELECT eros.grant_developer('test_heir');
GRANT USAGE ON SCHEMA app TO PUBLIC;
SET ROLE test_owner;
CREATE FUNCTION app.who(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, to_jsonb(current_user::text) FROM unnest(user_ids) AS u $$;
SELECT eros.add_handler('who', 'app.who', 1) AS n \gset
SELECT eros.add_handler('Second one', 'app.who', 2) AS n \gset
RESET ROLE;

-- DROP ROLE
SELECT throws_ok('DROP ROLE test_heir, test_owner', '2BP01', 'role "test_owner" cannot be dropped because some objects depend on it', 'DROP ROLE is refused');
SELECT is((SELECT count(*) FROM pg_roles WHERE rolname IN ('test_heir', 'test_owner')), 2::bigint, 'for all that are named');
SET ROLE test_creator;
SELECT throws_ok('DROP ROLE test_owner', '2BP01', NULL, 'so it is for a role with CREATEROLE');
RESET ROLE;
SET ROLE test_nobody;
SELECT throws_ok('DROP ROLE test_owner', '42501', 'permission denied to drop role', 'who may not drop roles does not learn of handlers');
RESET ROLE;
SELECT lives_ok('DROP ROLE IF EXISTS test_not_there', 'a role that is not there can be dropped if it exists');
SELECT lives_ok('DROP ROLE test_nobody', 'and one without handlers');

-- REASSIGN OWNED
SELECT eros.run_now('who', 1) AS n \gset
SET ROLE test_heir;
SELECT throws_ok('REASSIGN OWNED BY test_owner TO test_heir', '42501', NULL, 'who may not reassign, cannot take handlers over');
RESET ROLE;
SELECT is((SELECT string_agg(DISTINCT owner::text, ',') FROM eros.handler), 'test_owner', 'the owner is the same');
SELECT lives_ok('REASSIGN OWNED BY test_owner TO test_heir', 'REASSIGN OWNED');
SELECT is((SELECT string_agg(DISTINCT owner::text, ',') FROM eros.handler), 'test_heir', 'gives the handlers to the other role');
SELECT is(eros.run_now('who', 1) #>> '{}', 'test_heir', 'as whom they run');
BEGIN;
REASSIGN OWNED BY test_heir TO test_owner;
ROLLBACK;
SELECT is(eros.run_now('who', 1) #>> '{}', 'test_heir', 'rolled back, it is as before');
SELECT eros.revoke_developer('test_owner');
REVOKE ALL ON SCHEMA app FROM test_owner;
SELECT lives_ok('DROP ROLE test_owner', 'without handlers and rights the role can be dropped');

-- DROP OWNED
SELECT eros_touch(5);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT eros.get(''who'', 5) #>> ''{}''', 'test_heir', 'a result is there');
SELECT lives_ok('DROP OWNED BY test_heir', 'DROP OWNED');
SELECT is((SELECT count(*) FROM eros.handler), 0::bigint, 'drops the role''s handlers');
SELECT is((SELECT count(*) FROM eros.cache) + (SELECT count(*) FROM eros.job), 0::bigint, 'with their results and jobs');
SELECT lives_ok('DROP ROLE test_heir', 'then the role can be dropped');

-- Dropped in another database, where nobody knows of the handlers here.
CREATE ROLE test_far;
SELECT eros.add_handler('far', 't.echo', 1) AS n \gset
UPDATE eros.handler SET owner = 'test_far'::regrole;
\! psql -qX -d template1 -c 'DROP ROLE test_far'
SELECT is((SELECT owner::text ~ '^\d+$' FROM eros.handler), true, 'elsewhere the owner is a number');
SELECT eros.clean_up() AS n \gset
SELECT results_eq('SELECT owner::text, enabled, error FROM eros.status_handler',
  $$VALUES ('-', false, 'the owner of handler "far" does not exist any more')$$, 'the clean-up disables the handler, and says why');
SELECT throws_ok('SELECT eros.run_now(''far'', 1)', '42704', NULL, 'it cannot be run');
SELECT lives_ok($$SELECT eros.add_handler('far', 't.echo', 1, replace => true)$$, 'and can be registered anew');
\ir include/end.sql
