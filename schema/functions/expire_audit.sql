#variable_conflict use_column
DECLARE
  v_days CONSTANT integer := coalesce((SELECT s.audit_retention_days FROM hawser_peer_data.database_settings AS s), @DatabaseSettings.audit_retention_days@);
  v_excess record;
  v_gone record;
BEGIN
  -- Ids are in the order of time.
  DELETE FROM hawser_data.audit_records AS a
   WHERE a.id = ANY (ARRAY(
     SELECT o.id FROM (SELECT f.id, f.at FROM hawser_data.audit_records AS f ORDER BY f.id LIMIT @StoreConstants.audit_page_rows@) AS o
      WHERE o.at < clock_timestamp() - make_interval(days => v_days)
   ));
  GET DIAGNOSTICS deleted = ROW_COUNT;
  -- Of each login for itself: nobody can push out what others have done. Who pushes out its own acts leaves a record of it.
  FOR v_excess IN
    SELECT a.login, count(*) - @StoreConstants.audit_rows_per_login@ AS excess FROM hawser_data.audit_records AS a
     GROUP BY a.login HAVING count(*) > @StoreConstants.audit_rows_per_login@
  LOOP
    WITH gone AS (
      DELETE FROM hawser_data.audit_records AS a
       WHERE a.id = ANY (ARRAY(
         SELECT o.id FROM hawser_data.audit_records AS o WHERE o.login = v_excess.login
          ORDER BY o.id LIMIT least(v_excess.excess, @StoreConstants.audit_page_rows@)
       ))
      RETURNING a.at
    )
    SELECT count(*) AS rows, min(g.at) AS since, max(g.at) AS until INTO v_gone FROM gone AS g;
    deleted := deleted + v_gone.rows;
    PERFORM hawser.record_act('expire_audit', v_excess.login, v_gone.rows, jsonb_build_object('since', v_gone.since, 'until', v_gone.until));
  END LOOP;
END
