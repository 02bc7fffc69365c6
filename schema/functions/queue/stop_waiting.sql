DECLARE
  v_lock bigint;
BEGIN
  waited := true;
  FOREACH v_lock IN ARRAY hawser.wait_locks(p_topics) LOOP
    waited := pg_advisory_unlock_shared(v_lock) AND waited;
  END LOOP;
END
