#variable_conflict use_column
DECLARE
  v_role CONSTANT text := CASE current_setting('role') WHEN 'none' THEN session_user::text ELSE current_setting('role') END;
  v_done boolean;
BEGIN
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  -- In one order, so that no two wait for each other.
  gone_workers := ARRAY(
    SELECT w.id FROM hawser_data.workers AS w
     WHERE w.name = p_name AND w.role = v_role AND w.gone_at IS NULL
     ORDER BY w.id
       FOR NO KEY UPDATE
  );
  IF gone_workers <> '{}' THEN
    UPDATE hawser_data.workers AS w SET gone_at = clock_timestamp() WHERE w.id = ANY (gone_workers);
    v_done := hawser.wake_topics(ARRAY(
      SELECT DISTINCT t.topic FROM hawser_data.workers AS w, unnest(w.topics) AS t (topic) WHERE w.id = ANY (gone_workers)
    ));
  END IF;
END
