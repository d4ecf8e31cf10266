-- eros.run_now: one user, now, in this session.
CREATE TABLE regress_age (user_id bigint PRIMARY KEY, age int);
INSERT INTO regress_age VALUES (6001, 30), (6002, 0);
CREATE FUNCTION regress_ratio(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql SET search_path = public, pg_temp AS
$$ SELECT a.user_id, to_jsonb(300 / age) FROM regress_age AS a WHERE a.user_id = ANY (user_ids) $$;
SELECT eros.add_handler('ratio', 'public.regress_ratio', 2, enabled => false) > 0 AS added;
SELECT eros.run_now('ratio', 6001);
SELECT eros.get('ratio', 6001);
-- its error is shown, with where it happened
SELECT eros.run_now('ratio', 6002);
SELECT eros.get('ratio', 6002);
SELECT count(*) AS jobs FROM eros.job;
-- no row: no result
SELECT eros.run_now('ratio', 6003);
-- the last result is replaced, or deleted
UPDATE regress_age SET age = 20 WHERE user_id = 6001;
SELECT eros.run_now('ratio', 6001);
SELECT eros.get('ratio', 6001);
DELETE FROM regress_age WHERE user_id = 6001;
SELECT eros.run_now('ratio', 6001);
SELECT eros.get('ratio', 6001);
-- it takes part in the transaction
INSERT INTO regress_age VALUES (6001, 10);
BEGIN;
SELECT eros.run_now('ratio', 6001);
SELECT eros.get('ratio', 6001);
ROLLBACK;
SELECT eros.get('ratio', 6001);
-- NULL, users of the other kind, as text
SELECT eros.run_now('ratio', NULL::bigint);
SELECT eros.run_now('ratio', '0190a2b4-0000-7000-8000-000000000001'::uuid);
SELECT eros.run_now('ratio', '6001'::text);
-- a handler cannot call a handler
CREATE FUNCTION regress_nested(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS $$ SELECT u, eros.run_now('ratio', u) FROM unnest(user_ids) AS u $$;
SELECT eros.add_handler('nested', 'public.regress_nested', 2, enabled => false) > 0 AS added;
\set VERBOSITY terse
SELECT eros.run_now('nested', 6001);
\set VERBOSITY default
-- but it can read the results of another one
CREATE OR REPLACE FUNCTION regress_nested(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS $$ SELECT u, jsonb_build_array(eros.get('ratio', u)) FROM unnest(user_ids) AS u $$;
SELECT eros.run_now('nested', 6001);
SELECT eros.drop_handler('nested');
SELECT eros.drop_handler('ratio');
DROP FUNCTION regress_nested(bigint[]), regress_ratio(bigint[]);
DROP TABLE regress_age;
