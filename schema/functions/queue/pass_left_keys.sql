#variable_conflict use_column
DECLARE
  v_topic text := '';
  v_behind text := @QueueConstants.behind_key@;
  v_recipient text := '';
  v_role text := '';
  v_left jsonb;
BEGIN
  IF NOT EXISTS (SELECT FROM hawser_data.queue AS q WHERE q.behind IS NOT NULL) THEN
    RETURN;
  END IF;
  -- From the first one on, or from any.
  IF random() < 0.5 THEN
    SELECT q.topic, coalesce(q.behind, @QueueConstants.behind_key@ || q.key, ''), q.recipient, q.role INTO v_topic, v_behind, v_recipient, v_role FROM hawser_data.queue AS q
     WHERE q.id >= (SELECT min(o.id) + (max(o.id) - min(o.id)) * random() FROM hawser_data.queue AS o)::bigint
     ORDER BY q.id LIMIT 1;
  END IF;
  WITH RECURSIVE keys AS (
    (
      SELECT q.topic, q.behind, q.recipient, q.role, q.key, 1 AS nth FROM hawser_data.queue AS q
       WHERE q.behind IS NOT NULL AND (q.topic, q.behind, q.role, q.recipient) >= (v_topic, v_behind, v_role, v_recipient)
       ORDER BY q.topic, q.behind, q.role, q.recipient LIMIT 1
    )
    UNION ALL
    SELECT n.*, k.nth + 1
      FROM keys AS k
     CROSS JOIN LATERAL (
       SELECT q.topic, q.behind, q.recipient, q.role, q.key FROM hawser_data.queue AS q
        WHERE q.behind IS NOT NULL AND (q.topic, q.behind, q.role, q.recipient) > (k.topic, k.behind, k.role, k.recipient)
        ORDER BY q.topic, q.behind, q.role, q.recipient LIMIT 1
     ) AS n
     WHERE k.nth < 100
  ), idle AS MATERIALIZED (
    SELECT n.tid
      FROM keys AS k
     CROSS JOIN LATERAL (
       SELECT q.ctid AS tid FROM hawser_data.queue AS q
        WHERE q.topic = k.topic AND q.behind = k.behind AND q.role = k.role AND q.recipient = k.recipient ORDER BY q.rank LIMIT 1 FOR UPDATE SKIP LOCKED
     ) AS n
     WHERE starts_with(k.behind, @QueueConstants.behind_limit@) AND NOT EXISTS (
       SELECT FROM hawser_data.topic_starts AS s WHERE s.topic = k.topic AND s.role = k.role AND @QueueConstants.behind_limit@ || s.limit_key = k.behind
     )
  ), written AS (
    UPDATE hawser_data.queue AS q SET behind = NULL FROM idle AS i WHERE q.ctid = i.tid
  )
  SELECT jsonb_agg(jsonb_build_array(k.role, k.topic, NULL, NULL, NULL, k.recipient, k.key)) INTO v_left
    FROM keys AS k
   WHERE starts_with(k.behind, @QueueConstants.behind_key@) AND k.behind = (
     SELECT q.behind FROM hawser_data.queue AS q
      WHERE q.topic = k.topic AND q.recipient = k.recipient AND q.role = k.role AND q.key = k.key ORDER BY q.rank LIMIT 1
   );
  IF v_left IS NOT NULL THEN
    passed := hawser.pass_keys(v_left);
  END IF;
END
