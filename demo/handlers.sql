-- Three handlers as an application developer writes them, one a phase, of growing depth. Each takes a
-- batch of members and returns one value for each: here a list of other members to show to him.
-- Written so that the planner begins with the batch, member_id = ANY (user_ids), and names with their
-- schema in place of a search_path of the function's: so PostgreSQL takes the function's query into that
-- of the call, whose plan a worker keeps, instead of planning it in each call.
SET ROLE dating;

-- Phase 1, a glance: who likes him and has had no answer, the latest first.
CREATE FUNCTION dating.who_liked_you(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql STABLE AS $$
  SELECT me.member_id, jsonb_agg(jsonb_build_object(
      'member', f.member_id, 'name', f.name, 'age', f.age, 'city', city.name, 'liked_at', l.liked_at)
    ORDER BY l.liked_at DESC)
  FROM unnest(user_ids) AS me (member_id)
  CROSS JOIN LATERAL (
    SELECT l.liker, l.liked_at FROM dating.likes AS l
    WHERE l.liked = me.member_id
      AND NOT EXISTS (SELECT FROM dating.likes AS mine WHERE mine.liker = me.member_id AND mine.liked = l.liker)
    ORDER BY l.liked_at DESC LIMIT 20) AS l
  JOIN dating.member AS f ON f.member_id = l.liker
  JOIN dating.city USING (city_id)
  GROUP BY me.member_id
$$;

-- Phase 2, a search: who shares interests with him in his city, and friends of friends: those whom
-- others like who like the same people as he does.
CREATE FUNCTION dating.candidates(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql STABLE AS $$
  SELECT me.member_id, jsonb_agg(jsonb_build_object(
      'member', c.member_id, 'name', c.name, 'age', c.age, 'city', city.name,
      'shared_interests', c.shared, 'through_friends', c.friends)
    ORDER BY c.points DESC, c.member_id)
  FROM dating.member AS me
  CROSS JOIN LATERAL (
    SELECT f.member_id, f.name, f.age, f.city_id, shared, friends, shared + 2 * ln(1 + friends) AS points
    FROM (
      SELECT member_id, sum(shared) AS shared, sum(friends) AS friends
      FROM (
        SELECT theirs.member_id, 1 AS shared, 0 AS friends
        FROM dating.member_interest AS mine
        JOIN dating.member_interest AS theirs USING (interest_id)
        JOIN dating.member AS f ON f.member_id = theirs.member_id
        WHERE mine.member_id = me.member_id AND f.city_id = me.city_id AND f.sex = ANY (me.seeks)
        UNION ALL
        SELECT theirs.liked, 0, 1
        FROM (SELECT liked FROM dating.likes WHERE liker = me.member_id ORDER BY liked_at DESC LIMIT 8) AS mine
        CROSS JOIN LATERAL (
          SELECT liker FROM dating.likes WHERE liked = mine.liked ORDER BY liked_at DESC LIMIT 8) AS friend
        CROSS JOIN LATERAL (
          SELECT liked FROM dating.likes WHERE liker = friend.liker ORDER BY liked_at DESC LIMIT 8) AS theirs) AS found
      GROUP BY member_id) AS found
    JOIN dating.member AS f USING (member_id)
    WHERE f.sex = ANY (me.seeks) AND abs(f.age - me.seeks_age) <= me.give_or_take
      AND me.sex = ANY (f.seeks) AND abs(me.age - f.seeks_age) <= f.give_or_take
      AND f.member_id <> me.member_id
      AND f.member_id <> ALL (ARRAY(SELECT liked FROM dating.likes WHERE liker = me.member_id))
    ORDER BY points DESC, f.member_id LIMIT 30) AS c
  JOIN dating.city ON city.city_id = c.city_id
  WHERE me.member_id = ANY (user_ids)
  GROUP BY me.member_id
$$;

-- Phase 3, the whole: everybody in the community whom he would like and who would like him, ranked by
-- how much each appeals to the other.
CREATE FUNCTION dating.appeal(shared double precision, km double precision, years_off double precision)
RETURNS double precision LANGUAGE sql IMMUTABLE
AS 'SELECT 0.4 * (1 - 0.6 ^ shared) + 0.4 * exp(-km / 60) + 0.2 * exp(-years_off / 3)';

CREATE FUNCTION dating.matches(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql STABLE AS $$
  SELECT me.member_id, jsonb_agg(jsonb_build_object(
      'member', c.member_id, 'name', c.name, 'age', c.age, 'city', c.city,
      'shared_interests', c.shared, 'km', round(c.km), 'percent', round(100 * c.mutual))
    ORDER BY c.mutual DESC, c.member_id)
  FROM dating.member AS me
  JOIN dating.city AS home USING (city_id)
  CROSS JOIN LATERAL (
    SELECT f.member_id, f.name, f.age, city.name AS city, shared, km,
      sqrt(dating.appeal(shared, km, abs(f.age - me.seeks_age)) * dating.appeal(shared, km, abs(me.age - f.seeks_age))) AS mutual
    FROM dating.member AS f
    JOIN dating.city USING (city_id)
    LEFT JOIN (
      SELECT theirs.member_id, count(*) AS common
      FROM dating.member_interest AS mine
      JOIN dating.member_interest AS theirs USING (interest_id)
      WHERE mine.member_id = me.member_id
      GROUP BY theirs.member_id) AS i USING (member_id)
    CROSS JOIN LATERAL (
      SELECT coalesce(common, 0) AS shared,
        sqrt((city.x_km - home.x_km) ^ 2 + (city.y_km - home.y_km) ^ 2) AS km) AS d
    WHERE f.sex = ANY (me.seeks) AND abs(f.age - me.seeks_age) <= me.give_or_take
      AND me.sex = ANY (f.seeks) AND abs(me.age - f.seeks_age) <= f.give_or_take
      AND f.member_id <> me.member_id
      AND f.member_id <> ALL (ARRAY(SELECT liked FROM dating.likes WHERE liker = me.member_id))
    ORDER BY mutual DESC, f.member_id LIMIT 50) AS c
  WHERE me.member_id = ANY (user_ids)
  GROUP BY me.member_id
$$;
SELECT eros.add_handler('who_liked_you', 'dating.who_liked_you', phase => 1);
SELECT eros.add_handler('candidates', 'dating.candidates', phase => 2);
SELECT eros.add_handler('matches', 'dating.matches', phase => 3);
RESET ROLE;
