#variable_conflict use_column
DECLARE
  -- Before all other statements: what they do not see, this does not show either.
  v_seen CONSTANT pg_snapshot := pg_current_snapshot();
  v_role text := '';
  v_flows_in_ms integer;
  v_next timestamptz;
BEGIN
  -- With a snapshot for several statements, of two that each handle the last but one it holds for, each could leave it to the other.
  IF current_setting('transaction_isolation') = 'read committed' THEN
    LOOP
      SELECT d.role INTO v_role FROM hawser_data.flow_ends AS d WHERE d.role > v_role ORDER BY d.role LIMIT 1;
      EXIT WHEN NOT FOUND;
      BEGIN
        v_flows_in_ms := least(v_flows_in_ms, CASE WHEN hawser.end_flows(v_role) THEN 0 ELSE 500 END);
      EXCEPTION WHEN OTHERS THEN
        v_flows_in_ms := least(v_flows_in_ms, 1000);
        problem := format('the messages behind those that have ended, of the role %s: %s', to_json(v_role), SQLERRM);
        RAISE WARNING 'hawser: cannot release %', problem;
      END;
    END LOOP;
  END IF;

  SELECT coalesce(jsonb_agg(jsonb_build_array(f.role, f.ms)), '[]') INTO due_from
    FROM (
      SELECT e.of ->> 0 AS role, min((e.of ->> 1)::bigint) AS ms
        FROM hawser.least_due('peer', CASE WHEN p_from IS NOT NULL THEN p_seen END) AS l
       CROSS JOIN LATERAL jsonb_array_elements(coalesce(p_from, '[]') || l.due_from) AS e (of)
       GROUP BY 1
    ) AS f;
  SELECT l.brought, l.due_from, least(l.due_in_ms, v_flows_in_ms), coalesce(l.problem, bring_due.problem) INTO brought, due_from, due_in_ms, problem
    FROM hawser.bring_later('peer', due_from) AS l;
  seen := v_seen;

  -- Role by role, as in due_schedules.
  WITH RECURSIVE roles AS (
    SELECT min(s.role) AS role FROM hawser_data.schedules AS s
    UNION ALL
    SELECT (SELECT min(s.role) FROM hawser_data.schedules AS s WHERE s.role > r.role) FROM roles AS r WHERE r.role IS NOT NULL
  )
  SELECT min((SELECT min(s.next_at) FROM hawser_data.schedules AS s WHERE s.role = r.role)) INTO v_next FROM roles AS r;
  -- greatest would take nothing for something that is due now. A schedule that is new is due since ever.
  IF v_next IS NOT NULL THEN
    schedule_in_ms := ceil(
      extract(epoch FROM least(greatest(v_next, clock_timestamp()), clock_timestamp() + interval '1 day') - clock_timestamp()) * 1000
    );
  END IF;
END
