-- Who may do what; the rest is in pgtap/privileges.sql.
CREATE ROLE regress_eros_app;
CREATE ROLE regress_eros_nobody;
SELECT eros.grant_application('regress_eros_app');
CREATE FUNCTION regress_one(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS $$ SELECT u, '1'::jsonb FROM unnest(user_ids) AS u $$;
SELECT eros.add_handler('one', 'public.regress_one', 1, enabled => false) > 0 AS added;
SELECT eros.run_now('one', 1);
SET ROLE regress_eros_app;
SELECT eros_touch(1);
SELECT eros_touch(ARRAY[1, 2]::bigint[]);
SELECT eros.get('one', 1);
SELECT * FROM eros.get_many('one', '{1}'::bigint[]);
SELECT eros.invalidate('one', 1);
SELECT eros.run_now('one', 1);
SELECT eros.sweep();
SELECT eros.purge();
SELECT * FROM eros.status;
SELECT * FROM eros.cache;
DELETE FROM eros.job;
SELECT eros.grant_application('regress_eros_app');
SET ROLE regress_eros_nobody;
SELECT eros_touch(1);
SELECT eros.get('one', 1);
RESET ROLE;
SELECT eros.drop_handler('one');
DROP FUNCTION regress_one(bigint[]);
DROP OWNED BY regress_eros_app;
DROP ROLE regress_eros_app, regress_eros_nobody;
