-- Enabling, disabling, dropping.
CREATE FUNCTION regress_numbers(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS $$ SELECT u, to_jsonb(u) FROM unnest(user_ids) AS u $$;
SELECT eros.add_handler('numbers', 'public.regress_numbers', 1) > 0 AS added;
SELECT handler, enabled FROM eros.status_handler;
SELECT eros.disable_handler('numbers');
SELECT handler, enabled FROM eros.status_handler;
-- run by hand it does its work all the same
SELECT eros.run_now('numbers', 5001);
SELECT eros.enable_handler('numbers');
SELECT handler, enabled FROM eros.status_handler;
SELECT eros.get('numbers', 5001);
-- dropped, its results go with it
SELECT handler_id AS id FROM eros.handler \gset
SELECT eros.drop_handler('numbers');
SELECT eros.get('numbers', 5001);
SELECT count(*) FROM eros.cache WHERE handler_id = :id;
SELECT count(*) FROM eros.job WHERE handler_id = :id;
SELECT count(*) FROM eros.status_handler;
-- none of this name
SELECT eros.drop_handler('numbers');
\set VERBOSITY sqlstate
SELECT eros.enable_handler('numbers');
SELECT eros.disable_handler('numbers');
SELECT eros.retry('numbers');
SELECT eros.run_now('numbers', 1);
SELECT eros.invalidate('numbers', 1);
SELECT count(*) FROM eros.get_many('numbers', '{1}'::bigint[]);
\set VERBOSITY default
-- a new one of the old name begins anew
SELECT eros.add_handler('numbers', 'public.regress_numbers', 1) > :id AS added;
SELECT eros.get('numbers', 5001);
SELECT hits, misses, results_stored FROM eros.status_handler;
-- DROP is undone by ROLLBACK
SELECT eros.run_now('numbers', 5001);
BEGIN;
SELECT eros.drop_handler('numbers');
ROLLBACK;
SELECT eros.get('numbers', 5001);
SELECT eros.drop_handler('numbers');
DROP FUNCTION regress_numbers(bigint[]);
