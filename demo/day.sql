-- A day of the community, from six to six, in a minute, and an evening: who comes when, and the application
-- that plays it.
CREATE SCHEMA demo;
GRANT USAGE ON SCHEMA demo, dating TO app;
GRANT INSERT ON dating.likes TO app;

-- One row for each 20 ms of the play, the evening's before 0: the members who do something then, and those
-- among them who just come.
CREATE TABLE demo.moment (
  ms integer PRIMARY KEY,
  members bigint[] NOT NULL,
  coming bigint[] NOT NULL);
CREATE TABLE demo.day (begun_at timestamptz); -- of the second one
GRANT SELECT ON demo.moment TO app;
GRANT INSERT ON demo.day TO app;

-- Every sixteenth member comes today, some of them again and again, most in the evening; he stays for 4
-- to 30 minutes and does something every 45 seconds.
WITH hour AS (
  SELECT hour, sum(visits) OVER w - visits AS lower, sum(visits) OVER w AS upper, visits
  FROM unnest('{6,12,12,8,6,8,14,12,8,8,10,14,16,18,20,20,16,10,4,2,1,1,1,1}'::float8[])
    WITH ORDINALITY AS h (visits, hour)
  WINDOW w AS (ORDER BY hour)
), visit AS (
  SELECT member_id, visit,
    60 * (hour - 1 + (chance - lower) / visits) AS comes,
    4 + 26 * dating.roll(member_id, 400 + visit) ^ 2 AS stays
  FROM (
    SELECT member_id, visit, dating.roll(member_id, 500 + visit) * (SELECT max(upper) FROM hour) AS chance
    FROM dating.member, generate_series(1, 1 + floor(2.5 * dating.roll(member_id, 21))::integer) AS visit
    WHERE dating.roll(member_id, 20) < 0.06) AS v
  JOIN hour ON chance >= lower AND chance < upper
), touch AS (
  SELECT member_id, n, comes + 0.75 * (n - 1 + dating.roll(member_id, 600 + 50 * visit + n) / 2) AS minute
  FROM visit, generate_series(1, 1 + floor(stays / 0.75)::integer) AS n)
INSERT INTO demo.moment
SELECT ms, array_agg(DISTINCT member_id),
  coalesce(array_agg(DISTINCT member_id) FILTER (WHERE n = 1), '{}')
FROM (SELECT member_id, n, 20 * floor(minute * 60000 / :speed / 20)::integer AS ms FROM touch) AS t
WHERE ms < 86400000 / :speed
GROUP BY ms;

-- All of them have been here twice on the evening before, each time for a moment: so the first day begins as
-- any other does, with results in the cache that have been overwritten before.
INSERT INTO demo.moment
SELECT ms, array_agg(DISTINCT member), array_agg(DISTINCT member)
FROM (SELECT DISTINCT member, 20 * floor(-750 * (visit + dating.roll(member, 22 + visit)))::integer AS ms
      FROM demo.moment, unnest(coming) AS member, generate_series(0, 1) AS visit) AS t
GROUP BY ms;

-- The application: records what members do; shows to those who come what EROS has for them; every
-- third of them likes the one at the top of his matches. It plays the moments from first_ms on, the
-- first one at begin_at.
CREATE PROCEDURE demo.play(begin_at timestamptz, first_ms integer, last_ms integer) LANGUAGE plpgsql AS $$
DECLARE
  now_playing record;
BEGIN
  FOR now_playing IN SELECT * FROM demo.moment WHERE ms >= first_ms AND ms < last_ms ORDER BY ms LOOP
    PERFORM pg_sleep((now_playing.ms - first_ms) / 1000.0 - extract(epoch FROM clock_timestamp() - begin_at));
    PERFORM eros_touch(now_playing.members);
    PERFORM eros.get('who_liked_you', m), eros.get('candidates', m) FROM unnest(now_playing.coming) AS m;
    INSERT INTO dating.likes
    WITH page AS MATERIALIZED (
      SELECT m, eros.get('matches', m) AS matches FROM unnest(now_playing.coming) AS m)
    SELECT m, (matches -> 0 ->> 'member')::bigint, clock_timestamp()
    FROM page WHERE m % 3 = 0 AND matches IS NOT NULL
    ON CONFLICT DO NOTHING;
    COMMIT;
  END LOOP;
END $$;

CREATE PROCEDURE demo.play_evening(begin_at timestamptz) LANGUAGE plpgsql AS $$
BEGIN
  CALL demo.play(begin_at, -30000, 0);
END $$;

-- Two days, each like the other.
CREATE PROCEDURE demo.play_days(begin_at timestamptz) LANGUAGE plpgsql AS $$
DECLARE
  second_day CONSTANT timestamptz := begin_at + interval '1 minute';
BEGIN
  INSERT INTO demo.day VALUES (second_day);
  CALL demo.play(begin_at, 0, 60000);
  CALL demo.play(second_day, 0, 60000);
END $$;
GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA demo TO app;
