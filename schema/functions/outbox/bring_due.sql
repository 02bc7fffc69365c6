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
  ), gone AS MATERIALIZED (
    DELETE FROM hawser_data.outbox_later AS l USING due AS d WHERE l.id = d.id RETURNING l.*
  ), roles AS MATERIALIZED (
    SELECT d.*, hawser.role_fault(d.role, d.role_mark, p_kind) AS fault FROM (SELECT DISTINCT g.role, g.role_mark FROM gone AS g) AS d
  ), refused AS MATERIALIZED (
    SELECT g.*, r.fault FROM gone AS g JOIN roles AS r ON r.role = g.role AND r.role_mark IS NOT DISTINCT FROM g.role_mark
     WHERE r.fault IS NOT NULL
  ), dead AS (
    INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts, message_id, role, role_mark)
    SELECT CASE p_kind WHEN 'nats' THEN 'outbox' ELSE 'peer' END,
           CASE
             WHEN p_kind = 'peer' THEN concat_ws(':', @OutboxConstants.peer_sender@, @OutboxConstants.peer_sender@, r.listener)
             WHEN r.to_stream THEN coalesce(r.domain, '')
             ELSE 'core'
           END,
           r.destination, r.payload,
           CASE p_kind
             WHEN 'nats' THEN (
               SELECT jsonb_agg(jsonb_build_array(h.key, v.value))
                 FROM jsonb_each(r.headers) AS h,
                      jsonb_array_elements(CASE jsonb_typeof(h.value) WHEN 'array' THEN h.value ELSE jsonb_build_array(h.value) END) AS v
             )
             -- As in store_enqueued.
             ELSE jsonb_build_array(jsonb_build_array(
               @ProtocolConstants.message_origin_header@,
               coalesce(r.origin, ':') || ':' || regexp_replace(r.role, E'[\\x01-\\x1f\\x7f]', '?', 'g')
             )) || coalesce(r.headers, '[]')
           END,
           'not_permitted', format('The message was due at %s, and %s.', r.deliver_at, r.fault), 0,
           CASE p_kind WHEN 'nats' THEN r.message_id END, r.role, r.role_mark
      FROM refused AS r
     ORDER BY r.deliver_at, r.id
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
   WHERE g.id NOT IN (SELECT r.id FROM refused AS r)
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
