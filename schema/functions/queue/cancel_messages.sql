#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_ids bigint[];
  v_states text[];
  v_ranks bigint[];
  v_cancelled bigint[];
BEGIN
  WITH chosen AS MATERIALIZED (
    SELECT n.*
      FROM hawser.queue_places(ARRAY[p_destination]) AS p
     CROSS JOIN LATERAL (
       SELECT q.id, q.topic, q.recipient, q.role, q.rank, q.later FROM hawser_data.queue AS q
        WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.rank > p_after AND @is_own(q)@
          AND (q.later IS NOT DISTINCT FROM 'nats') = (p_kind = 'nats')
          AND (p_key IS NULL OR @user_key(q)@ = p_key) AND (p_before IS NULL OR q.enqueued_at < p_before)
        ORDER BY q.rank LIMIT p_most
     ) AS n
     WHERE v_roles IS NULL OR p.role = ANY (v_roles)
     ORDER BY rank LIMIT p_most
  ), locked AS MATERIALIZED (
    -- Those that are due later do not become due meanwhile. What another session is about to cancel or to bring in is left.
    SELECT c.*
      FROM chosen AS c
     CROSS JOIN LATERAL (
       SELECT FROM hawser_data.queue AS q
        WHERE q.topic = c.topic AND q.recipient = c.recipient AND q.role = c.role AND q.rank = c.rank AND coalesce(q.later, '') = c.later FOR UPDATE SKIP LOCKED
     ) AS l
  ), queued AS (
    SELECT array_agg(c.topic) AS topics, array_agg(c.recipient) AS recipients, array_agg(c.role) AS roles, array_agg(c.rank) AS ranks
      FROM (SELECT w.* FROM chosen AS w WHERE w.later IS NULL UNION ALL SELECT l.* FROM locked AS l) AS c
  ), asked AS MATERIALIZED (
    SELECT c.rank, c.state FROM queued AS q CROSS JOIN LATERAL hawser.cancel_queued(q.topics, q.recipients, q.roles, q.ranks) AS c
  )
  -- Also those that workers have ended meanwhile: a page with fewer than it may have is the last one.
  SELECT array_agg(c.id ORDER BY c.rank), array_agg(coalesce(a.state, 'not_waiting') ORDER BY c.rank), array_agg(c.rank ORDER BY c.rank),
         array_agg(c.id ORDER BY c.id) FILTER (WHERE a.state IS NOT NULL)
    INTO v_ids, v_states, v_ranks, v_cancelled
    FROM chosen AS c LEFT JOIN asked AS a ON a.rank = c.rank;
  IF v_cancelled IS NOT NULL THEN
    PERFORM hawser.record_act(
      'cancel', p_destination, cardinality(v_cancelled),
      jsonb_build_object('ids', to_jsonb(v_cancelled[:@StoreConstants.audit_ids@]), 'kind', p_kind, 'key', left(p_key, 255), 'before', p_before)
    );
  END IF;
  RETURN QUERY SELECT c.* FROM unnest(v_ids, v_states, v_ranks) AS c (id, state, rank);
END
