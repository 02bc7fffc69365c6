DECLARE
  v_today CONSTANT bigint := extract(epoch FROM clock_timestamp())::bigint / 86400;
  v_segment integer;
  v_table text;
BEGIN
  truncated := 0;
  -- No row comes into the segments of these days any more: the last day of a result that is new is seven days from now.
  FOR v_segment IN SELECT (v_today - d.days) % @QueueConstants.result_segments@ FROM generate_series(1, 3) AS d (days) LOOP
    CONTINUE WHEN NOT EXISTS (SELECT FROM hawser_data.results AS r WHERE r.segment = v_segment)
      OR EXISTS (SELECT FROM hawser_data.results AS r WHERE r.segment = v_segment AND r.expires_at > clock_timestamp());
    v_table := 'hawser_data.results_' || v_segment;
    BEGIN
      -- Not waited for: those who read results would wait behind it.
      EXECUTE 'LOCK TABLE ONLY ' || v_table || ' IN ACCESS EXCLUSIVE MODE NOWAIT';
      EXECUTE 'TRUNCATE TABLE ONLY ' || v_table;
      truncated := truncated + 1;
    EXCEPTION
      WHEN lock_not_available THEN
        NULL;
    END;
  END LOOP;
END
