#variable_conflict use_column
-- One lock for each step, always in this order: the fence, the member's channel, the topics in their order. What follows a wait is a
-- statement of its own, which sees what was committed meanwhile.
DECLARE
  v_me CONSTANT text := @OutboxConstants.peer_sender@;
  v_source CONSTANT text := @OutboxConstants.claims_topic@;
  v_done boolean;
  v_topics text[];
  v_for_groups text[];
  v_from_epochs bigint[];
  v_from_numbers bigint[];
  v_channel integer;
  v_number bigint;
  v_max integer;
  v_bytes bigint;
  v_waiting integer;
  v_topic_id integer;
  v_looked integer;
  v_left_from record;
BEGIN
  IF (cardinality(p_topics), cardinality(p_topics), cardinality(p_topics))
     IS DISTINCT FROM (cardinality(p_from_epochs), cardinality(p_from_numbers), cardinality(p_of_group)) THEN
    RAISE EXCEPTION 'there are % topics, % epochs, % numbers and % of p_of_group, which must be as many',
      cardinality(p_topics), cardinality(p_from_epochs), cardinality(p_from_numbers), cardinality(p_of_group)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;

  -- First without a lock: mostly another member has had what this one was told of.
  SELECT array_agg(t.topic ORDER BY t.topic, t.for_group), array_agg(t.for_group ORDER BY t.topic, t.for_group),
         array_agg(t.epoch ORDER BY t.topic, t.for_group), array_agg(t.number ORDER BY t.topic, t.for_group)
    INTO v_topics, v_for_groups, v_from_epochs, v_from_numbers
    FROM (
      SELECT w.topic, w.for_group, f.epoch, f.number
        FROM unnest(p_topics, p_from_epochs, p_from_numbers, p_of_group) AS a (topic, epoch, number, of_group)
        JOIN hawser_data.peers AS p ON p.name = p_name AND p.group_name IS NOT NULL
        JOIN hawser_data.peer_waiting_topics AS w ON w.topic = a.topic AND w.for_group = CASE WHEN a.of_group THEN p.group_name ELSE '' END
       CROSS JOIN LATERAL (
         SELECT s.epoch, s.number FROM hawser_data.stored_messages AS s
          WHERE s.channel_id = w.channel_id AND (s.epoch, s.number) >= (a.epoch, a.number)
          ORDER BY s.channel_id, s.epoch, s.number LIMIT 1
       ) AS f
       WHERE EXISTS (SELECT FROM hawser_data.listeners AS d WHERE d.topic = a.topic AND d.listener_name = p_name)
       LIMIT @OutboxConstants.page_messages@
    ) AS t;
  IF v_topics IS NULL THEN
    RETURN;
  END IF;

  -- As in commit_cursors: from here on a session that stands still holds up others.
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  held := hawser.fenced(p_name, p_epoch);
  IF NOT held THEN
    RETURN NEXT;
    RETURN;
  END IF;
  SELECT k.channel_id, k.owner IS DISTINCT FROM p_name INTO channel_id, is_away FROM hawser.open_channel(v_me, v_source, p_name) AS k;
  v_channel := channel_id;
  claimed := 0;
  has_more := false;
  IF is_away THEN
    RETURN NEXT;
    RETURN;
  END IF;

  -- Alone: the answer to an earlier call may have been lost while that still runs. What has greater numbers is committed later. Never
  -- by what is there: the member remembers what was deleted by hand, and would take a message with such a number for that.
  PERFORM FROM hawser_data.channels AS m WHERE m.channel_id = v_channel FOR NO KEY UPDATE;
  v_number := nextval('hawser_data.outbox_state_peer_claim_seq') * @OutboxConstants.page_messages@;

  -- Each topic gets its part: one with many messages does not keep back the others.
  v_max := greatest(1, least(p_max_messages, @OutboxConstants.page_messages@) / cardinality(v_topics));
  v_bytes := p_max_bytes / cardinality(v_topics);
  FOR nth IN 1 .. cardinality(v_topics) LOOP
    topic := v_topics[nth];
    of_group := v_for_groups[nth] <> '';
    v_waiting := NULL;
    SELECT w.channel_id INTO v_waiting
      FROM hawser_data.peer_waiting_topics AS w WHERE w.topic = v_topics[nth] AND w.for_group = v_for_groups[nth] FOR UPDATE;
    CONTINUE WHEN v_waiting IS NULL;
    v_topic_id := (SELECT k.id FROM hawser_data.topics AS k WHERE k.topic = v_topics[nth]);
    -- Far only where others have the keys of what comes first.
    FOREACH v_looked IN ARRAY ARRAY[2 * v_max, v_max + @OutboxConstants.page_messages@] LOOP
      WITH first AS MATERIALIZED (
        SELECT s.epoch, s.number, s.key_hash, octet_length(s.payload)::bigint AS bytes
          FROM hawser_data.stored_messages AS s
         WHERE s.channel_id = v_waiting AND (s.epoch, s.number) >= (v_from_epochs[nth], v_from_numbers[nth])
         ORDER BY s.channel_id, s.epoch, s.number LIMIT v_looked
      ), others AS MATERIALIZED (
        -- Keys of which other members have messages. What the cursor has passed would be found in the index until a vacuum.
        SELECT DISTINCT o.key_hash
          FROM hawser_data.channels AS m
          LEFT JOIN hawser_data.cursors AS c ON c.channel_id = m.channel_id
         CROSS JOIN LATERAL (
           SELECT s.key_hash FROM hawser_data.stored_messages AS s
            WHERE s.channel_id = m.channel_id AND (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.number, 0))
              AND s.key_hash IS NOT NULL AND s.topic_id = v_topic_id
           OFFSET 0
         ) AS o
         WHERE m.sender_name = v_me AND m.source_topic = v_source AND m.channel_id <> v_channel
           AND EXISTS (SELECT FROM first AS f WHERE f.key_hash IS NOT NULL)
         UNION
         -- What waits to be tried again has left the stored messages.
         SELECT p.key_hash
           FROM hawser_data.parked_messages AS p
          WHERE p.channel_id <> v_channel AND p.topic_id = v_topic_id
            AND p.key_hash IN (SELECT f.key_hash FROM first AS f)
      ), free AS MATERIALIZED (
        SELECT f.epoch, f.number, row_number() OVER w AS nth, sum(f.bytes) OVER w AS upto
          FROM first AS f
         WHERE f.key_hash IS NULL OR f.key_hash NOT IN (SELECT o.key_hash FROM others AS o)
        WINDOW w AS (ORDER BY f.epoch, f.number ROWS UNBOUNDED PRECEDING)
      ), taken AS MATERIALIZED (
        SELECT f.epoch, f.number, f.nth FROM free AS f WHERE f.nth = 1 OR (f.nth <= v_max AND f.upto <= v_bytes)
      ), moved AS (
        UPDATE hawser_data.stored_messages AS s
           SET channel_id = v_channel, epoch = p_epoch, number = v_number + t.nth
          FROM taken AS t
         WHERE s.channel_id = v_waiting AND s.epoch = t.epoch AND s.number = t.number
      ), rest AS (
        SELECT f.epoch, f.number FROM first AS f
         WHERE (f.epoch, f.number) NOT IN (SELECT t.epoch, t.number FROM taken AS t)
         ORDER BY f.epoch, f.number LIMIT 1
      ), last AS (
        SELECT t.epoch, t.number FROM taken AS t ORDER BY t.epoch DESC, t.number DESC LIMIT 1
      )
      SELECT n.claimed, n.claimed > 0 AND (n.free > n.claimed OR n.looked = v_looked) AS has_more, n.looked = v_looked AND n.claimed = 0 AS is_held_up,
             coalesce(r.epoch, l.epoch) AS epoch, coalesce(r.number, l.number) AS number
        INTO v_left_from
        FROM (
          SELECT (SELECT count(*) FROM taken) AS claimed, (SELECT count(*) FROM free) AS free, (SELECT count(*) FROM first) AS looked
        ) AS n
        LEFT JOIN rest AS r ON true
        LEFT JOIN last AS l ON true;
      EXIT WHEN NOT v_left_from.is_held_up;
    END LOOP;
    claimed := v_left_from.claimed;
    has_more := v_left_from.has_more;
    from_epoch := coalesce(v_left_from.epoch, v_from_epochs[nth]);
    from_number := coalesce(v_left_from.number, v_from_numbers[nth]);
    IF of_group AND claimed > 0 THEN
      UPDATE hawser_data.channels AS m SET has_copies = true WHERE m.channel_id = v_channel AND NOT m.has_copies;
    END IF;
    v_number := v_number + claimed;
    last_number := v_number;
    RETURN NEXT;
  END LOOP;
END
