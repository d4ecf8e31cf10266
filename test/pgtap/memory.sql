-- Workers call handlers with the memory of eros.work_mem, unless the handler says otherwise.
\ir include/begin.sql
ALTER SYSTEM SET eros.work_mem = '3MB';
\ir include/reload.sql
SELECT plan(4);

SELECT is((SELECT boot_val || unit FROM pg_settings WHERE name = 'eros.work_mem'), '1024kB', 'by default it is 1 MB');
CREATE FUNCTION t.memory(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS $$ SELECT u, to_jsonb(current_setting('work_mem')) FROM unnest(user_ids) AS u $$;
CREATE FUNCTION t.own(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql SET work_mem = '16MB' AS $$ SELECT * FROM t.memory(user_ids) $$;
SELECT eros.add_handler('memory', 't.memory', 1), eros.add_handler('own', 't.own', 1);
SELECT eros_touch(1);
SELECT eros.advance_clock('15 minutes') AS now \gset
CALL eventually('SELECT eros.get(''memory'', 1)', '"3MB"', 'a handler is called with the memory of eros.work_mem');
CALL eventually('SELECT eros.get(''own'', 1)', '"16MB"', 'or with its own');
SET work_mem = '2MB';
SELECT is(eros.run_now('memory', 2), '"2MB"', 'run_now leaves the session''s setting alone');

\ir include/end.sql
