#variable_conflict use_column
DECLARE
  v_tids tid[];
  v_done boolean;
BEGIN
  v_done := hawser.commit_durably();
  -- In the order of those who retry: dead letters before the queue.
  PERFORM hawser.lock_dead_letters(true);
  -- A worker that does not run any more gets no copies for all listeners.
  UPDATE hawser_data.workers AS w SET gone_at = clock_timestamp() WHERE w.name = p_from AND w.gone_at IS NULL;
  -- A handler that runs finds its row gone.
  WITH chosen AS MATERIALIZED (
    SELECT q.*
      FROM (
        SELECT a.topic, a.recipient, a.role FROM hawser.queue_places('{}') AS a WHERE a.recipient IN ('@' || p_from, @QueueConstants.priority_mark@ || '@' || p_from)
      ) AS p
     CROSS JOIN LATERAL (
       SELECT o.topic, o.recipient, o.role, o.rank FROM hawser_data.queue AS o
        WHERE o.topic = p.topic AND o.recipient = p.recipient AND o.role = p.role ORDER BY o.rank LIMIT p_most
     ) AS q
     ORDER BY q.rank LIMIT p_most
  ), locked AS MATERIALIZED (
    SELECT c.topic, c.recipient, c.role, c.rank, q.tid
      FROM (SELECT c.* FROM chosen AS c ORDER BY c.rank) AS c
     CROSS JOIN LATERAL (
       SELECT o.ctid AS tid FROM hawser_data.queue AS o
        WHERE o.topic = c.topic AND o.recipient = c.recipient AND o.role = c.role AND o.rank = c.rank FOR UPDATE
     ) AS q
  ), followed AS (
    -- Those that are to be cancelled would not be found under another recipient.
    UPDATE hawser_data.cancellations AS c SET recipient = CASE WHEN starts_with(l.recipient, @QueueConstants.priority_mark@) THEN @QueueConstants.priority_mark@ ELSE '' END || '@' || p_to
      FROM locked AS l
     WHERE c.topic = l.topic AND c.recipient = l.recipient AND c.role = l.role AND c.rank = l.rank
  )
  SELECT array_agg(l.tid) INTO v_tids FROM locked AS l;
  WITH written AS (
    UPDATE hawser_data.queue AS q SET recipient = CASE WHEN starts_with(q.recipient, @QueueConstants.priority_mark@) THEN @QueueConstants.priority_mark@ ELSE '' END || '@' || p_to, worker = NULL, behind = NULL
     WHERE q.ctid = ANY (v_tids)
    RETURNING q.topic
  )
  SELECT count(*), hawser.wake_topics(array_agg(DISTINCT w.topic)) INTO moved, v_done FROM written AS w;
  IF moved > 0 THEN
    PERFORM hawser.record_act('reassign', p_from, moved, jsonb_build_object('to', p_to, 'enqueued', true));
  END IF;
  -- With the last of them, those that may be retried.
  IF moved < p_most THEN
    UPDATE hawser_data.dead_letters AS d SET source = CASE WHEN starts_with(d.source, @QueueConstants.priority_mark@) THEN @QueueConstants.priority_mark@ ELSE '' END || '@' || p_to
     WHERE d.origin = 'queue' AND d.source IN ('@' || p_from, @QueueConstants.priority_mark@ || '@' || p_from);
  END IF;
END
