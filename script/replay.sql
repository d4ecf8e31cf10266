-- The tables and the player of script/replay. kind: the users' type; handlers: a file that adds handlers.
CREATE EXTENSION eros;
CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
CREATE SCHEMA replay;
CREATE UNLOGGED TABLE replay.event (user_id :kind NOT NULL, at double precision NOT NULL);
CREATE UNLOGGED TABLE replay.moment (ms bigint, users :kind[]);
CREATE TABLE replay.phase AS SELECT * FROM eros.phase;
CREATE TABLE replay.played (
  speed integer, first_at double precision, last_at double precision,
  touch_time interval, max_late interval, max_active bigint);

\if :{?handlers}
  \i :handlers
\else
  CREATE FUNCTION replay.nothing(user_ids :kind[]) RETURNS TABLE (user_id :kind, value jsonb)
  LANGUAGE sql AS $$ SELECT u, '{}'::jsonb FROM unnest(user_ids) AS u $$;
  SELECT eros.add_handler('nothing_' || phase, 'replay.nothing', phase => phase) FROM eros.phase ORDER BY phase;
\endif

-- Makes ready: time passes so many times faster (NULL: so that it takes a minute), for the phases, too.
CREATE FUNCTION replay.prepare(INOUT speed integer, OUT first_at double precision, OUT seconds double precision)
LANGUAGE plpgsql AS $$
DECLARE
  last_at double precision;
BEGIN
  SELECT min(at), max(at) INTO first_at, last_at FROM replay.event;
  speed := coalesce(speed, greatest(1, ceil((last_at - first_at) / 60)));
  UPDATE eros.phase SET idle_after = idle_after / speed;
  INSERT INTO replay.moment
  SELECT floor((at - first_at) * 1000 / speed), array_agg(user_id ORDER BY at) FROM replay.event GROUP BY 1;
  CREATE INDEX ON replay.moment (ms);
  ANALYZE replay.event, replay.moment;
  INSERT INTO replay.played VALUES (speed, first_at, last_at);
  -- the last user of all crosses the last threshold after his last event
  seconds := (last_at - first_at + (SELECT extract(epoch FROM max(idle_after)) FROM replay.phase)) / speed;
END $$;

-- Plays the log: what happened within a millisecond of the play is one call.
CREATE PROCEDURE replay.play(begin_at timestamptz) LANGUAGE plpgsql AS $$
DECLARE
  moment record;
  due timestamptz;
  started timestamptz;
  late interval := '0';
  touching interval := '0';
  sampled timestamptz := begin_at;
  most_active bigint := 0;
BEGIN
  FOR moment IN SELECT * FROM replay.moment ORDER BY ms LOOP
    due := begin_at + moment.ms * interval '1 ms';
    PERFORM pg_sleep(extract(epoch FROM due - clock_timestamp()));
    started := clock_timestamp();
    PERFORM eros_touch(moment.users);
    touching := touching + (clock_timestamp() - started);
    late := greatest(late, started - due);
    IF started > sampled + interval '50 ms' THEN
      sampled := started;
      most_active := greatest(most_active, (SELECT active_users FROM eros.database_info()));
    END IF;
    COMMIT;
  END LOOP;
  UPDATE replay.played SET touch_time = touching, max_late = late, max_active = most_active;
  COMMIT;
  PERFORM pg_sleep(1.1 * extract(epoch FROM max(idle_after))) FROM eros.phase;
  -- let the workers finish, within reason
  FOR i IN 1..100 LOOP
    EXIT WHEN (SELECT jobs_pending = 0 AND active_users = 0 FROM eros.status);
    PERFORM pg_sleep(0.1);
    COMMIT;
  END LOOP;
END $$;
