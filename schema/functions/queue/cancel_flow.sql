#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_ids bigint[];
  v_states text[];
  v_role text;
  v_is_own CONSTANT boolean := EXISTS (
    SELECT FROM (
      SELECT h.role, h.role_id FROM hawser_data.queue AS h WHERE h.id = cancel_flow.of_id
      UNION ALL
      (
        SELECT h.role, h.role_id FROM hawser_data.flow_edges AS e JOIN hawser_data.queue AS h ON h.id = e.after_id
         WHERE e.before_id = cancel_flow.of_id ORDER BY e.after_id LIMIT 1
      )
    ) AS l WHERE @is_own(l)@
  );
BEGIN
  -- Those that come after others are of their roles: all of a flow is of one. Others learn neither that it is there, nor its size.
  v_ids := ARRAY(
    WITH RECURSIVE flow AS (
      SELECT cancel_flow.of_id AS id
      UNION
      SELECT n.id
        FROM flow AS f
       CROSS JOIN LATERAL (
         SELECT e.after_id AS id FROM hawser_data.flow_edges AS e WHERE e.before_id = f.id
         UNION ALL
         SELECT e.before_id FROM hawser_data.flow_edges AS e WHERE e.after_id = f.id
       ) AS n
       WHERE v_is_own
    )
    SELECT f.id FROM flow AS f LIMIT @QueueConstants.flow_messages@ + 1
  );
  IF cardinality(v_ids) > @QueueConstants.flow_messages@ THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('the flow of the message %s has more than @QueueConstants.flow_messages@ messages', cancel_flow.of_id),
      HINT = 'Cancel its topics with hawser.cancel_messages, or hawser jobs cancel --topic.';
  END IF;
  -- Those that are due later do not become due meanwhile. In one order, so that no two wait for each other.
  PERFORM FROM hawser_data.queue AS q WHERE q.id = ANY (v_ids) AND @is_later_job(q)@ AND @is_own(q)@ ORDER BY q.id FOR UPDATE;
  WITH queued AS (
    SELECT array_agg(q.topic) AS topics, array_agg(q.recipient) AS recipients, array_agg(q.role) AS roles, array_agg(q.rank) AS ranks
      FROM hawser_data.queue AS q WHERE q.id = ANY (v_ids) AND q.later IS DISTINCT FROM 'nats' AND @is_own(q)@
  )
  SELECT array_agg(s.id ORDER BY s.id), array_agg(s.state ORDER BY s.id), min(q.roles[1]) INTO v_ids, v_states, v_role
    FROM queued AS q
   CROSS JOIN LATERAL hawser.cancel_queued(q.topics, q.recipients, q.roles, q.ranks) AS s
   WHERE q.ranks IS NOT NULL;
  -- As in cancel.
  IF v_role <> coalesce(nullif(current_setting('role'), 'none'), session_user) THEN
    PERFORM hawser.record_act(
      'cancel_flow', NULL, cardinality(v_ids),
      jsonb_build_object('of', cancel_flow.of_id, 'ids', to_jsonb(v_ids[:@StoreConstants.audit_ids@]))
    );
  END IF;
  RETURN QUERY SELECT s.* FROM unnest(v_ids, v_states) AS s (id, state);
END
