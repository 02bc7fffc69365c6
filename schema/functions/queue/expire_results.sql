DECLARE
  v_today CONSTANT bigint := extract(epoch FROM clock_timestamp())::bigint / 86400;
  v_segment integer;
  v_table text;
BEGIN
  truncated := 0;
  -- All days but the present one: a reader may have been there while a segment could have been emptied, and it holds other days' results
  -- since, or will.
  FOR v_segment IN SELECT (v_today + d.days) % @QueueConstants.result_segments@ FROM generate_series(1, @QueueConstants.result_segments@ - 1) AS d (days) LOOP
    CONTINUE WHEN NOT EXISTS (SELECT FROM hawser_data.results AS r WHERE r.segment = v_segment)
      OR EXISTS (SELECT FROM hawser_data.results AS r WHERE r.segment = v_segment AND r.expires_at > clock_timestamp());
    v_table := 'hawser_data.results_' || v_segment;
    BEGIN
      -- Not waited for: those who read results would wait behind it.
      EXECUTE 'LOCK TABLE ONLY ' || v_table || ' IN ACCESS EXCLUSIVE MODE NOWAIT';
      -- One may have come since.
      IF NOT EXISTS (SELECT FROM hawser_data.results AS r WHERE r.segment = v_segment AND r.expires_at > clock_timestamp()) THEN
        EXECUTE 'TRUNCATE TABLE ONLY ' || v_table;
        truncated := truncated + 1;
      END IF;
    EXCEPTION
      WHEN lock_not_available THEN
        NULL;
    END;
  END LOOP;
END
