#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  v_count integer;
  v_next timestamptz;
BEGIN
  -- Role by role, each with what is due first, so that one with many schedules holds up nobody else.
  RETURN QUERY
    WITH RECURSIVE roles AS (
      SELECT min(s.role) AS role FROM hawser_data.schedules AS s
      UNION ALL
      SELECT (SELECT min(s.role) FROM hawser_data.schedules AS s WHERE s.role > r.role) FROM roles AS r WHERE r.role IS NOT NULL
    )
    SELECT d.role, d.name, d.cron, d.timezone, d.missed, d.since, d.revision, octet_length(d.payload), NULL::timestamptz, NULL::bigint
      FROM roles AS r
     CROSS JOIN LATERAL (
       SELECT s.*, row_number() OVER (ORDER BY s.next_at) AS nth
         FROM hawser_data.schedules AS s WHERE s.role = r.role AND s.next_at <= v_now ORDER BY s.next_at LIMIT p_limit
     ) AS d
     ORDER BY d.nth, d.next_at
     LIMIT p_limit;
  GET DIAGNOSTICS v_count = ROW_COUNT;
  as_of := v_now;
  IF v_count = p_limit THEN
    due_in_ms := 0;
  ELSE
    WITH RECURSIVE roles AS (
      SELECT min(s.role) AS role FROM hawser_data.schedules AS s
      UNION ALL
      SELECT (SELECT min(s.role) FROM hawser_data.schedules AS s WHERE s.role > r.role) FROM roles AS r WHERE r.role IS NOT NULL
    )
    SELECT min((SELECT min(s.next_at) FROM hawser_data.schedules AS s WHERE s.role = r.role AND s.next_at > v_now)) INTO v_next FROM roles AS r;
    due_in_ms := ceil(extract(epoch FROM v_next - v_now) * 1000);
  END IF;
  RETURN NEXT;
END
