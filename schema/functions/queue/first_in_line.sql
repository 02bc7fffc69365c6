#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_most integer := 100;
BEGIN
  IF p_topic IS NULL THEN
    PERFORM hawser.refuse_argument('hawser.why', 'id', 'NULL', 'must be the id of a message, unless a topic is named');
  END IF;
  LOOP
    -- As in `queue_places`. One of the first recipients is enough, of which a message for all makes as many as there are listeners.
    WITH RECURSIVE places AS (
      (
        SELECT q.recipient, q.role, 1 AS nth FROM hawser_data.queue AS q WHERE q.topic = p_topic ORDER BY q.recipient, q.role, q.rank LIMIT 1
      )
      UNION ALL
      SELECT n.recipient, n.role, p.nth + 1
        FROM places AS p
       CROSS JOIN LATERAL (
         SELECT q.recipient, q.role FROM hawser_data.queue AS q
          WHERE q.topic = p_topic AND (q.recipient, q.role) > (p.recipient, p.role) ORDER BY q.recipient, q.role, q.rank LIMIT 1
       ) AS n
       WHERE p.nth < v_most
    )
    -- Those that are not in line come last.
    SELECT f.id INTO id
      FROM places AS p
     CROSS JOIN LATERAL (
       (
         SELECT o.id, o.rank FROM hawser_data.queue AS o
          WHERE p_key IS NULL AND o.topic = p_topic AND o.recipient = p.recipient AND o.role = p.role AND @is_own(o)@ AND o.later IS DISTINCT FROM 'nats' ORDER BY o.rank LIMIT 1
       )
       UNION ALL
       (
         SELECT o.id, o.rank FROM hawser_data.queue AS o
          WHERE p_key IS NOT NULL AND o.topic = p_topic AND o.recipient = p.recipient AND o.key = p_key AND o.channel_id IS NULL AND o.role = p.role AND @is_own(o)@ AND o.later IS DISTINCT FROM 'nats' ORDER BY o.rank LIMIT 1
       )
     ) AS f
     -- Rows of others are not read, however many there are.
     WHERE v_roles IS NULL OR p.role = ANY (v_roles)
     ORDER BY @is_later(p)@, f.rank LIMIT 1;
    EXIT WHEN id IS NOT NULL OR v_most > 100;
    v_most := 1000000000;
  END LOOP;
  IF id IS NULL AND p_key IS NOT NULL THEN
    -- The key of what was sent is in its headers.
    SELECT q.id INTO id
      FROM hawser_peer_data.channels AS m
     CROSS JOIN LATERAL (SELECT o.* FROM hawser_data.queue AS o WHERE o.channel_id = m.channel_id OFFSET 0) AS q
     WHERE q.topic = p_topic AND @is_own(q)@ AND @user_key(q)@ = p_key
     ORDER BY q.rank LIMIT 1;
  END IF;
END
