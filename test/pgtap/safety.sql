-- Nobody gets in by way of the extension's own objects: the rules of script/safety.sql hold, and they find
-- what they are to find; what somebody has put there before CREATE EXTENSION is neither used nor trusted.
\ir include/begin.sql
SELECT plan(21);
\ir ../../script/safety.sql
CREATE FUNCTION pg_temp.installed_script() RETURNS text LANGUAGE sql AS $$
  SELECT pg_read_file(c.setting || '/extension/eros--' || e.extversion || '.sql')
  FROM pg_config c, pg_extension e WHERE c.name = 'SHAREDIR' AND e.extname = 'eros'
$$;

SELECT is_empty($$SELECT pg_temp.catalog_findings('eros')$$, 'the extension''s objects are safe');
SELECT is_empty($$SELECT pg_temp.script_findings(pg_temp.installed_script())$$, 'its script is safe');

-- Bad examples, made part of the extension and taken out again.
CREATE PROCEDURE t.finds(bad text, kind text, finding text, INOUT result text DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
  BEGIN
    EXECUTE bad;
    EXECUTE 'ALTER EXTENSION eros ADD ' || kind;
    SELECT string_agg(f, '; ') INTO result FROM pg_temp.catalog_findings('eros') f;
    RAISE EXCEPTION USING errcode = 'ERB1D', message = coalesce(result, 'nothing');
  EXCEPTION WHEN SQLSTATE 'ERB1D' THEN
    result := public.alike(SQLERRM, '%' || finding || '%', finding);
  END;
END $$;
CREATE FUNCTION t.other_gt(double precision, integer) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE ROLE test_else;
GRANT CREATE ON SCHEMA t TO test_else;
CALL finds('CREATE FUNCTION eros.bad() RETURNS integer LANGUAGE sql AS ''SELECT 1''', 'FUNCTION eros.bad()', 'eros.bad(): search_path is not pinned');
CALL finds('CREATE FUNCTION eros.bad() RETURNS integer LANGUAGE sql SET search_path = public AS ''SELECT 1''', 'FUNCTION eros.bad()', 'eros.bad(): search_path is not pinned');
CALL finds('CREATE FUNCTION eros.bad() RETURNS integer LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS ''SELECT 1''', 'FUNCTION eros.bad()', 'eros.bad(): SECURITY DEFINER');
CALL finds('CREATE FUNCTION eros.bad() RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS ''BEGIN DELETE FROM somewhere; RETURN 1; END''', 'FUNCTION eros.bad()', 'relation somewhere has no schema');
CALL finds('CREATE FUNCTION eros.bad() RETURNS integer LANGUAGE sql SET search_path = pg_catalog, pg_temp AS ''SELECT 1''', 'FUNCTION eros.bad()', 'eros.bad(): PUBLIC may execute it');
CALL finds('CREATE TABLE eros.bad (n integer); GRANT INSERT ON eros.bad TO test_else', 'TABLE eros.bad', 'eros.bad: INSERT is granted to test_else');
CALL finds('CREATE TABLE eros.bad (n integer); GRANT SELECT ON eros.bad TO PUBLIC', 'TABLE eros.bad', 'eros.bad: SELECT is granted to PUBLIC');
CALL finds('CREATE TABLE eros.bad (n integer); GRANT CREATE ON SCHEMA eros TO PUBLIC', 'TABLE eros.bad', 'schema eros: CREATE is granted to PUBLIC');
CALL finds('CREATE TABLE eros.bad (n integer CHECK (t.other_gt(n, 1)))', 'TABLE eros.bad', 'uses function other_gt(double precision,integer)');
CALL finds('CREATE VIEW eros.bad AS SELECT * FROM t.call', 'VIEW eros.bad', 'uses table call');
CALL finds('CREATE TABLE eros.bad (n integer); ALTER TABLE eros.bad OWNER TO test_else', 'TABLE eros.bad', 'eros.bad: owned by test_else');

SELECT bag_eq($$SELECT pg_temp.script_findings('CREATE OR REPLACE FUNCTION eros.x() RETURNS void; CREATE TABLE IF NOT EXISTS eros.y (); CREATE VIEW v AS SELECT 1; INSERT INTO w VALUES (1);')$$,
  $$VALUES ('the script does not begin with SET LOCAL search_path = pg_catalog, pg_temp'), ('CREATE OR REPLACE FUNCTION eros.x: takes what is there already for its own'),
    (' CREATE TABLE IF NOT EXISTS eros.y : takes what is there already for its own'), ('CREATE VIEW v: no schema'), ('INSERT INTO w: no schema')$$,
  'what a script may not do is found');

-- What was there before.
DROP EXTENSION eros;
CREATE SCHEMA eros AUTHORIZATION test_else;
SELECT throws_ok('CREATE EXTENSION eros', '42P06', NULL, 'a schema eros of somebody else''s is not used');
DROP SCHEMA eros;
CREATE SCHEMA early AUTHORIZATION test_else;
SET ROLE test_else;
CREATE FUNCTION early.eros_touch(user_id bigint) RETURNS void LANGUAGE sql AS '';
RESET ROLE;
SELECT throws_ok('CREATE EXTENSION eros SCHEMA early', '42723', NULL, 'an eros_touch of somebody else''s is not replaced');
DROP FUNCTION early.eros_touch(bigint);
SET ROLE test_else;
CREATE FUNCTION early.eros_touch(user_id integer) RETURNS void LANGUAGE sql AS '';
RESET ROLE;
SELECT throws_ok('CREATE EXTENSION eros SCHEMA early', '42723', NULL, 'nor is one accepted that would be called in its place');
DROP FUNCTION early.eros_touch(integer);

-- Operators and functions that fit better than PostgreSQL's own what the script says.
SET ROLE test_else;
CREATE TABLE early.witness (who name);
GRANT INSERT ON early.witness TO PUBLIC;
CREATE FUNCTION early.gt(double precision, integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN INSERT INTO early.witness VALUES (current_user); RETURN true; END $$;
CREATE OPERATOR early.> (LEFTARG = double precision, RIGHTARG = integer, FUNCTION = early.gt);
CREATE OPERATOR early.<= (LEFTARG = double precision, RIGHTARG = integer, FUNCTION = early.gt);
CREATE FUNCTION early.power(integer, smallint) RETURNS double precision LANGUAGE plpgsql AS $$
BEGIN INSERT INTO early.witness VALUES (current_user); RETURN 1; END $$;
CREATE OPERATOR early.^ (LEFTARG = integer, RIGHTARG = smallint, FUNCTION = early.power);
CREATE FUNCTION early.times(numeric, bigint) RETURNS numeric LANGUAGE plpgsql AS $$
BEGIN INSERT INTO early.witness VALUES (current_user); RETURN 1; END $$;
CREATE OPERATOR early.* (LEFTARG = numeric, RIGHTARG = bigint, FUNCTION = early.times);
RESET ROLE;
SET search_path = early, pg_catalog, public, t;
CREATE EXTENSION eros SCHEMA early;
UPDATE eros.phase SET cpu_percent = 50;
SET search_path = public, t;
SELECT is_empty('SELECT * FROM early.witness', 'operators made before CREATE EXTENSION are not called');
SELECT is_empty($$SELECT pg_temp.catalog_findings('eros')$$, 'nor used by any object');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
  JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'eros' WHERE p.pronamespace NOT IN ('eros'::regnamespace, 'early'::regnamespace)$$,
  'all functions are in schema eros or where CREATE EXTENSION was told');
SELECT is((SELECT count(*) FROM pg_proc WHERE proname = 'eros_touch' AND pronamespace = 'early'::regnamespace), 5::bigint, 'eros_touch is there');
DROP EXTENSION eros;
DROP SCHEMA early CASCADE;
\ir include/end.sql
