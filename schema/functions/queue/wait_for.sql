DECLARE
  v_locks CONSTANT bigint[] := hawser.wait_locks(p_topics);
  v_held bigint[] := '{}';
  v_lock bigint;
  v_seen bigint;
  v_done boolean;
BEGIN
  v_done := set_config(@QueueConstants.waiting_setting@, 'on', false) IS NULL;
  -- A transaction that is to be prepared may not notify.
  waits := current_setting('max_prepared_transactions') = '0';
  FOREACH v_lock IN ARRAY v_locks LOOP
    EXIT WHEN NOT waits;
    -- Those who enqueue have it for an instant. Nobody is waited for: any login could have it.
    FOR nth IN 1 .. 100 LOOP
      waits := pg_try_advisory_lock_shared(v_lock);
      EXIT WHEN waits;
    END LOOP;
    IF waits THEN
      v_held := v_held || v_lock;
    END IF;
  END LOOP;
  IF NOT waits THEN
    FOREACH v_lock IN ARRAY v_held LOOP
      v_done := pg_advisory_unlock_shared(v_lock);
    END LOOP;
  END IF;
  -- Behind the locks. The first transaction id that is not given yet, which age() knows without giving one: a snapshot does not list
  -- transactions that began behind the last one that has ended. It knows 32 of the bits, and the snapshot the others.
  v_seen := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
  horizon := (v_seen + ((age('3'::xid)::bigint + 3 - v_seen) & 4294967295))::text::xid8;
END
