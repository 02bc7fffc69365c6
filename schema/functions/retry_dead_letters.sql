#variable_conflict use_column
DECLARE
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
  SELECT r.id, r.refusal, NULL::boolean
    FROM unnest(v_refused, v_refusals) AS r (id, refusal);

  RETURN QUERY
  SELECT r.id, CASE WHEN NOT r.queued THEN 'handler' END, r.queued
    FROM hawser.retry_subscribed(v_ids) AS r;

  RETURN QUERY
  SELECT e.id, NULL::text, true
    FROM hawser.retry_enqueued(v_ids) AS e
  UNION ALL
  SELECT q.id, NULL::text, true
    FROM hawser.retry_queued(v_ids) AS q;

  SELECT array_agg(a.id), array_agg(a.topic) INTO v_ids, v_topics
    FROM unnest(v_ids, v_topics) AS a (id, topic)
   WHERE NOT EXISTS (SELECT FROM hawser_data.dead_letters AS d WHERE d.id = a.id);
  PERFORM hawser.record_dead_letters('retry', v_ids, v_topics);
END
