#variable_conflict use_column
DECLARE
  v_topics text[];
  v_places text[];
  v_has_settings boolean;
  v_is_idle boolean;
  -- Some are to be cancelled.
  v_cancels boolean;
  -- Topics with limits. How many messages may start of the only one that is asked for; NULL: messages are not for a start.
  v_limited text[] := '{}';
  v_starts integer;
  v_at timestamptz;
  v_per_key integer;
  v_key_header text;
  v_wait_ms integer := 0;
  -- Times for which topics keep results, by topic. NULL: none of them does.
  v_keep_ms jsonb;
  v_may_find boolean;
  v_found record;
  -- Rows that are locked.
  v_tids tid[];
  v_copies record;
  -- How far this has looked, by the topics, recipients and roles that were found.
  v_upto bigint[];
  v_has_more boolean;
  -- What is taken of workers that are gone, and of it what counts as tried.
  v_has_gone boolean := false;
  v_left bigint[] := '{}';
  v_tried bigint[] := '{}';
  v_done boolean;
BEGIN
  -- From here on a session that stands still holds up others.
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  SELECT CASE p_topics WHEN '{}' THEN w.topics ELSE p_topics END, @places_of(w)@,
         EXISTS (SELECT FROM hawser_data.cancellations),
         EXISTS (SELECT FROM hawser_data.topic_settings AS s WHERE s.topic = ANY (CASE p_topics WHEN '{}' THEN w.topics ELSE p_topics END)),
         w.is_idle
    INTO v_topics, v_places, v_cancels, v_has_settings, v_is_idle
    FROM hawser_data.workers AS w
   WHERE w.id = p_worker AND w.gone_at IS NULL;
  IF NOT FOUND THEN
    @raise_lease_lost(p_worker)@;
  END IF;
  v_done := hawser.check_places(v_topics);
  -- What is to be cancelled, and whose handler has ended or will not begin, is taken by nobody.
  IF v_cancels THEN
    v_done := hawser.end_cancelled(NULL, '{}') IS NULL;
  END IF;
  IF v_has_settings THEN
    -- Taking from a topic with limits is starting.
    SELECT a.topics, a.limited, a.keep_ms, a.starts, a.at, a.per_key, a.key_header
      INTO v_topics, v_limited, v_keep_ms, v_starts, v_at, v_per_key, v_key_header FROM hawser.admit_topics(v_topics, p_most) AS a;
  END IF;

  -- Most looks of an idle worker find nothing, and to see that takes less time than to set up the search. In a large table an old snapshot
  -- may keep many rows that are gone before the first one that is there.
  v_may_find := v_topics <> '{}' AND v_starts IS DISTINCT FROM 0 AND (pg_relation_size('hawser_data.queue') > @QueueConstants.small_bytes@ OR EXISTS (
    SELECT FROM unnest(v_topics) AS t (topic)
     CROSS JOIN unnest(v_places) AS r (recipient)
     CROSS JOIN LATERAL (
       (
         SELECT FROM hawser_data.queue AS q
          WHERE q.topic = t.topic AND q.recipient = r.recipient AND q.due_at IS NULL AND q.behind IS NULL ORDER BY q.role, q.rank LIMIT 1
       )
       UNION ALL
       (
         SELECT FROM hawser_data.queue AS q
          WHERE q.topic = t.topic AND q.recipient = r.recipient AND q.due_at IS NOT NULL AND q.behind IS NULL ORDER BY q.role, q.due_at LIMIT 1
       )
     ) AS f
  ));
  IF NOT v_may_find AND v_limited = '{}' THEN
    RETURN;
  END IF;
  v_found := hawser.find_ready(CASE WHEN v_may_find THEN v_topics ELSE '{}' END, v_places, p_after, p_most, p_max_bytes, v_starts, v_per_key, v_key_header);
  IF v_found.tids IS NULL AND v_limited = '{}' THEN
    RETURN;
  END IF;

  -- Who else counts what a worker had that is gone, is waited for here, before anything is locked or looked up.
  IF num_nonnulls(VARIADIC v_found.workers) > 0 THEN
    PERFORM FROM hawser_data.workers AS w WHERE w.id = ANY (v_found.workers) AND w.gone_at IS NOT NULL ORDER BY w.id FOR UPDATE;
    v_has_gone := FOUND;
  END IF;
  -- Rows that have the same worker as before: an id is never used again. No index is to be searched for the ranks, nor
  -- each row to be compared with all of them: IS TRUE keeps them in a hash table.
  v_tids := ARRAY(
    SELECT q.ctid FROM hawser_data.queue AS q
     WHERE q.ctid = ANY (v_found.tids) AND (q.rank IN (SELECT unnest(v_found.ranks))) IS TRUE AND (q.worker IS NULL OR q.worker = ANY (v_found.workers))
       AND NOT (v_cancels AND EXISTS (
         SELECT FROM hawser_data.cancellations AS c WHERE c.topic = q.topic AND c.recipient = q.recipient AND c.role = q.role AND c.rank = q.rank
       ))
       FOR UPDATE SKIP LOCKED
  );
  IF v_found.has_copies THEN
    SELECT c.* INTO v_copies FROM hawser.find_copies(v_tids, p_max_bytes) AS c;
    v_tids := v_copies.tids;
  END IF;
  IF v_found.has_keys THEN
    v_tids := hawser.first_of_keys(p_worker, v_tids);
  END IF;
  IF v_has_gone THEN
    SELECT l.suspects, l.tried INTO v_left, v_tried FROM hawser.count_left(v_tids) AS l;
  END IF;
  v_upto := v_found.upto;
  v_has_more := coalesce(v_found.has_more, false);
  IF v_found.has_copies THEN
    SELECT m.tids, m.upto, m.has_more OR v_has_more INTO v_tids, v_upto, v_has_more
      FROM hawser.make_copies(v_tids, v_copies.topics, v_copies.recipients, p_max_bytes, v_found.topics, v_found.recipients, v_found.roles, v_upto) AS m;
  END IF;
  IF v_starts IS NOT NULL THEN
    v_wait_ms := hawser.note_starts(p_worker, v_limited[1], v_at, v_per_key, v_key_header, v_tids, v_found.passed_ids, v_found.full_tids);
  END IF;

  -- In the transaction that takes: what it takes never lies under the long lease of a worker that has nothing.
  IF v_is_idle AND v_tids <> '{}' THEN
    UPDATE hawser_data.workers AS w SET is_idle = false, beat_at = clock_timestamp() WHERE w.id = p_worker AND w.gone_at IS NULL
    RETURNING hawser.announce_lease(w.lease_ms) INTO v_done;
  END IF;

  RETURN QUERY
  WITH taken AS (
    UPDATE hawser_data.queue AS q
       SET worker = p_worker, attempts = CASE WHEN q.rank = ANY (v_tried) THEN least(q.attempts + 1, 32767) ELSE q.attempts END,
           is_suspect = q.is_suspect OR q.rank = ANY (v_left), was_running = q.was_running OR q.rank = ANY (v_left) AND q.begun_by IS NOT DISTINCT FROM q.worker, begun_by = NULL,
           keep_ms = CASE WHEN v_keep_ms IS NULL OR q.to_all THEN q.keep_ms ELSE coalesce(q.keep_ms, (v_keep_ms ->> q.topic)::integer) END
     WHERE q.ctid = ANY (v_tids)
    RETURNING q.*
  )
  SELECT t.topic, t.recipient, t.role, t.rank, t.id, t.key, t.payload, @headers_of(t)@, t.attempts::integer, t.is_suspect, t.origin, t.enqueued_at, NULL::integer,
         t.unique_key IS NOT NULL, t.keep_ms IS NOT NULL, t.was_running, v_has_more
    FROM taken AS t
  UNION ALL
  SELECT u.topic, u.recipient, u.role, u.rank, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, v_has_more
    FROM unnest(v_found.topics, v_found.recipients, v_found.roles, v_upto) AS u (topic, recipient, role, rank)
  UNION ALL
  SELECT l.topic, '', '', 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, v_wait_ms, NULL, NULL, NULL, v_has_more FROM unnest(v_limited) AS l (topic)
   ORDER BY 4;
END
