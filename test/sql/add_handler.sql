-- Registering a handler: defaults, and what is refused.
CREATE SCHEMA regress_h;
CREATE FUNCTION regress_h.good(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS $$ SELECT u, to_jsonb(u) FROM unnest(user_ids) AS u $$;
CREATE FUNCTION regress_h."By uuid"(uuid[]) RETURNS TABLE (a uuid, b jsonb)
LANGUAGE sql AS $$ SELECT u, to_jsonb(u) FROM unnest($1) AS u $$;
CREATE FUNCTION regress_h.bad(user_ids bigint[]) RETURNS TABLE (user_id bigint, value text)
LANGUAGE sql AS $$ SELECT u, 'x' FROM unnest(user_ids) AS u $$;
CREATE FUNCTION regress_h.single(user_id bigint) RETURNS jsonb LANGUAGE sql AS $$ SELECT '1'::jsonb $$;

SELECT eros.add_handler('good', 'regress_h.good', 1) > 0 AS added;
SELECT eros.add_handler('by uuid', 'regress_h."By uuid"', phase => 3, ttl => '1 hour', max_attempts => 2,
                        timeout => '5 seconds', enabled => false) > 0 AS added;
SELECT name, function, user_type, phase, ttl, max_attempts, timeout, owner = current_user::regrole AS mine, enabled, error
FROM eros.handler ORDER BY name;

-- the function
SELECT eros.add_handler('h', 'regress_h.missing', 1);
SELECT eros.add_handler('h', 'regress_h.bad', 1);
SELECT eros.add_handler('h', 'regress_h.single(bigint)', 1);
SELECT eros.add_handler('h', 'regress_h.missing(bigint[])', 1);
-- the name
SELECT eros.add_handler('good', 'regress_h.good', 1);
SELECT eros.add_handler('', 'regress_h.good', 1);
SELECT eros.add_handler(repeat('x', 64), 'regress_h.good', 1);
-- the figures
SELECT eros.add_handler('h', 'regress_h.good', 9);
SELECT eros.add_handler('h', 'regress_h.good', 1, ttl => '0');
SELECT eros.add_handler('h', 'regress_h.good', 1, ttl => '366 days');
SELECT eros.add_handler('h', 'regress_h.good', 1, max_attempts => 0);
SELECT eros.add_handler('h', 'regress_h.good', 1, timeout => '0');
SELECT eros.add_handler('h', 'regress_h.good', 1, timeout => '2 days');
\set VERBOSITY sqlstate
SELECT eros.add_handler(NULL, 'regress_h.good', 1);
SELECT eros.add_handler('h', NULL, 1);
SELECT eros.add_handler('h', 'regress_h.good', NULL);
SELECT eros.add_handler('h', 'regress_h.good', 1, ttl => NULL);
SELECT eros.add_handler('h', 'regress_h.good', 1, enabled => NULL);
SELECT eros.add_handler('h', 'no_schema.good', 1);
\set VERBOSITY default
SELECT count(*) FROM eros.handler;

-- replaced, it keeps its number
SELECT handler_id AS id FROM eros.handler WHERE name = 'good' \gset
SELECT eros.add_handler('good', 'regress_h.good(bigint[])', 2, ttl => '2 days', replace => true) = :id AS same;
SELECT name, function, phase, ttl FROM eros.handler WHERE name = 'good';
-- rolled back, it was never there
BEGIN;
SELECT eros.add_handler('gone', 'regress_h.good', 1) > 0 AS added;
SELECT eros.get('gone', 1);
ROLLBACK;
SELECT eros.get('gone', 1);

SELECT eros.drop_handler('good');
SELECT eros.drop_handler('by uuid');
SELECT count(*) FROM eros.handler;
DROP SCHEMA regress_h CASCADE;
