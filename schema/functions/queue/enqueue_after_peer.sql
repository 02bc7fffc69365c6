#variable_conflict use_column
DECLARE
  v_role CONSTANT text := coalesce(nullif(current_setting('role'), 'none'), session_user);
  v_role_id CONSTANT bigint := to_regrole(quote_ident(v_role))::oid::bigint;
  -- The numbers that were given, those by which they are awaited, and where the rows are.
  v_queued bigint[];
  v_awaited bigint[];
  v_tids tid[];
  v_missing bigint;
BEGIN
  IF cardinality(p_after) = 0 THEN
    id := (hawser.enqueue_peer(p_topic, ARRAY[p_payload], p_headers, p_key, p_message_id, NULL, p_deliver_at, p_to_all, p_origin, p_priority))[1];
    RETURN;
  END IF;
  PERFORM hawser.check_due('hawser.enqueue_after', p_deliver_at);
  -- None of them begins, or becomes due, before this transaction ends. Others may come after them, too. What a worker has is not locked: that
  -- would hold up the worker. With the same worker as before it was not taken.
  PERFORM FROM hawser_data.queue AS q
    WHERE q.id = ANY (p_after) AND q.role = v_role AND q.role_id = v_role_id AND @is_later_job(q)@ ORDER BY q.id FOR KEY SHARE;
  WITH found AS MATERIALIZED (
    SELECT q.id, q.topic, q.recipient, q.rank, q.worker
      FROM (SELECT DISTINCT unnest(p_after) AS id) AS g
     CROSS JOIN LATERAL (
       SELECT o.* FROM hawser_data.queue AS o
        WHERE o.id = g.id AND o.role = v_role AND o.role_id = v_role_id AND NOT o.to_all AND o.later IS DISTINCT FROM 'nats' OFFSET 0
     ) AS q
  ), locked AS MATERIALIZED (
    SELECT q.id, coalesce(q.awaited_as, q.id) AS awaited_as, q.tid
      FROM (SELECT f.* FROM found AS f WHERE @is_free(f)@ ORDER BY f.rank) AS f
     CROSS JOIN LATERAL (
       SELECT o.id, o.awaited_as, o.ctid AS tid FROM hawser_data.queue AS o
        WHERE o.topic = f.topic AND o.recipient = f.recipient AND o.role = v_role AND o.rank = f.rank AND o.worker IS NOT DISTINCT FROM f.worker
          FOR KEY SHARE
     ) AS q
  )
  SELECT array_agg(l.id), array_agg(l.awaited_as), array_agg(l.tid) INTO v_queued, v_awaited, v_tids FROM locked AS l;
  SELECT g.id INTO v_missing
    FROM (SELECT unnest(p_after) AS id EXCEPT SELECT unnest(v_queued)) AS g ORDER BY g.id LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('not_waiting'),
      MESSAGE = format('the message %s does not wait: none can come after it', v_missing),
      HINT = 'Name messages that this role has enqueued in this transaction, or that wait: no process has taken them, and they are not for all.';
  END IF;
  -- Of several that come after one, the first has marked it.
  UPDATE hawser_data.queue AS q SET awaited_as = q.id WHERE q.ctid = ANY (v_tids) AND q.awaited_as IS NULL;

  id := (hawser.enqueue_peer(
    p_topic, ARRAY[p_payload], p_headers, p_key, p_message_id, NULL, greatest(p_deliver_at, clock_timestamp() + interval '1 hour'), p_to_all, p_origin,
    p_priority
  ))[1];
  -- What ends it ends what holds it, too, as if others came after it.
  UPDATE hawser_data.queue AS q SET later = 'held', later_xid = NULL, due_at = p_deliver_at, awaited_as = q.id WHERE q.id = enqueue_after_peer.id;
  INSERT INTO hawser_data.flow_edges (before_id, after_id, cancels)
  SELECT DISTINCT b.id, enqueue_after_peer.id, coalesce(p_cancels, false) FROM unnest(v_awaited) AS b (id);
END
