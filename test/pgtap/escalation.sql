-- A handler is not the superuser's process: whatever it tries, it runs as its owner.
\ir include/begin.sql
SELECT plan(29);

CREATE ROLE test_evil;
CREATE ROLE test_other;
CREATE SCHEMA evil AUTHORIZATION test_evil;
SELECT eros.grant_developer('test_evil');
SELECT eros.grant_developer('test_other');
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE TABLE t.secret AS SELECT 'hidden' AS word;

SET ROLE test_evil;
-- Who ran what, each time with what it saw of itself.
CREATE TABLE evil.witness (what text, who text, session text, super boolean, pid integer DEFAULT pg_backend_pid());
GRANT ALL ON evil.witness TO PUBLIC;
CREATE FUNCTION evil.note(what text) RETURNS void LANGUAGE sql SECURITY INVOKER AS $$
  INSERT INTO evil.witness (what, who, session, super) VALUES (what, current_user, session_user,
    (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user))
$$;

-- A handler that executes whatever it is given.
CREATE TABLE evil.plan (command text);
GRANT SELECT ON evil.plan TO PUBLIC;
CREATE FUNCTION evil.executes(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
DECLARE
  command text := (SELECT p.command FROM evil.plan p);
BEGIN
  EXECUTE command;
  RETURN QUERY SELECT u, to_jsonb(current_user::text) FROM unnest(user_ids) u;
END $$;
SELECT eros.add_handler('executes', 'evil.executes', 1) AS n \gset
CREATE FUNCTION evil.try(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  TRUNCATE evil.plan;
  INSERT INTO evil.plan VALUES (command);
  RETURN eros.run_now('executes', 1) #>> '{}';
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
INSERT INTO evil.plan VALUES ('SELECT 1');

-- Triggers that are put off to the end of the transaction.
CREATE TABLE evil.trap (n integer);
CREATE FUNCTION evil.spring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM evil.note(TG_ARGV[0]);
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER put_off AFTER INSERT ON evil.trap DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION evil.spring('deferred');
CREATE FUNCTION evil.deferred(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO evil.trap VALUES (1);
  PERFORM evil.note('call');
  RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) u;
END $$;
SELECT eros.add_handler('deferred', 'evil.deferred', 1) AS n \gset

SELECT eros.run_now('deferred', 1) AS n \gset
SELECT results_eq('SELECT what, who, super FROM evil.witness', $$VALUES ('deferred', 'test_evil', false), ('call', 'test_evil', false)$$,
  'a deferred trigger is fired in the call, as the handler''s owner');
TRUNCATE evil.witness;
RESET ROLE;
SELECT eros.run_now('deferred', 1) AS n \gset
SELECT is((SELECT string_agg(DISTINCT who, ',') FROM evil.witness), 'test_evil', 'also when a superuser runs it');
TRUNCATE evil.witness;
SELECT eros_touch(2);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually('SELECT eros.get(''deferred'', 2)::text', '1', 'and in a worker');
SELECT results_eq('SELECT what, who, super FROM evil.witness', $$VALUES ('deferred', 'test_evil', false), ('call', 'test_evil', false)$$,
  'where it does not wait for the commit, which is the superuser''s');
SELECT is((SELECT count(DISTINCT pid) FROM evil.witness WHERE pid <> pg_backend_pid()), 1::bigint, 'in one process, not this one');

-- A handler that puts them off itself.
SET ROLE test_evil;
CREATE FUNCTION evil.defers(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
BEGIN
  SET CONSTRAINTS ALL DEFERRED;
  INSERT INTO evil.trap VALUES (1);
  RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) u;
END $$;
SELECT eros.add_handler('defers', 'evil.defers', 1) AS n \gset
SELECT throws_ok($$SELECT eros.run_now('defers', 1)$$, '42501', 'cannot fire deferred trigger within security-restricted operation',
  'a handler cannot put triggers off');
RESET ROLE;

-- What the caller has put off is the caller's.
TRUNCATE evil.witness;
BEGIN;
INSERT INTO evil.trap VALUES (1);
SELECT eros.run_now('executes', 1) AS n \gset
SELECT is((SELECT string_agg(what || ' ' || who, ',') FROM evil.witness), 'deferred postgres', 'triggers of the caller''s are fired as the caller');
ROLLBACK;

-- Ways back to the superuser, and ways to leave something behind.
CREATE TEMP TABLE mine AS SELECT 1 AS n;
SELECT results_eq($$SELECT c, coalesce(evil.try(c), 'nothing') FROM unnest(ARRAY[
    'RESET ROLE', 'SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres', 'RESET SESSION AUTHORIZATION',
    'SELECT set_config(''role'', ''postgres'', false)', 'RESET ALL', 'DISCARD ALL', 'DISCARD TEMP',
    'CREATE TEMP TABLE x ()', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'LISTEN x', 'UNLISTEN *',
    'PREPARE x AS SELECT 1', 'DEALLOCATE ALL', 'LOAD ''plpgsql''', 'COMMIT', 'SELECT word FROM t.secret']) c$$,
  $$VALUES
    ('RESET ROLE', '42501 cannot set parameter "role" within security-definer function'),
    ('SET ROLE postgres', '42501 cannot set parameter "role" within security-definer function'),
    ('SET SESSION AUTHORIZATION postgres', '42501 cannot set parameter "session_authorization" within security-definer function'),
    ('RESET SESSION AUTHORIZATION', '42501 cannot set parameter "session_authorization" within security-definer function'),
    ('SELECT set_config(''role'', ''postgres'', false)', '42501 cannot set parameter "role" within security-definer function'),
    ('RESET ALL', 'test_evil'),
    ('DISCARD ALL', '42501 cannot execute DISCARD in a handler'),
    ('DISCARD TEMP', '42501 cannot execute DISCARD in a handler'),
    ('CREATE TEMP TABLE x ()', '42501 cannot create temporary table within security-restricted operation'),
    ('DECLARE c CURSOR WITH HOLD FOR SELECT 1', '42501 cannot create a cursor WITH HOLD within security-restricted operation'),
    ('LISTEN x', '42501 cannot execute LISTEN in a handler'),
    ('UNLISTEN *', '42501 cannot execute UNLISTEN in a handler'),
    ('PREPARE x AS SELECT 1', '42501 cannot execute PREPARE in a handler'),
    ('DEALLOCATE ALL', '42501 cannot execute DEALLOCATE in a handler'),
    ('LOAD ''plpgsql''', '42501 cannot execute LOAD in a handler'),
    ('COMMIT', '0A000 EXECUTE of transaction commands is not implemented'),
    ('SELECT word FROM t.secret', '42501 permission denied for table secret')$$,
  'what a handler cannot do');
SELECT is((SELECT n FROM mine), 1, 'temporary tables of the caller are still there');

-- Settings end with the call.
SELECT evil.try('SELECT set_config(''search_path'', ''evil'', false), set_config(''work_mem'', ''123MB'', false)') AS n \gset
SELECT isnt(current_setting('search_path'), 'evil', 'a search_path set for the session ends with the call');
SELECT isnt(current_setting('work_mem'), '123MB', 'so does any other setting');
SELECT alike(evil.try('SELECT set_config(''eros.workers'', ''0'', false)'), '%cannot be changed now', 'settings of EROS cannot be set');

-- Operators, functions and casts of the owner's in the way of EROS's own statements.
SET ROLE test_evil;
CREATE FUNCTION evil.eq(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM evil.note('operator'); RETURN true; END $$;
CREATE OPERATOR evil.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = evil.eq);
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN PERFORM evil.note('function'); RETURN 'epoch'; END $$;
CREATE FUNCTION evil.count(bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN PERFORM evil.note('function'); RETURN 1; END $$;
RESET ROLE;
TRUNCATE evil.witness;
SET search_path = evil, public, t, pg_catalog;
SELECT eros_touch(5);
SELECT eros.advance_clock('15 minutes') AS t \gset
SELECT eros.sweep() AS n \gset
SELECT eros.run_now('deferred', -5) AS n \gset
RESET search_path;
SET search_path = public, t;
SELECT eros.purge(), eros.evict(), eros.clean_up(), eros.create_partitions() \gset
SELECT is_empty($$SELECT * FROM evil.witness WHERE what IN ('operator', 'function')$$, 'operators and functions of the search_path are not called');

-- A result of another type than was registered.
SET ROLE test_evil;
CREATE DOMAIN evil.dom AS jsonb CHECK (evil.note('domain') IS NULL OR true);
CREATE FUNCTION evil.domain(user_ids bigint[]) RETURNS TABLE (user_id bigint, value evil.dom) LANGUAGE sql AS
  $$ SELECT u, '1'::jsonb::evil.dom FROM unnest(user_ids) u $$;
SELECT throws_ok($$SELECT eros.add_handler('domain', 'evil.domain', 1)$$, '42P13', NULL, 'a domain over jsonb is refused');
RESET ROLE;

-- Whoever owns a handler's function decides what it does: only one who has the handler's owner's rights may.
SET ROLE test_evil;
CREATE FUNCTION evil.whoami(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, to_jsonb(current_user::text) FROM unnest(user_ids) u $$;
RESET ROLE;
SELECT throws_ok($$SELECT eros.add_handler('whoami', 'evil.whoami', 1)$$, '42501',
  'function evil.whoami(bigint[]) belongs to another role', 'a superuser cannot register another''s function as its own handler');
SET ROLE test_other;
SELECT throws_ok($$SELECT eros.add_handler('whoami', 'evil.whoami', 1)$$, '42501', NULL, 'nor can another developer');
RESET ROLE;
SET ROLE test_evil;
SELECT eros.add_handler('whoami', 'evil.whoami', 1) AS n \gset
RESET ROLE;
SELECT is(eros.run_now('whoami', 1) #>> '{}', 'test_evil', 'its owner can');
ALTER FUNCTION evil.whoami(bigint[]) OWNER TO test_other;
SELECT throws_ok($$SELECT eros.run_now('whoami', 1)$$, '42501',
  'function evil.whoami(bigint[]) of handler "whoami" has been given to another role', 'given away, it is not called any more');
GRANT test_evil TO test_other;
SELECT is(eros.run_now('whoami', 1) #>> '{}', 'test_evil', 'unless the new owner has the rights anyway');
REVOKE test_evil FROM test_other;

-- A polymorphic function in the place of a dropped one is not taken for it.
SET ROLE test_evil;
CREATE FUNCTION evil.gone(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, '1'::jsonb FROM unnest(user_ids) u $$;
GRANT CREATE ON SCHEMA evil TO test_other;
RESET ROLE;
ALTER FUNCTION evil.gone(bigint[]) OWNER TO test_other;
SET ROLE test_other;
SELECT eros.add_handler('gone', 'evil.gone', 1) AS n \gset
RESET ROLE;
SELECT is(eros.run_now('gone', 1), '1', 'a handler runs');
DROP FUNCTION evil.gone(bigint[]);
SET ROLE test_evil;
CREATE FUNCTION evil.gone(anyarray) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, evil.note('stolen')::text::jsonb FROM unnest($1::bigint[]) u $$;
RESET ROLE;
SELECT throws_ok($$SELECT eros.run_now('gone', 1)$$, '42883', NULL, 'another signature under the same name is not called');
SELECT is_empty($$SELECT * FROM evil.witness WHERE what = 'stolen'$$, 'by nobody');

-- Nothing that the extension's tables hold can be given a trigger, a rule or a policy by others.
SET ROLE test_evil;
SELECT throws_ok('CREATE TRIGGER x AFTER INSERT ON eros.job FOR EACH ROW EXECUTE FUNCTION evil.spring(''job'')', '42501', NULL, 'no trigger on eros.job');
SELECT throws_ok('CREATE TRIGGER x AFTER INSERT ON eros.cache FOR EACH ROW EXECUTE FUNCTION evil.spring(''cache'')', '42501', NULL, 'nor on eros.cache');
SELECT throws_ok('CREATE RULE x AS ON DELETE TO eros.job DO ALSO SELECT evil.note(''rule'')', '42501', NULL, 'no rule');
SELECT throws_ok('CREATE TABLE evil.child () INHERITS (eros.job)', '42501', NULL, 'no child table');
SELECT throws_ok('CREATE TABLE evil.reference (h integer REFERENCES eros.handler)', '42501', NULL, 'no foreign key to eros.handler');
SELECT throws_ok('CREATE FUNCTION eros.now(integer) RETURNS integer LANGUAGE sql AS ''SELECT 1''', '42501', NULL, 'no function in the schema');
SELECT throws_ok('UPDATE eros.handler SET owner = ''postgres''', '42501', NULL, 'nor can a handler be given to another owner');
RESET ROLE;
\ir include/end.sql
