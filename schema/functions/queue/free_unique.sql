DECLARE
  v_messages CONSTANT jsonb := CASE
    WHEN p_messages IS NOT NULL THEN p_messages
    ELSE (
      SELECT jsonb_agg(jsonb_build_array(l.role, l.topic, l.unique_key, l.id))
        FROM (
          -- Some of each role: one whose keys are locked for long hides nothing of others.
          SELECT e.*
            FROM (
              SELECT o.id FROM hawser_data.unique_ends AS o ORDER BY row_number() OVER (PARTITION BY o.role ORDER BY random()) LIMIT 1000
            ) AS n
            JOIN hawser_data.unique_ends AS e USING (id) FOR UPDATE OF e SKIP LOCKED
        ) AS l
    )
  END;
BEGIN
  DELETE FROM hawser_data.unique_locks AS l
   WHERE l.id = ANY (ARRAY(
     SELECT o.id FROM jsonb_array_elements(v_messages) AS m (of) JOIN hawser_data.unique_locks AS o ON o.id = (m.of ->> 3)::bigint
        FOR UPDATE OF o SKIP LOCKED
   ));
  WITH locked AS MATERIALIZED (
    SELECT u.role, u.topic, u.unique_key
      FROM jsonb_array_elements(v_messages) AS m (of)
      JOIN hawser_data.unique_keys AS u
        ON u.role = m.of ->> 0 AND u.topic = m.of ->> 1 AND u.unique_key = m.of ->> 2 AND u.id = (m.of ->> 3)::bigint
       FOR UPDATE OF u SKIP LOCKED
  )
  DELETE FROM hawser_data.unique_keys AS u USING locked AS l WHERE u.role = l.role AND u.topic = l.topic AND u.unique_key = l.unique_key;
  -- What a transaction has locked that enqueues with the key is looked at again, with the beats of workers.
  WITH given AS MATERIALIZED (
    SELECT DISTINCT (m.of ->> 3)::bigint AS id, m.of ->> 0 AS role, m.of ->> 1 AS topic, m.of ->> 2 AS unique_key
      FROM jsonb_array_elements(v_messages) AS m (of) WHERE m.of ->> 2 IS NOT NULL
  ), met AS MATERIALIZED (
    SELECT g.*, EXISTS (SELECT FROM hawser_data.unique_locks AS l WHERE l.id = g.id) OR EXISTS (
             SELECT FROM hawser_data.unique_keys AS u
              WHERE u.role = g.role AND u.topic = g.topic AND u.unique_key = g.unique_key AND u.id = g.id
           ) AS is_left
      FROM given AS g
  ), noted AS (
    INSERT INTO hawser_data.unique_ends (id, role, topic, unique_key)
    SELECT m.id, m.role, m.topic, m.unique_key FROM met AS m WHERE p_messages IS NOT NULL AND m.is_left
    ON CONFLICT DO NOTHING
  )
  DELETE FROM hawser_data.unique_ends AS e USING met AS m WHERE p_messages IS NULL AND e.id = m.id AND NOT m.is_left;
  freed := true;
END
