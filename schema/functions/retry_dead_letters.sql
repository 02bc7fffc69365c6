#variable_conflict use_column
DECLARE
  -- The owners whose fences are held, shared.
  v_fenced text[] := '{}';
  v_owners text[];
  v_base record;
  v_retry_key integer;
  v_roles CONSTANT text[] := (SELECT c.roles FROM hawser.callers_roles() AS c);
  -- Those that the caller may retry.
  v_ids bigint[];
  v_refused bigint[];
  v_refusals text[];
  v_topics text[];
BEGIN
  IF cardinality(p_ids) > @StoreConstants.dead_letter_rows@ THEN
    RAISE EXCEPTION 'hawser.retry_dead_letters: % dead letters are given, and at most @StoreConstants.dead_letter_rows@ are taken', cardinality(p_ids)
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Give them in several calls.';
  END IF;
  -- A number that is lost would be given again, to another message.
  PERFORM hawser.commit_durably();

  -- One at a time with all who retry, discard or expire: none finds half of what another takes.
  PERFORM hawser.lock_dead_letters(true);

  -- Retried, it acts with rights that its writer may not have: of whoever it was, it is checked again.
  SELECT coalesce(array_agg(c.id) FILTER (WHERE c.refusal IS NULL), '{}'), array_agg(c.topic) FILTER (WHERE c.refusal IS NULL),
         array_agg(c.id) FILTER (WHERE c.refusal IS NOT NULL), array_agg(c.refusal) FILTER (WHERE c.refusal IS NOT NULL)
    INTO v_ids, v_topics, v_refused, v_refusals
    FROM (
      SELECT d.id, d.topic, CASE
               WHEN @is_own(d)@ IS NOT TRUE THEN 'owner'
               WHEN hawser.dead_letter_fault(d.origin, d.source, d.topic, d.headers, d.message_id) IS NOT NULL THEN 'invalid'
               WHEN d.origin = 'outbox' AND hawser.role_fault(d.role, d.role_mark, 'nats') IS NOT NULL THEN 'role'
               -- Only one that was given up before it was in the queue has a mark.
               WHEN d.origin = 'queue' AND d.role_mark IS NOT NULL AND hawser.role_fault(d.role, d.role_mark, 'peer') IS NOT NULL THEN 'role'
             END AS refusal
        FROM hawser_data.dead_letters AS d
       WHERE d.id = ANY (p_ids)
       ORDER BY d.id
    ) AS c;
  RETURN QUERY
  SELECT r.id, r.refusal, NULL::integer, NULL::bigint, NULL::text, NULL::text, NULL::boolean
    FROM unnest(v_refused, v_refusals) AS r (id, refusal);

  -- A channel's owner may not change until its retry channel is there with the same one: handing channels over
  -- takes the owner's fence exclusively. After each wait the owners are read again.
  LOOP
    v_owners := ARRAY(
      SELECT DISTINCT coalesce(m.owner, m.listener_name)
        FROM hawser_data.dead_letters AS d
        JOIN hawser_peer_data.channels AS m ON m.channel_id = d.channel_id
       WHERE d.id = ANY (v_ids) AND d.origin = 'peer'
      EXCEPT SELECT f.name FROM unnest(v_fenced) AS f (name)
       ORDER BY 1
    );
    EXIT WHEN cardinality(v_owners) = 0;
    PERFORM hawser.share_fences(v_owners);
    v_fenced := v_fenced || v_owners;
  END LOOP;

  -- The retry channels that are missing. A message that failed again has come over the retry channel: it goes back there.
  FOR v_base IN
    SELECT DISTINCT m.channel_id AS key, m.sender_name, m.source_topic, coalesce(m.owner, m.listener_name) AS owner
      FROM hawser_data.dead_letters AS d
      JOIN hawser_peer_data.channels AS m ON m.channel_id = d.channel_id
      JOIN hawser_peer_data.topics AS t ON t.topic = d.topic
     WHERE d.id = ANY (v_ids) AND d.origin = 'peer' AND m.retry_of IS NULL
     ORDER BY m.channel_id
  LOOP
    v_retry_key := (
      SELECT k.channel_id
        FROM hawser.open_channel(v_base.sender_name, v_base.source_topic, '__#retry#' || v_base.key) AS k
    );
    -- A statement of its own: the one that made the row does not see it.
    UPDATE hawser_peer_data.channels AS r SET owner = v_base.owner WHERE r.channel_id = v_retry_key AND r.owner IS NULL;
  END LOOP;

  -- One statement, so that each of them is either a dead letter or a stored message. The channels' rows stay locked until
  -- the end: numbers are committed in their order.
  RETURN QUERY
  WITH asked AS MATERIALIZED (
    SELECT d.id, r.channel_id AS retry_key, t.id AS topic_id, coalesce(r.owner, r.listener_name) AS retry_owner,
           CASE
             WHEN m.channel_id IS NULL THEN 'channel'
             -- A topic that was made since then has no retry channel here.
             WHEN t.id IS NULL OR r.channel_id IS NULL THEN 'topic'
           END AS refusal
      FROM hawser_data.dead_letters AS d
      LEFT JOIN hawser_peer_data.channels AS m ON m.channel_id = d.channel_id
      LEFT JOIN hawser_peer_data.channels AS r
        ON r.channel_name = m.sender_name || ':' || m.source_topic || ':' || '__#retry#' || coalesce(m.retry_of, m.channel_id)
      LEFT JOIN hawser_peer_data.topics AS t ON t.topic = d.topic
     WHERE d.id = ANY (v_ids) AND d.origin = 'peer'
  ), gone AS (
    DELETE FROM hawser_data.dead_letters AS d
     USING asked AS a
     WHERE d.id = a.id AND a.refusal IS NULL
    RETURNING d.id, a.retry_key, a.topic_id, a.retry_owner, d.payload, d.headers,
              d.source || '/' || d.epoch || '/' || d.number AS place
  ), numbered AS (
    UPDATE hawser_peer_data.channels AS r
       SET last_retry = r.last_retry + g.count
      FROM (SELECT retry_key, count(*) AS count FROM gone GROUP BY retry_key) AS g
     WHERE r.channel_id = g.retry_key
    RETURNING r.channel_id AS key, r.last_retry - g.count AS before
  ), back AS (
    INSERT INTO hawser_peer_data.stored_messages AS s (channel_id, epoch, number, topic_id, payload, headers)
    SELECT g.retry_key, 1, n.before + row_number() OVER (PARTITION BY g.retry_key ORDER BY g.id), g.topic_id, g.payload,
           -- It keeps its id, though it has another place from now on, and is wanted whatever its age.
           (
             SELECT jsonb_agg(h.value ORDER BY h.nth)
               FROM (
                 SELECT e.value, e.nth
                   FROM jsonb_array_elements(g.headers) WITH ORDINALITY AS e (value, nth)
                  WHERE e.value ->> 0 <> @ProtocolConstants.message_expires_header@
                 UNION ALL
                 SELECT jsonb_build_array(@ProtocolConstants.message_id_header@, g.place), 1 + coalesce(jsonb_array_length(g.headers), 0)
                  WHERE NOT EXISTS (
                          SELECT FROM jsonb_array_elements(g.headers) AS e (value)
                           WHERE e.value ->> 0 = @ProtocolConstants.message_id_header@
                        )
                    AND coalesce(jsonb_array_length(g.headers), 0) < 256
               ) AS h
           )
      FROM gone AS g
      JOIN numbered AS n ON n.key = g.retry_key
     ORDER BY g.id
  )
  SELECT a.id, a.refusal, g.retry_key,
         n.before + row_number() OVER (PARTITION BY g.retry_key ORDER BY g.id), g.retry_owner, NULL::text, NULL::boolean
    FROM asked AS a
    LEFT JOIN gone AS g ON g.id = a.id
    LEFT JOIN numbered AS n ON n.key = g.retry_key
   WHERE a.refusal IS NOT NULL OR g.id IS NOT NULL
   ORDER BY a.id;

  RETURN QUERY
  SELECT r.id, CASE WHEN NOT r.queued THEN 'handler' END, NULL::integer, NULL::bigint, NULL::text, NULL::text, r.queued
    FROM hawser.retry_subscribed(v_ids) AS r;

  RETURN QUERY
  SELECT e.id, NULL::text, NULL::integer, NULL::bigint, NULL::text, NULL::text, true
    FROM hawser.retry_enqueued(v_ids) AS e
  UNION ALL
  SELECT q.id, NULL::text, NULL::integer, NULL::bigint, NULL::text, NULL::text, true
    FROM hawser.retry_queued(v_ids) AS q;

  SELECT array_agg(a.id), array_agg(a.topic) INTO v_ids, v_topics
    FROM unnest(v_ids, v_topics) AS a (id, topic)
   WHERE NOT EXISTS (SELECT FROM hawser_data.dead_letters AS d WHERE d.id = a.id);
  PERFORM hawser.record_dead_letters('retry', v_ids, v_topics);
END
