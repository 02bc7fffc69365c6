#variable_conflict use_column
DECLARE
  v_done boolean;
BEGIN
  -- One array that is read from its beginning: its order is that of the ids.
  WITH written AS (
    INSERT INTO hawser_data.queue (topic, recipient, role, role_id, rank, id, key, origin, to_all, payload, headers)
    SELECT p_topic, CASE p_priority WHEN 0 THEN p_recipient ELSE @QueueConstants.priority_mark@ || p_recipient END, p_role, to_regrole(quote_ident(p_role))::oid::bigint,
           n.id - (p_priority::bigint << @QueueConstants.id_bits@), n.id, p_key, p_origin, p_to_all, n.payload, p_headers
      FROM (SELECT nextval('hawser_data.outbox_id_seq') AS id, p.payload FROM unnest(p_payloads) AS p (payload)) AS n
    RETURNING id
  )
  SELECT coalesce(array_agg(w.id ORDER BY w.id), '{}') INTO ids FROM written AS w;
  -- Behind the insert, by which the transaction has an id: a worker that begins to wait now sees that it is open.
  v_done := hawser.wake_topics(ARRAY[p_topic]);
END
