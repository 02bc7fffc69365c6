DECLARE
  v_here CONSTANT text := coalesce(hawser.present_cluster()::text, '-') || '/' || 'hawser_data.queue'::regclass::oid;
  v_table text;
  v_count bigint;
BEGIN
  adopted := 0;
  IF pg_is_in_recovery() OR (SELECT s.roles_at FROM hawser_data.outbox_state AS s) = v_here THEN
    RETURN;
  END IF;
  -- One at a time: the second one finds it done.
  PERFORM FROM hawser_data.outbox_state AS s WHERE s.roles_at <> v_here FOR UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  FOREACH v_table IN ARRAY ARRAY['queue', 'outbox', 'dead_letters', 'results', 'unique_keys'] LOOP
    EXECUTE format(
      'UPDATE hawser_data.%I AS t SET role_id = to_regrole(quote_ident(t.role))::oid::bigint WHERE t.role_id IS DISTINCT FROM to_regrole(quote_ident(t.role))::oid::bigint', v_table
    );
    GET DIAGNOSTICS v_count = ROW_COUNT;
    adopted := adopted + v_count;
  END LOOP;
  UPDATE hawser_data.outbox_state AS s SET roles_at = v_here;
END
