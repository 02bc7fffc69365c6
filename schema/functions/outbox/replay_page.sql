#variable_conflict use_column
DECLARE
  v_cluster CONSTANT bigint := hawser.present_cluster();
  v_secret CONSTANT text := (SELECT s.secret FROM hawser_data.outbox_state AS s);
  v_refusal record;
  v_pattern text;
  v_roles CONSTANT text[] := hawser.callers_roles();
BEGIN
  SELECT r.* INTO v_refusal FROM (
    VALUES
      (p_until <= p_since, format('until, %s, is not behind since, %s', p_until, p_since),
        'Give a later time, or leave until out.'),
      (p_subject !~ E'^(?:[^.*>\\s]+|\\*)(?:\\.(?:[^.*>\\s]+|\\*))*(?:\\.>)?$' AND p_subject <> '>',
        format('the argument subject is %s, and must be words joined by ''.'', of which each may be ''*'', and the last ''>''',
          to_json(left(p_subject, 60))),
        'Give a subject as NATS has them, or leave it out for all.')
  ) AS r (is_wrong, message, hint) WHERE r.is_wrong LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = 'hawser.outbox_replay: ' || v_refusal.message,
      HINT = v_refusal.hint;
  END IF;
  -- Every special character of a pattern is escaped, then the wildcards get their meaning.
  v_pattern := '^' || regexp_replace(
    regexp_replace(regexp_replace(p_subject, E'([][\\\\^$.|?*+(){}])', E'\\\\\\1', 'g'), E'\\\\\\*', '[^.]+', 'g'), '>$', '.+'
  ) || '$';
  upto := coalesce(p_upto, (SELECT s.last_value FROM hawser_data.outbox_id_seq AS s));

  WITH page AS (
    SELECT o.*,
           coalesce(o.message_id, @message_id(o)@) AS known_by
      FROM hawser_data.outbox AS o
     WHERE o.id > p_after AND o.id <= upto ORDER BY o.id LIMIT p_max_messages
  ), put AS (
    INSERT INTO hawser_data.outbox
      (segment, destination, payload, headers, key, message_id, to_stream, domain, cluster, first_enqueued_at, copy_of, role, role_id)
    SELECT (s.last_value - 1) % @OutboxConstants.segments@, p.destination, p.payload, p.headers, p.key, p.known_by, p.to_stream,
           p.domain, v_cluster, coalesce(p.first_enqueued_at, p.enqueued_at), coalesce(p.copy_of, p.id), p.role, p.role_id
      FROM page AS p, hawser_data.outbox_state_segment_seq AS s
     WHERE @is_own(p)@
       AND p.enqueued_at >= p_since
       AND (p_until IS NULL OR p.enqueued_at < p_until)
       AND (p_subject IS NULL OR p.destination ~ v_pattern)
       AND (p.to_stream OR p_core)
       -- Copies of an earlier replay, where the first one is written again as well.
       AND NOT EXISTS (
         SELECT FROM hawser_data.outbox AS f
          WHERE f.id = p.copy_of AND f.enqueued_at >= p_since AND (p_until IS NULL OR f.enqueued_at < p_until)
       )
       -- Those that NATS has refused, and nobody has decided about.
       AND NOT EXISTS (
         SELECT FROM hawser_data.dead_letters AS d
          WHERE d.role = p.role AND d.message_id = p.known_by AND d.origin = 'outbox' AND d.topic = p.destination
       )
     ORDER BY p.id
    RETURNING 1
  )
  SELECT (SELECT count(*) FROM put), max(p.id), (SELECT l.enqueued_at FROM page AS l ORDER BY l.id DESC LIMIT 1)
    INTO replayed, last_id, enqueued_at FROM page AS p;
  IF replayed > 0 THEN
    PERFORM hawser.record_act('replay', p_subject, replayed, jsonb_build_object('since', p_since, 'until', p_until, 'core', p_core));
  END IF;
  IF replayed > 0 AND (SELECT a.last_value FROM hawser_data.outbox_state_asleep_seq AS a) = 2 THEN
    PERFORM pg_notify('hawser_outbox', '') WHERE pg_notification_queue_usage() < 0.9;
  END IF;
END
