#variable_conflict use_column
DECLARE
  v_topics text[];
BEGIN
  -- Of a key whose first one is not behind another, that one's end will call this again. What another transaction has locked is left.
  WITH keys AS MATERIALIZED (
    SELECT DISTINCT m.of ->> 1 AS topic, m.of ->> 5 AS recipient, m.of ->> 0 AS role, m.of ->> 6 AS key
      FROM jsonb_array_elements(p_messages) AS m (of) WHERE m.of ->> 6 IS NOT NULL
  ), next AS MATERIALIZED (
    SELECT n.tid
      FROM keys AS k
     CROSS JOIN LATERAL (
       SELECT q.behind FROM hawser_data.queue AS q
        WHERE q.topic = k.topic AND q.recipient = k.recipient AND q.role = k.role AND q.key = k.key ORDER BY q.rank LIMIT 1
     ) AS f
     CROSS JOIN LATERAL (
       SELECT q.ctid AS tid FROM hawser_data.queue AS q
        WHERE q.topic = k.topic AND q.behind = @QueueConstants.behind_key@ || k.key AND q.recipient = k.recipient AND q.role = k.role
        ORDER BY q.rank LIMIT @QueueConstants.key_run@ FOR UPDATE SKIP LOCKED
     ) AS n
     WHERE f.behind = @QueueConstants.behind_key@ || k.key
  ), written AS (
    UPDATE hawser_data.queue AS q SET behind = NULL FROM next AS n WHERE q.ctid = n.tid RETURNING q.topic
  )
  SELECT array_agg(DISTINCT w.topic) INTO v_topics FROM written AS w;
  passed := v_topics IS NOT NULL AND hawser.wake_topics(v_topics);
END
