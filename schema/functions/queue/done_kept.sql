#variable_conflict use_column
DECLARE
  v_done boolean;
BEGIN
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  -- In the order of done_batch, so that no two wait for each other. Who waits for another one here finds the row gone.
  WITH locked AS MATERIALIZED (
    SELECT m.nth, q.topic, q.role, q.role_id, q.rank, q.id, q.keep_ms, q.to_all, q.enqueued_at, q.attempts, q.worker, q.progress
      FROM (
        SELECT m.* FROM unnest(p_topics, p_recipients, p_roles, p_ranks) WITH ORDINALITY AS m (topic, recipient, role, rank, nth) ORDER BY m.rank
      ) AS m
     CROSS JOIN LATERAL (
       SELECT o.* FROM hawser_data.queue AS o
        WHERE o.topic = m.topic AND o.recipient = m.recipient AND o.role = m.role AND o.rank = m.rank FOR UPDATE
     ) AS q
  )
  SELECT hawser.keep_ended(jsonb_agg(@kept_of(l)@ || jsonb_build_object('attempts', l.attempts + 1, 'duration_ms', r.of -> 1, 'result', r.of -> 2)), 'done', NULL, NULL)
    INTO v_done
    FROM locked AS l LEFT JOIN jsonb_array_elements(p_results) AS r (of) ON (r.of ->> 0)::bigint = l.nth
   WHERE l.keep_ms IS NOT NULL;
  ended := hawser.done_batch(p_topics, p_recipients, p_roles, p_ranks, p_handling);
END
