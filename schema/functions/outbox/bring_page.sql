#variable_conflict use_column
DECLARE
  v_topics text[];
  v_kept jsonb;
  v_marked jsonb;
BEGIN
  -- Those that a session is about to cancel are left: waiting for them would hold up the others. And so are those of a key that a
  -- transaction is just enqueueing with: in the queue, no lower rank of a key may be committed behind a higher one.
  WITH candidates AS MATERIALIZED (
    SELECT l.*, row_number() OVER w AS nth, sum(l.bytes) OVER w AS upto
      FROM (
        SELECT o.id, o.deliver_at, octet_length(o.payload)::bigint AS bytes,
               CASE WHEN o.key IS NOT NULL THEN (hashtextextended(o.destination || ' ' || o.key, 0) & 4095)::integer END AS bucket
          FROM hawser_data.outbox_later AS o
         WHERE o.kind = p_kind AND o.role = p_role AND (o.deliver_at, o.id) > (p_at, p_id) AND o.deliver_at <= p_upto
         ORDER BY o.deliver_at, o.id LIMIT p_most
      ) AS l
    WINDOW w AS (ORDER BY l.deliver_at, l.id)
  ), page AS MATERIALIZED (
    SELECT c.* FROM candidates AS c WHERE c.nth = 1 OR c.upto <= 8388608
  ), due AS MATERIALIZED (
    SELECT p.id, p.bucket
      FROM page AS p
     CROSS JOIN LATERAL (
       SELECT FROM hawser_data.outbox_later AS l
        WHERE l.id = p.id AND l.kind = p_kind AND l.deliver_at <= p_upto
          FOR UPDATE SKIP LOCKED
     ) AS l
     WHERE p.bucket IS NULL OR p.bucket <> ALL (p_left)
  ), held AS MATERIALIZED (
    SELECT k.bucket FROM hawser_data.outbox_keys AS k
     WHERE p_kind = 'peer' AND k.role = p_role AND k.bucket IN (SELECT d.bucket FROM due AS d WHERE d.bucket IS NOT NULL)
       FOR UPDATE SKIP LOCKED
  ), gone AS MATERIALIZED (
    DELETE FROM hawser_data.outbox_later AS l USING due AS d
     WHERE l.id = d.id AND (d.bucket IS NULL OR p_kind <> 'peer' OR d.bucket IN (SELECT h.bucket FROM held AS h))
    RETURNING l.*
  ), roles AS MATERIALIZED (
    SELECT d.*, hawser.role_fault(d.role, d.role_mark, p_kind) AS fault FROM (SELECT DISTINCT g.role, g.role_mark FROM gone AS g) AS d
  ), refused AS MATERIALIZED (
    SELECT g.*, r.fault FROM gone AS g JOIN roles AS r ON r.role = g.role AND r.role_mark IS NOT DISTINCT FROM g.role_mark
     WHERE r.fault IS NOT NULL
  ), dead AS (
    INSERT INTO hawser_data.dead_letters
      (origin, source, topic, payload, headers, error_code, error_message, attempts, message_id, role, role_id, role_mark, awaited_as, job_id, keep_ms)
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
           CASE p_kind WHEN 'nats' THEN r.message_id END, r.role, r.role_id, r.role_mark, r.awaited_as, CASE p_kind WHEN 'peer' THEN r.id END, r.keep_ms
      FROM refused AS r
     ORDER BY r.deliver_at, r.id
  ), allowed AS (
    SELECT g.* FROM gone AS g WHERE g.id NOT IN (SELECT r.id FROM refused AS r)
  ), published AS (
    INSERT INTO hawser_data.outbox
      (segment, destination, payload, headers, key, message_id, to_stream, domain, role, role_id, cluster, first_enqueued_at)
    SELECT (s.last_value - 1) % @OutboxConstants.segments@, a.destination, a.payload, a.headers, a.key, a.message_id, a.to_stream, a.domain,
           a.role, a.role_id, hawser.present_cluster(), a.deliver_at
      FROM allowed AS a, hawser_data.outbox_state_segment_seq AS s
     WHERE p_kind = 'nats'
     ORDER BY a.deliver_at, a.id
    RETURNING id
  ), queued AS (
    INSERT INTO hawser_data.queue (topic, recipient, role, role_id, rank, id, unique_key, awaited_as, keep_ms, key, origin, to_all, payload, headers)
    SELECT a.destination, CASE a.priority WHEN 0 THEN '' ELSE @QueueConstants.priority_mark@ END || coalesce('@' || a.listener, ''), a.role, a.role_id,
           nextval('hawser_data.outbox_id_seq') - (a.priority::bigint << @QueueConstants.id_bits@), a.id, a.unique_key, a.awaited_as, a.keep_ms, a.key, a.origin, a.to_all, a.payload, a.headers
      FROM (SELECT n.* FROM allowed AS n WHERE p_kind = 'peer' ORDER BY n.deliver_at, n.id) AS a
    RETURNING topic
  )
  SELECT (SELECT count(*) FROM published) + (SELECT count(*) FROM queued), (SELECT count(*) FROM gone),
         (SELECT count(*) = p_most OR count(*) > (SELECT count(*) FROM page) FROM candidates),
         l.deliver_at, l.id,
         ARRAY(SELECT DISTINCT p.bucket FROM page AS p WHERE p.bucket IS NOT NULL AND p.id NOT IN (SELECT g.id FROM gone AS g)),
         ARRAY(SELECT DISTINCT q.topic FROM queued AS q),
         (SELECT jsonb_agg(@kept_later(r)@) FROM refused AS r WHERE @later_keep_ms(r)@ IS NOT NULL),
         (SELECT jsonb_agg(@later_marks_of(r)@) FROM refused AS r WHERE @is_marked(r)@)
    INTO brought, ended, has_more, last_at, last_id, left_keys, v_topics, v_kept, v_marked
    FROM (SELECT 1) AS one LEFT JOIN LATERAL (SELECT p.deliver_at, p.id FROM page AS p ORDER BY p.nth DESC LIMIT 1) AS l ON true;
  IF v_marked IS NOT NULL THEN
    PERFORM hawser.end_marked(v_marked, false);
  END IF;
  IF v_kept IS NOT NULL THEN
    PERFORM hawser.keep_ended(v_kept, 'dead', 'not_permitted', 'The role that enqueued the message may not do so any more.');
  END IF;
  IF v_topics <> '{}' THEN
    PERFORM hawser.wake_topics(v_topics);
  END IF;
END
