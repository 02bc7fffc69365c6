#variable_conflict use_column
DECLARE
  -- Messages whose copies are made.
  v_tids CONSTANT tid[] := ARRAY(SELECT q.ctid FROM hawser_data.queue AS q WHERE q.ctid = ANY (p_tids) AND @is_for_all(q)@);
  v_keys CONSTANT jsonb := (SELECT jsonb_agg(@marks_of(q)@) FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids) AND q.key IS NOT NULL);
  v_done boolean;
BEGIN
  tids := ARRAY(SELECT t.tid FROM unnest(p_tids) AS t (tid) WHERE t.tid <> ALL (v_tids));
  -- Of a long message as many copies as a take may bring, so that it ends in its time: the next take makes others.
  WITH copies AS MATERIALIZED (
    SELECT s.*, r.recipient AS for_recipient, row_number() OVER (PARTITION BY s.tid ORDER BY r.recipient) <= greatest(1, p_max_bytes / greatest(1, s.bytes)) AS is_made
      FROM (SELECT q.ctid AS tid, @memory_bytes(q)@ AS bytes, q.* FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids)) AS s
      JOIN unnest(p_topics, p_recipients) AS r (topic, recipient) ON r.topic = s.topic AND (s.copied_upto IS NULL OR r.recipient > s.copied_upto)
  ), goes_on AS MATERIALIZED (
    UPDATE hawser_data.queue AS q SET copied_upto = c.upto
      FROM (SELECT n.tid, max(n.for_recipient) FILTER (WHERE n.is_made) AS upto FROM copies AS n GROUP BY 1 HAVING NOT bool_and(n.is_made)) AS c
     WHERE q.ctid = c.tid
    RETURNING c.tid, q.topic, q.recipient, q.role, q.rank
  ), ended AS (
    DELETE FROM hawser_data.queue AS q WHERE q.ctid = ANY (v_tids) AND q.ctid NOT IN (SELECT g.tid FROM goes_on AS g)
  ), made AS (
    INSERT INTO hawser_data.queue (topic, recipient, role, role_id, rank, id, key, origin, to_all, enqueued_at, payload, headers)
    SELECT c.topic, c.recipient || c.for_recipient, c.role, c.role_id, c.next_id + (c.rank >> @QueueConstants.id_bits@ << @QueueConstants.id_bits@), c.next_id, c.key, c.origin, true, c.enqueued_at, c.payload, c.headers
      FROM (SELECT n.*, nextval('hawser_data.outbox_id_seq') AS next_id FROM copies AS n WHERE n.is_made ORDER BY n.rank, n.for_recipient) AS c
  )
  SELECT array_agg(CASE WHEN g.rank <= u.upto THEN g.rank - 1 ELSE u.upto END ORDER BY u.nth), coalesce(bool_or(g.rank IS NOT NULL), false)
    INTO upto, has_more
    FROM unnest(p_looked_topics, p_looked_recipients, p_looked_roles, p_looked_upto) WITH ORDINALITY AS u (topic, recipient, role, upto, nth)
    LEFT JOIN LATERAL (SELECT min(o.rank) AS rank FROM goes_on AS o WHERE o.topic = u.topic AND o.recipient = u.recipient AND o.role = u.role) AS g ON true;
  v_done := hawser.wake_topics(ARRAY(SELECT DISTINCT u.topic FROM unnest(p_topics) AS u (topic)));
  IF v_keys IS NOT NULL THEN
    v_done := hawser.pass_keys(v_keys);
  END IF;
END
