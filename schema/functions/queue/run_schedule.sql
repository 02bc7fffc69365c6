#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := date_trunc('second', clock_timestamp());
  v_role CONSTANT text := coalesce(nullif(current_setting('role'), 'none'), session_user);
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_found hawser_data.schedules[];
  v_schedule hawser_data.schedules;
  v_fault text;
  v_ran boolean;
BEGIN
  v_found := ARRAY(
    SELECT s FROM hawser_data.schedules AS s
     WHERE s.name = run_schedule.name AND (v_roles IS NULL OR s.role = ANY (v_roles)) AND s.role = coalesce(of_role, s.role)
     ORDER BY s.role <> v_role, s.role
  );
  v_schedule := v_found[1];
  IF v_schedule IS NULL THEN
    RETURN;
  END IF;
  -- Locks this schedule alone, and waits for no transaction of its owner.
  SELECT s.* INTO v_schedule FROM hawser_data.schedules AS s WHERE s.role = v_schedule.role AND s.name = v_schedule.name FOR UPDATE SKIP LOCKED;
  -- The first process that looks enqueues a due schedule: only a process can compute the next occurrence.
  v_fault := CASE
    WHEN NOT FOUND THEN 'a transaction that has not ended has changed or run it. Try again.'
    WHEN v_schedule.role <> v_role AND cardinality(v_found) > 1 THEN 'several roles have a schedule of this name. Name one of them by of_role.'
    WHEN v_schedule.problem IS NOT NULL THEN 'it does not run: ' || v_schedule.problem || '. Call hawser.schedule again, or enqueue a message yourself.'
    WHEN v_schedule.next_at <= v_now THEN 'it is due, and runs as soon as a worker, a peer or hawser serve looks. See that one runs.'
    WHEN v_schedule.since >= v_now THEN 'it has run in this second. Wait for a second.'
  END;
  IF v_fault IS NULL THEN
    SELECT r.enqueued = 1 INTO v_ran
      FROM hawser.run_schedules(jsonb_build_array(jsonb_build_object(
        'role', v_schedule.role, 'name', v_schedule.name, 'revision', v_schedule.revision, 'since', v_schedule.since,
        'upto', v_now, 'next_at', v_schedule.next_at, 'times', jsonb_build_array(v_now)
      ))) AS r;
    IF NOT v_ran THEN
      SELECT coalesce(s.problem, 'a transaction is enqueueing a message with its key') || '. Try again.' INTO v_fault
        FROM hawser_data.schedules AS s WHERE s.role = v_schedule.role AND s.name = v_schedule.name;
    END IF;
  END IF;
  IF v_fault IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('hawser.run_schedule: the schedule %s was not run: %s', to_json(run_schedule.name), split_part(v_fault, '. ', 1)),
      HINT = substr(v_fault, strpos(v_fault, '. ') + 2);
  END IF;
  id := currval('hawser_data.outbox_id_seq');
  PERFORM hawser.record_act('run_schedule', run_schedule.name, NULL, jsonb_build_object('role', v_schedule.role, 'id', id));
END
