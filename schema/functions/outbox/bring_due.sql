#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  v_next timestamptz;
BEGIN
  -- Those that a session is about to cancel are left: waiting for them would hold up the others.
  WITH due AS (
    SELECT l.id FROM hawser_data.outbox_later AS l
     WHERE l.kind = p_kind AND l.deliver_at >= p_from AND l.deliver_at <= v_now
     ORDER BY l.deliver_at, l.id
     LIMIT 1000
       FOR UPDATE SKIP LOCKED
  ), gone AS (
    DELETE FROM hawser_data.outbox_later AS l USING due AS d WHERE l.id = d.id RETURNING l.*
  )
  INSERT INTO hawser_data.outbox
    (segment, destination, payload, headers, key, message_id, to_stream, domain, listener, to_all, origin, role, cluster, first_enqueued_at)
  SELECT CASE p_kind
           WHEN 'nats' THEN (s.last_value - 1) % @OutboxConstants.segments@
           ELSE @OutboxConstants.segments@ + (p.last_value - 1) % @OutboxConstants.segments@
         END,
         g.destination, g.payload, g.headers, g.key, g.message_id, g.to_stream, g.domain, g.listener, g.to_all, g.origin, g.role, c.cluster,
         CASE WHEN p_kind = 'nats' THEN g.deliver_at END
    FROM gone AS g, hawser_data.outbox_state_segment_seq AS s, hawser_data.outbox_state_peer_segment_seq AS p,
         hawser.present_cluster() AS c (cluster)
   ORDER BY g.deliver_at, g.id;
  GET DIAGNOSTICS brought = ROW_COUNT;

  SELECT min(l.deliver_at) INTO due_from FROM hawser_data.outbox_later AS l WHERE l.kind = p_kind AND l.deliver_at >= p_from;
  due_in_ms := CASE
    WHEN brought = 1000 THEN 0
    ELSE ceil(extract(epoch FROM due_from - clock_timestamp()) * 1000)
  END;
  IF due_from <= v_now AND brought < 1000 THEN
    SELECT min(l.deliver_at) INTO v_next FROM hawser_data.outbox_later AS l WHERE l.kind = p_kind AND l.deliver_at > v_now;
    due_in_ms := least(50, ceil(extract(epoch FROM v_next - clock_timestamp()) * 1000));
  END IF;
END
