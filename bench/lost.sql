-- A handler for each phase, about half a millisecond a user.
CREATE FUNCTION replay.work(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
LANGUAGE sql AS $$
  SELECT u, to_jsonb((SELECT sum(s * u) FROM generate_series(1, 4000) AS s)) FROM unnest(user_ids) AS u
$$;
SELECT eros.add_handler('work_' || phase, 'replay.work', phase => phase) FROM eros.phase ORDER BY phase;
