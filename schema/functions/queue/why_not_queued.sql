#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_job record;
  v_dead_id bigint;
  v_open record;
BEGIN
  v_job := hawser.job(p_id);
  holder := v_job.listener;
  since := v_job.ended_at;
  IF v_job.state = 'dead' THEN
    v_dead_id := (SELECT d.id FROM hawser_data.dead_letters AS d WHERE d.job_id = p_id AND @is_own(d)@ LIMIT 1);
    explanation := format('it is a dead letter since its attempt %s: %s: %s', v_job.attempts, v_job.error_code, v_job.error_message);
    remedy := CASE
      WHEN v_dead_id IS NULL THEN 'It was discarded: enqueue another one'
      WHEN v_job.error_code = 'expired' THEN format('Start more workers, or give a longer ttl. hawser dead retry %s has it handled without one', v_dead_id)
      WHEN v_job.error_code = 'not_permitted' AND to_regrole(quote_ident(v_job.role)) IS NULL THEN format('Enqueue another one as a role that is there; hawser dead discard %s', v_dead_id)
      WHEN v_job.error_code = 'not_permitted' THEN format('GRANT hawser_peer TO %I, then hawser dead retry %s', v_job.role, v_dead_id)
      ELSE format('Mend the handler, then hawser dead retry %s', v_dead_id)
    END;
    RETURN;
  ELSIF v_job.state = 'done' THEN
    explanation := format('the worker %s has handled it', to_json(v_job.listener));
    RETURN;
  ELSIF v_job.state = 'cancelled' THEN
    explanation := 'it was cancelled' || coalesce(': ' || v_job.error_message, '');
    remedy := 'Enqueue another one';
    RETURN;
  END IF;
  IF EXISTS (SELECT FROM hawser_data.queue AS o WHERE o.id = p_id AND o.later = 'nats' AND @is_own(o)@)
     OR EXISTS (SELECT FROM hawser.outbox_find(p_id, NULL, 1) AS f WHERE f.waits) THEN
    explanation := 'it is for NATS';
    remedy := 'hawser outbox status';
    RETURN;
  END IF;
  IF p_id > coalesce(pg_sequence_last_value('hawser_data.outbox_id_seq'), 0) OR p_id < 1 THEN
    explanation := 'no message has had this id yet';
    remedy := 'Look for the id that the enqueuing function returned';
    RETURN;
  END IF;
  -- A transaction that has written into the queue, the oldest one.
  v_open := hawser.why_locked(NULL, false);
  holder := v_open.holder;
  since := v_open.since;
  explanation := CASE
    WHEN holder IS NULL THEN 'it was handled or cancelled, and nothing of it is kept; or it was rolled back, or is of a role that you are not a member of'
    ELSE format('the transaction that enqueued it may not have ended: %s has written into the queue. Or it was handled, and nothing of it is kept, or rolled back', v_open.explanation)
  END;
  remedy := coalesce(v_open.remedy || ', which undoes what it has enqueued', 'hawser topics keep TOPIC TIME keeps what becomes of later ones');
END
