-- The player of script/pictures: the demo's community, a minute at a time, with the time of EROS moved.

-- Plays so many hours from six in the morning on; each day is like the other. A minute ends when its sample is
-- taken and the queue is short, or after a while: so most work is done in its minute, as in life.
CREATE PROCEDURE demo.play_minutes(hours integer) LANGUAGE plpgsql AS $$
DECLARE
  now_playing record;
  deadline timestamptz;
BEGIN
  PERFORM eros.freeze_clock();
  PERFORM eros.advance_clock(date_trunc('day', eros.now()) + interval '30 hours' - eros.now());
  FOR now_playing IN
    SELECT t.minute, m.members, m.coming
    FROM generate_series(0, hours * 60 - 1) AS t (minute)
    LEFT JOIN (
      SELECT floor(ms / 1000)::integer AS minute,
        array(SELECT DISTINCT x FROM unnest(string_to_array(string_agg(array_to_string(members, ','), ','), ',')::bigint[]) AS x) AS members,
        array(SELECT DISTINCT x FROM unnest(string_to_array(string_agg(nullif(array_to_string(coming, ','), ''), ','), ',')::bigint[]) AS x) AS coming
      FROM demo.moment WHERE ms >= 0 GROUP BY 1) AS m ON m.minute = t.minute % 1440
    ORDER BY t.minute
  LOOP
    PERFORM eros_touch(coalesce(now_playing.members, '{}'));
    PERFORM eros.get('who_liked_you', m), eros.get('candidates', m), eros.get('matches', m)
    FROM unnest(now_playing.coming) AS m;
    COMMIT;
    PERFORM eros.advance_clock('1 minute');
    COMMIT;
    deadline := clock_timestamp() + interval '400 ms';
    LOOP
      EXIT WHEN clock_timestamp() > deadline;
      PERFORM pg_sleep(0.005);
      EXIT WHEN (SELECT max(h.sampled_at) >= date_trunc('minute', eros.now()) FROM eros.history_ring h WHERE h.span_s = 60)
        AND (SELECT sum(jobs_pending) < 20 FROM eros.status_handler);
      COMMIT;
    END LOOP;
    COMMIT;
  END LOOP;
END $$;
