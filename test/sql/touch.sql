-- eros_touch: who is active, without a trace in a table.
SELECT eros.sweep() IS NULL; -- who is active since before, stays so
SELECT active_users AS before FROM eros.status \gset
SELECT eros_touch(1001);
SELECT eros_touch('0190a2b4-0000-7000-8000-000000001001'::uuid);
SELECT eros_touch(ARRAY[1001, 1002, NULL, 1003]::bigint[]);
SELECT eros_touch(ARRAY['0190a2b4-0000-7000-8000-000000001002', NULL]::uuid[]);
SELECT active_users - :before AS active FROM eros.status;
-- NULL: nothing happens
SELECT eros_touch(NULL::bigint) IS NULL, eros_touch(NULL::uuid) IS NULL, eros_touch(NULL::bigint[]) IS NULL, eros_touch(NULL::text) IS NULL;
SELECT eros_touch('{}'::bigint[]), eros_touch(ARRAY[NULL]::uuid[]);
SELECT active_users - :before AS active FROM eros.status;
-- read-only, rolled back, in an aborted subtransaction
BEGIN READ ONLY;
SELECT eros_touch(1004);
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT eros_touch(1005);
ROLLBACK TO s;
COMMIT;
SELECT active_users - :before AS active FROM eros.status;
-- many at once, from a table
SELECT count(eros_touch(u)) FROM generate_series(2001, 3000) AS u;
SELECT active_users - :before AS active FROM eros.status;
SELECT count(*) AS rows FROM eros.activity WHERE eros.user_bigint(user_id) BETWEEN 1001 AND 3000;
