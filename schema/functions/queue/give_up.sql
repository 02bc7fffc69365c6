#variable_conflict use_column
DECLARE
  v_kept jsonb;
  v_done boolean;
BEGIN
  v_done := hawser.check_places(ARRAY[p_topic]);
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  v_done := hawser.commit_durably();
  IF starts_with(p_topic, @QueueConstants.function_prefix@) THEN
    dead_letter := hawser.give_up_subscribed(p_worker, p_topic, p_role, p_rank, p_error_code, p_error_message, p_failure);
  ELSE
    WITH gone AS (
      DELETE FROM hawser_data.queue AS q
       WHERE q.topic = p_topic AND q.recipient = p_recipient AND q.role = p_role AND q.rank = p_rank AND q.worker = p_worker
      RETURNING q.*
    )
    INSERT INTO hawser_data.dead_letters AS d
      (origin, source, enqueued_at, rank, topic, payload, headers, error_code, error_message, attempts, message_id, stack, failures, role, role_id, awaited_as, job_id, keep_ms, progress, given_back, channel_id, worker)
    SELECT 'queue', g.recipient, g.enqueued_at, g.rank, g.topic, g.payload, @headers_of(g)@, p_error_code, p_error_message,
           g.attempts + (p_failure IS NOT NULL)::integer, coalesce(g.message_id, g.id::text), p_stack, @with_failure(g)@, g.role, g.role_id, g.awaited_as,
           g.id, g.keep_ms, g.progress, g.given_back, g.channel_id,
           (SELECT w.name FROM hawser_data.workers AS w WHERE w.id = p_worker)
      FROM gone AS g
    RETURNING d.id, (
      SELECT hawser.end_marked(jsonb_build_array(@marks_of(g)@), false) FROM gone AS g WHERE @is_marked(g)@
    ), (
      SELECT jsonb_build_array(@kept_of(g)@ || jsonb_build_object('attempts', d.attempts)) FROM gone AS g WHERE g.keep_ms IS NOT NULL
    ) INTO dead_letter, v_done, v_kept;
  END IF;
  IF dead_letter IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('message_gone'),
      MESSAGE = format('the worker %s does not have the message of rank %s of topic %s any more', p_worker, p_rank, to_json(left(p_topic, 60))),
      HINT = 'Begin a new worker with hawser.open_worker, which replaces this one.';
  END IF;
  IF v_kept IS NOT NULL THEN
    v_done := hawser.keep_ended(v_kept, 'dead', p_error_code, p_error_message);
  END IF;
END
