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
        SELECT o.topic, o.recipient, o.rank, o.id, o.due_at, octet_length(o.payload)::bigint AS bytes,
               CASE WHEN o.key IS NOT NULL THEN (hashtextextended(o.topic || ' ' || o.key, 0) & 4095)::integer END AS bucket
          FROM hawser_data.queue AS o
         WHERE o.later = p_kind AND o.role = p_role AND (o.due_at, o.id) > (p_at, p_id) AND o.due_at <= p_upto
         ORDER BY o.due_at, o.id LIMIT p_most
      ) AS l
    WINDOW w AS (ORDER BY l.due_at, l.id)
  ), page AS MATERIALIZED (
    SELECT c.* FROM candidates AS c WHERE c.nth = 1 OR c.upto <= 8388608
  ), due AS MATERIALIZED (
    SELECT l.*, p.bucket
      FROM page AS p
     CROSS JOIN LATERAL (
       SELECT q.* FROM hawser_data.queue AS q
        WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p_role AND q.rank = p.rank AND coalesce(q.later, '') = p_kind AND q.due_at <= p_upto
          FOR UPDATE SKIP LOCKED
     ) AS l
     WHERE p.bucket IS NULL OR p.bucket <> ALL (p_left)
  ), held AS MATERIALIZED (
    SELECT k.bucket FROM hawser_data.enqueue_keys AS k
     WHERE p_kind = 'peer' AND k.role = p_role AND k.bucket IN (SELECT d.bucket FROM due AS d WHERE d.bucket IS NOT NULL)
       FOR UPDATE SKIP LOCKED
  ), free AS MATERIALIZED (
    SELECT d.* FROM due AS d WHERE d.bucket IS NULL OR p_kind <> 'peer' OR d.bucket IN (SELECT h.bucket FROM held AS h)
  ), roles AS MATERIALIZED (
    SELECT d.*, hawser.role_fault(p_role, d.role_mark, p_kind) AS fault FROM (SELECT DISTINCT f.role_mark FROM free AS f) AS d
  ), refused AS MATERIALIZED (
    SELECT f.*, r.fault FROM free AS f JOIN roles AS r ON r.role_mark IS NOT DISTINCT FROM f.role_mark WHERE r.fault IS NOT NULL
  ), allowed AS MATERIALIZED (
    SELECT f.* FROM free AS f WHERE f.id NOT IN (SELECT r.id FROM refused AS r)
  ), gone AS (
    DELETE FROM hawser_data.queue AS q USING free AS f
     WHERE q.topic = f.topic AND q.recipient = f.recipient AND q.role = p_role AND q.rank = f.rank AND (p_kind = 'nats' OR f.id IN (SELECT r.id FROM refused AS r))
  ), dead AS (
    INSERT INTO hawser_data.dead_letters
      (origin, source, enqueued_at, rank, topic, payload, headers, error_code, error_message, attempts, message_id, role, role_id, role_mark, awaited_as, job_id, keep_ms)
    SELECT CASE p_kind WHEN 'nats' THEN 'outbox' ELSE 'queue' END,
           CASE
             WHEN p_kind = 'peer' THEN substr(r.recipient, 2)
             WHEN r.to_stream THEN coalesce(r.domain, '')
             ELSE 'core'
           END,
           CASE p_kind WHEN 'peer' THEN r.enqueued_at END, CASE p_kind WHEN 'peer' THEN r.rank END, r.topic, r.payload,
           CASE p_kind
             WHEN 'nats' THEN (
               SELECT jsonb_agg(jsonb_build_array(h.key, v.value))
                 FROM jsonb_each(r.headers) AS h,
                      jsonb_array_elements(CASE jsonb_typeof(h.value) WHEN 'array' THEN h.value ELSE jsonb_build_array(h.value) END) AS v
             )
             ELSE @headers_of(r)@
           END,
           'not_permitted', format('The message was due at %s, and %s.', r.due_at, r.fault), 0,
           CASE p_kind WHEN 'peer' THEN r.id::text ELSE r.message_id END, r.role, r.role_id, r.role_mark, r.awaited_as, CASE p_kind WHEN 'peer' THEN r.id END, r.keep_ms
      FROM refused AS r
     ORDER BY r.due_at, r.id
  ), published AS (
    INSERT INTO hawser_data.outbox
      (segment, destination, payload, headers, key, message_id, to_stream, domain, role, role_id, cluster, first_enqueued_at)
    SELECT (s.last_value - 1) % @OutboxConstants.segments@, a.topic, a.payload, a.headers, a.key, a.message_id, coalesce(a.to_stream, false), a.domain,
           a.role, a.role_id, hawser.present_cluster(), a.due_at
      FROM allowed AS a, hawser_data.outbox_state_segment_seq AS s
     WHERE p_kind = 'nats'
     ORDER BY a.due_at, a.id
    RETURNING id
  ), ranked AS MATERIALIZED (
    SELECT a.topic, a.recipient, a.rank, nextval('hawser_data.outbox_id_seq') + (a.rank >> @QueueConstants.id_bits@ << @QueueConstants.id_bits@) AS next_rank
      FROM (SELECT n.topic, n.recipient, n.rank FROM allowed AS n WHERE p_kind = 'peer' ORDER BY n.due_at, n.id) AS a
  ), queued AS (
    UPDATE hawser_data.queue AS q
       SET recipient = substr(q.recipient, 2), rank = r.next_rank, due_at = NULL, later = NULL, later_xid = NULL, role_mark = NULL, enqueued_at = clock_timestamp()
      FROM ranked AS r
     WHERE q.topic = r.topic AND q.recipient = r.recipient AND q.role = p_role AND q.rank = r.rank
    RETURNING q.topic
  )
  SELECT (SELECT count(*) FROM published) + (SELECT count(*) FROM queued), (SELECT count(*) FROM free),
         (SELECT count(*) = p_most OR count(*) > (SELECT count(*) FROM page) FROM candidates),
         l.due_at, l.id,
         ARRAY(SELECT DISTINCT p.bucket FROM page AS p WHERE p.bucket IS NOT NULL AND p.id NOT IN (SELECT f.id FROM free AS f)),
         ARRAY(SELECT DISTINCT q.topic FROM queued AS q),
         (SELECT jsonb_agg(@kept_of(r)@) FROM refused AS r WHERE p_kind = 'peer' AND @keep_ms_of(r)@ IS NOT NULL),
         (SELECT jsonb_agg(@marks_of(r)@) FROM refused AS r WHERE @is_marked(r)@)
    INTO brought, ended, has_more, last_at, last_id, left_keys, v_topics, v_kept, v_marked
    FROM (SELECT 1) AS one LEFT JOIN LATERAL (SELECT p.due_at, p.id FROM page AS p ORDER BY p.nth DESC LIMIT 1) AS l ON true;
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
