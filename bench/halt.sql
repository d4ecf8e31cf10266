-- Halts a worker many times and looks from outside when its transaction is gone: when the lock is free
-- that it took for the user.
CREATE TABLE halt (ms double precision NOT NULL);

CREATE PROCEDURE halt_often(rounds integer, within_ms double precision, spin_ms double precision) LANGUAGE plpgsql AS $$
DECLARE
  held bigint;
  began timestamptz;
  halted integer := 0;
BEGIN
  WHILE halted < rounds LOOP
    LOOP
      SELECT objid INTO held FROM pg_locks
      WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid() LIMIT 1;
      EXIT WHEN FOUND;
      PERFORM pg_sleep(0.001);
    END LOOP;
    PERFORM pg_sleep(within_ms / 1000 * random());
    IF NOT pg_try_advisory_lock(held) THEN
      began := clock_timestamp();
      PERFORM eros_touch(held);
      -- without a pause at first, so as to see it at once; then leave the CPU to the worker
      WHILE NOT pg_try_advisory_lock(held) LOOP
        IF clock_timestamp() > began + spin_ms * interval '1 ms' THEN
          PERFORM pg_sleep(0.001);
        END IF;
      END LOOP;
      INSERT INTO halt VALUES (1000 * extract(epoch FROM clock_timestamp() - began));
      halted := halted + 1;
    END IF;
    PERFORM pg_advisory_unlock(held);
    COMMIT;
  END LOOP;
END $$;
