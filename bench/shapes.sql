-- Handlers of many shapes. Each computes something for every user of its batch; what is computed
-- depends on the user, so that nothing is computed once for all.
CREATE SCHEMA shape;

CREATE TABLE shape.item (id integer PRIMARY KEY, n integer NOT NULL, pad text NOT NULL);
INSERT INTO shape.item SELECT i, (i * 7919::bigint) % 500009, md5(i::text) FROM generate_series(1, 500000) AS i;
VACUUM ANALYZE shape.item;

-- Many short calls: about 1 ms a user.
CREATE FUNCTION shape.short(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql STABLE AS $$
  SELECT u, to_jsonb((SELECT sum(i.n) FROM shape.item AS i WHERE i.id > u % 400000 AND i.id <= u % 400000 + 5000))
  FROM unnest(user_ids) AS u
$$;

-- An aggregate with count(distinct), about 20 s a user: the sort is inside of the aggregate.
CREATE FUNCTION shape.aggregate(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql STABLE AS $$
  SELECT u, to_jsonb((SELECT count(DISTINCT md5(i.pad || k * u)) FROM shape.item AS i, generate_series(1, 12) AS k))
  FROM unnest(user_ids) AS u
$$;

-- A nested-loop join.
CREATE FUNCTION shape.nested_loop(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql STABLE SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
  SELECT u, to_jsonb((
    SELECT count(*) FROM shape.item AS a JOIN shape.item AS b ON b.id = (a.n + u) % 500000
    WHERE a.id <= 500000))
  FROM unnest(user_ids) AS u
$$;

-- A scan that filters everything away: one call of one executor node.
CREATE FUNCTION shape.filter(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql STABLE AS $$
  SELECT u, to_jsonb((SELECT count(*) FROM shape.item AS i WHERE md5(md5(i.pad || u)) = 'never'))
  FROM unnest(user_ids) AS u
$$;

-- A loop in PL/pgSQL.
CREATE FUNCTION shape.plpgsql(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE plpgsql STABLE AS $$
DECLARE
  u bigint;
  x bigint;
BEGIN
  FOREACH u IN ARRAY user_ids LOOP
    x := u;
    FOR i IN 1..10000000 LOOP
      x := (x * 31 + i) % 1000003;
    END LOOP;
    user_id := u;
    value := to_jsonb(x);
    RETURN NEXT;
  END LOOP;
END $$;

-- A big sort.
CREATE FUNCTION shape.sort(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql STABLE AS $$
  SELECT u, to_jsonb((SELECT t.key FROM (
    SELECT md5(i.pad || u) AS key FROM shape.item AS i ORDER BY 1 OFFSET 499000 LIMIT 1) AS t))
  FROM unnest(user_ids) AS u
$$;

-- The same with much memory, as its author has set it.
CREATE FUNCTION shape.sort_in_memory(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql STABLE SET work_mem = '64MB' AS $$
  SELECT u, to_jsonb((SELECT t.key FROM (
    SELECT md5(i.pad || u) AS key FROM shape.item AS i ORDER BY 1 OFFSET 499000 LIMIT 1) AS t))
  FROM unnest(user_ids) AS u
$$;

-- A set-returning function.
CREATE FUNCTION shape.series(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql STABLE AS $$
  SELECT u, to_jsonb((SELECT sum(s) FROM generate_series(u, u + 5000000) AS s))
  FROM unnest(user_ids) AS u
$$;

-- One user holds one lock, by which those outside see whom a worker is at.

-- A call within the quantum, some 60 ms.
CREATE FUNCTION shape.work_short(u bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  found bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(u);
  SELECT count(*) INTO found
  FROM shape.item AS a JOIN shape.item AS b ON b.id = (a.n + u) % 500000 WHERE a.id <= 40000;
  RETURN to_jsonb(found);
END $$;
ALTER FUNCTION shape.work_short SET enable_hashjoin = off;
ALTER FUNCTION shape.work_short SET enable_mergejoin = off;

-- A long sort for one user, a hash join for the next.
CREATE FUNCTION shape.work_long(u bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  found text;
BEGIN
  PERFORM pg_advisory_xact_lock(u);
  IF u % 2 = 0 THEN
    SELECT t.pad INTO found FROM (
      SELECT i.pad FROM shape.item AS i, generate_series(1, 4) ORDER BY 1 OFFSET 1999000 LIMIT 1) AS t;
  ELSE
    SELECT max(a.pad) INTO found
    FROM (SELECT i.id, i.pad FROM shape.item AS i, generate_series(1, 4)) AS a
    JOIN (SELECT i.id, i.pad FROM shape.item AS i, generate_series(1, 4)) AS b USING (pad);
  END IF;
  RETURN to_jsonb(found);
END $$;
ALTER FUNCTION shape.work_long SET enable_mergejoin = off;

CREATE FUNCTION shape.held_short(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS 'SELECT u, shape.work_short(u) FROM unnest(user_ids) AS u';
CREATE FUNCTION shape.held_long(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS 'SELECT u, shape.work_long(u) FROM unnest(user_ids) AS u';
