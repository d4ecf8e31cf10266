-- What every file begins with: quick settings, and what the tests share.
--
-- The scheduler and the workers do their part in the background: a test waits for it with
-- CALL eventually(query, expected, description), which polls for three minutes at most and then asserts.

\set QUIET 1
\pset format unaligned
\pset tuples_only on
-- what other files have left
SELECT format('DROP ROLE %I', rolname) FROM pg_roles WHERE rolname LIKE 'test\_%' \gexec
ALTER SYSTEM RESET ALL;
ALTER SYSTEM SET eros.retry_delay = '10ms';
ALTER SYSTEM SET eros.worker_idle_timeout = '200ms';
\ir reload.sql

CREATE SCHEMA t;
GRANT USAGE ON SCHEMA t TO PUBLIC;

-- Polls until a query gives the expected value (as text), then asserts that it did; a line of TAP.
CREATE PROCEDURE t.eventually(query text, expected text, description text, INOUT result text DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
  deadline timestamptz := clock_timestamp() + interval '180 seconds';
  got text;
BEGIN
  LOOP
    EXECUTE query INTO got;
    EXIT WHEN got IS NOT DISTINCT FROM expected OR clock_timestamp() > deadline;
    COMMIT; -- holds no lock and no snapshot while it waits
    PERFORM pg_sleep(0.01);
  END LOOP;
  result := public.is(got, expected, description);
END $$;

-- Tells a statement's error, a cancelled query's too, which throws_ok() does not catch.
CREATE FUNCTION t.error_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE statement;
  RETURN NULL;
EXCEPTION WHEN OTHERS OR query_canceled THEN
  RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

-- The handler of most tests: who called it, and for whom, is kept in t.call.
CREATE TABLE t.call (user_id bigint, batch bigint, pid integer DEFAULT pg_backend_pid());
CREATE SEQUENCE t.batch;
CREATE FUNCTION t.echo(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql SET search_path = t, pg_temp AS $$
  WITH this AS MATERIALIZED (SELECT nextval('batch') AS batch),
    noted AS (INSERT INTO call (user_id, batch) SELECT u, this.batch FROM unnest(user_ids) AS u, this)
  SELECT u, jsonb_build_object('user', u, 'batch', this.batch) FROM unnest(user_ids) AS u, this
$$;

-- A clock that another file has stopped
SELECT FROM eros.thaw_clock();

-- Phases without CPU shares to wait for.
UPDATE eros.phase SET cpu_percent = 95;
