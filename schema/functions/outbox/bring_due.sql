#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  v_next timestamptz;
  v_topics text[];
  v_flows_in_ms integer;
  v_kept jsonb;
  v_marked jsonb;
BEGIN
  -- With a snapshot for several statements, of two that each handle the last but one it holds for, each could leave it to the other.
  IF p_kind = 'peer' AND EXISTS (SELECT FROM hawser_data.flow_ends) AND current_setting('transaction_isolation') = 'read committed' THEN
    v_flows_in_ms := CASE WHEN hawser.end_flows() THEN 0 ELSE 50 END;
    p_from := '-infinity';
  END IF;
  -- Those that a session is about to cancel are left: waiting for them would hold up the others. And so are those of a key that a
  -- transaction is just enqueueing with: in the queue, no smaller id of a key may come behind a greater one.
  WITH due AS MATERIALIZED (
    SELECT l.id, l.role, CASE WHEN p_kind = 'peer' AND l.key IS NOT NULL THEN (hashtextextended(l.destination || ' ' || l.key, 0) & 4095)::integer END AS bucket
      FROM hawser_data.outbox_later AS l
     WHERE l.kind = p_kind AND l.deliver_at >= p_from AND l.deliver_at <= v_now
     ORDER BY l.deliver_at, l.id
     LIMIT 1000
       FOR UPDATE SKIP LOCKED
  ), held AS MATERIALIZED (
    SELECT k.role, k.bucket FROM hawser_data.outbox_keys AS k
     WHERE (k.role, k.bucket) IN (SELECT d.role, d.bucket FROM due AS d WHERE d.bucket IS NOT NULL)
       FOR UPDATE SKIP LOCKED
  ), gone AS MATERIALIZED (
    DELETE FROM hawser_data.outbox_later AS l USING due AS d
     WHERE l.id = d.id AND (d.bucket IS NULL OR (d.role, d.bucket) IN (SELECT h.role, h.bucket FROM held AS h))
    RETURNING l.*
  ), roles AS MATERIALIZED (
    SELECT d.*, hawser.role_fault(d.role, d.role_mark, p_kind) AS fault FROM (SELECT DISTINCT g.role, g.role_mark FROM gone AS g) AS d
  ), refused AS MATERIALIZED (
    SELECT g.*, r.fault FROM gone AS g JOIN roles AS r ON r.role = g.role AND r.role_mark IS NOT DISTINCT FROM g.role_mark
     WHERE r.fault IS NOT NULL
  ), dead AS (
    INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts, message_id, role, role_mark, awaited_as)
    SELECT CASE p_kind WHEN 'nats' THEN 'outbox' ELSE 'queue' END,
           CASE
             WHEN p_kind = 'peer' THEN coalesce('@' || r.listener, '')
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
             ELSE @headers_of(r)@
           END,
           'not_permitted', format('The message was due at %s, and %s.', r.deliver_at, r.fault), 0,
           CASE p_kind WHEN 'nats' THEN r.message_id END, r.role, r.role_mark, r.awaited_as
      FROM refused AS r
     ORDER BY r.deliver_at, r.id
  ), allowed AS (
    SELECT g.* FROM gone AS g WHERE g.id NOT IN (SELECT r.id FROM refused AS r)
  ), published AS (
    INSERT INTO hawser_data.outbox
      (segment, destination, payload, headers, key, message_id, to_stream, domain, role, cluster, first_enqueued_at)
    SELECT (s.last_value - 1) % @OutboxConstants.segments@, a.destination, a.payload, a.headers, a.key, a.message_id, a.to_stream, a.domain,
           a.role, hawser.present_cluster(), a.deliver_at
      FROM allowed AS a, hawser_data.outbox_state_segment_seq AS s
     WHERE p_kind = 'nats'
     ORDER BY a.deliver_at, a.id
    RETURNING id
  ), queued AS (
    INSERT INTO hawser_data.queue (topic, recipient, role, id, first_id, unique_key, awaited_as, keep_ms, key, origin, to_all, payload, headers)
    SELECT a.destination, CASE a.priority WHEN 0 THEN '' ELSE @QueueConstants.priority_mark@ END || coalesce('@' || a.listener, ''), a.role,
           nextval('hawser_data.outbox_id_seq') - (a.priority::bigint << @QueueConstants.id_bits@), a.id, a.unique_key, a.awaited_as, a.keep_ms, a.key, a.origin, a.to_all, a.payload, a.headers
      FROM (SELECT n.* FROM allowed AS n WHERE p_kind = 'peer' ORDER BY n.deliver_at, n.id) AS a
    RETURNING topic
  )
  SELECT (SELECT count(*) FROM published) + (SELECT count(*) FROM queued), ARRAY(SELECT DISTINCT q.topic FROM queued AS q),
         (SELECT jsonb_agg(@kept_later(r)@) FROM refused AS r WHERE @later_keep_ms(r)@ IS NOT NULL),
         (SELECT jsonb_agg(@later_marks_of(r)@) FROM refused AS r WHERE @is_marked(r)@)
    INTO brought, v_topics, v_kept, v_marked;
  IF v_marked IS NOT NULL THEN
    PERFORM hawser.end_marked(v_marked, false);
  END IF;
  IF v_kept IS NOT NULL THEN
    PERFORM hawser.keep_ended(v_kept, 'dead', 'not_permitted', 'The role that enqueued the message may not do so any more.');
  END IF;
  IF v_topics <> '{}' THEN
    PERFORM hawser.wake_topics(v_topics);
  END IF;

  SELECT min(l.deliver_at) INTO due_from FROM hawser_data.outbox_later AS l WHERE l.kind = p_kind AND l.deliver_at >= p_from;
  due_in_ms := CASE
    WHEN brought = 1000 THEN 0
    ELSE ceil(extract(epoch FROM due_from - clock_timestamp()) * 1000)
  END;
  IF due_from <= v_now AND brought < 1000 THEN
    SELECT min(l.deliver_at) INTO v_next FROM hawser_data.outbox_later AS l WHERE l.kind = p_kind AND l.deliver_at > v_now;
    due_in_ms := least(50, ceil(extract(epoch FROM v_next - clock_timestamp()) * 1000));
  END IF;
  IF EXISTS (SELECT FROM hawser_data.flow_ends) THEN
    due_in_ms := least(due_in_ms, v_flows_in_ms);
  END IF;
  IF p_kind = 'peer' THEN
    -- Role by role, as in due_schedules.
    WITH RECURSIVE roles AS (
      SELECT min(s.role) AS role FROM hawser_data.schedules AS s
      UNION ALL
      SELECT (SELECT min(s.role) FROM hawser_data.schedules AS s WHERE s.role > r.role) FROM roles AS r WHERE r.role IS NOT NULL
    )
    SELECT min((SELECT min(s.next_at) FROM hawser_data.schedules AS s WHERE s.role = r.role)) INTO v_next FROM roles AS r;
    -- A schedule that is new is due since ever.
    schedule_in_ms := CASE WHEN v_next <= clock_timestamp() THEN 0 ELSE ceil(extract(epoch FROM v_next - clock_timestamp()) * 1000) END;
  END IF;
END
