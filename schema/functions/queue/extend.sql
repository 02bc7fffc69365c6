#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  -- Who takes only for subscribed functions ends only such workers.
  v_is_peer CONSTANT boolean := has_function_privilege(coalesce(nullif(current_setting('role'), 'none'), session_user), 'hawser.paused_topics(text[])', 'EXECUTE');
  v_topics text[];
  v_places text[];
  v_done boolean;
BEGIN
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  UPDATE hawser_data.workers AS w SET beat_at = clock_timestamp(), running = p_running WHERE w.id = p_worker AND w.gone_at IS NULL
  RETURNING w.topics, @places_of(w)@ INTO v_topics, v_places;
  IF NOT FOUND THEN
    @raise_lease_lost(p_worker)@;
  END IF;
  v_done := hawser.check_places(v_topics);
  -- Of those that are just being ended by another, or say that they go on, nobody waits.
  gone_workers := ARRAY(
    SELECT w.id FROM hawser_data.workers AS w
     WHERE w.gone_at IS NULL AND w.beat_at < clock_timestamp() - @lease_of(w)@
       AND (v_is_peer OR starts_with(w.topics[1], @QueueConstants.function_prefix@))
     ORDER BY w.id
       FOR NO KEY UPDATE SKIP LOCKED
  );
  IF gone_workers <> '{}' THEN
    UPDATE hawser_data.workers AS w SET gone_at = clock_timestamp() WHERE w.id = ANY (gone_workers);
    v_done := hawser.wake_topics(ARRAY(
      SELECT DISTINCT t.topic FROM hawser_data.workers AS w, unnest(w.topics) AS t (topic) WHERE w.id = ANY (gone_workers)
    ));
  END IF;
  -- What was told by a notification, if at all, is also found here.
  cancelled := '{}';
  IF EXISTS (SELECT FROM hawser_data.cancellations) THEN
    PERFORM hawser.end_cancelled(NULL, '{}');
    cancelled := ARRAY(
      SELECT DISTINCT c.rank
        FROM hawser_data.cancellations AS c
       CROSS JOIN LATERAL (
         SELECT FROM hawser_data.queue AS o
          WHERE o.topic = c.topic AND o.recipient = c.recipient AND o.role = c.role AND o.rank = c.rank AND o.worker = p_worker OFFSET 0
       ) AS q
       ORDER BY c.rank
    );
  END IF;
  IF EXISTS (SELECT FROM hawser_data.unique_ends) THEN
    PERFORM hawser.free_unique(NULL);
  END IF;
  WITH gone AS (
    DELETE FROM hawser_data.workers AS w
     WHERE w.id = ANY (ARRAY(
       SELECT o.id FROM hawser_data.workers AS o WHERE o.gone_at < clock_timestamp() - interval '1 day' FOR UPDATE SKIP LOCKED
     ))
    RETURNING w.*
  )
  SELECT hawser.remember_served(array_agg(t.topic), array_agg(g.name), array_agg(floor(extract(epoch FROM g.beat_at) * 1000000)::bigint)) INTO v_done
    FROM gone AS g, unnest(g.topics) AS t (topic)
  HAVING count(*) > 0;
  v_done := hawser.pass_left_keys();
  -- Of the workers that are peers, or have no address as those of Hawser without a peer: others show no metrics.
  is_first := NOT EXISTS (
    SELECT FROM hawser_data.workers AS w
     WHERE w.id < p_worker AND w.gone_at IS NULL
       AND NOT EXISTS (SELECT FROM unnest(w.topics) AS t (topic) WHERE starts_with(t.topic, @QueueConstants.function_prefix@))
       AND (@own_recipient(w)@ IS NULL OR EXISTS (SELECT FROM hawser_peer_data.peers AS p WHERE p.name = w.name))
  );
  SELECT ceil(extract(epoch FROM min(o.beat_at + @lease_of(o)@) - clock_timestamp()) * 1000) INTO lease_ends_in_ms
    FROM hawser_data.workers AS w JOIN hawser_data.workers AS o ON o.id <> w.id AND o.topics && w.topics
   WHERE w.id = p_worker AND o.gone_at IS NULL AND NOT o.is_idle;
  -- What is due again, or later: role by role, as the index has them.
  WITH RECURSIVE places AS (
    SELECT t.topic, p.recipient, '' AS role FROM unnest(v_topics) AS t (topic) CROSS JOIN unnest(v_places) AS p (recipient)
    UNION ALL
    SELECT p.topic, p.recipient, n.role
      FROM places AS p
     CROSS JOIN LATERAL (
       SELECT q.role FROM hawser_data.queue AS q
        WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role > p.role AND q.due_at IS NOT NULL AND q.behind IS NULL ORDER BY q.role LIMIT 1
     ) AS n
  )
  SELECT p_looks AND coalesce(bool_or(EXISTS (
           SELECT FROM hawser_data.queue AS q
            WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.due_at <= v_now AND q.behind IS NULL AND @is_free(q)@
         )), false),
         ceil(extract(epoch FROM least(min((
           SELECT q.due_at FROM hawser_data.queue AS q
            WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.due_at > v_now AND q.behind IS NULL ORDER BY q.due_at LIMIT 1
         )), v_now + interval '1 day') - v_now) * 1000)
    INTO has_messages, due_in_ms FROM places AS p;
  has_messages := has_messages OR p_looks AND EXISTS (
    SELECT FROM unnest(v_topics) AS t (topic)
     CROSS JOIN unnest(v_places) AS p (recipient)
     CROSS JOIN LATERAL (
       (
         SELECT FROM hawser_data.queue AS q
          WHERE q.topic = t.topic AND q.recipient = p.recipient AND q.due_at IS NULL AND q.behind IS NULL AND @is_free(q)@
          LIMIT 1
       )
       UNION ALL
       (
         -- The end of one of their role and key of the limit may not have been told.
         SELECT FROM hawser_data.queue AS q WHERE q.topic = t.topic AND q.behind >= @QueueConstants.behind_limit@ LIMIT 1
       )
     ) AS f
  );
  SELECT coalesce(array_agg(s.topic ORDER BY s.topic) FILTER (WHERE @is_paused(s)@), '{}'),
         coalesce(array_agg(s.topic ORDER BY s.topic) FILTER (WHERE @is_limited(s)@), '{}'),
         coalesce(array_agg(s.topic ORDER BY s.topic) FILTER (WHERE s.keep_ms IS NOT NULL), '{}')
    INTO paused_topics, limited_topics, kept_topics
    FROM hawser_data.topic_settings AS s WHERE s.topic = ANY (v_topics);
END
