#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := (SELECT c.roles FROM hawser.callers_roles() AS c);
  v_days CONSTANT integer := coalesce(
    (SELECT s.dead_letter_retention_days FROM hawser_peer_data.database_settings AS s), @DatabaseSettings.dead_letter_retention_days@);
BEGIN
  -- Not waited for: its holder does the same work, or another peer waits for it. What is left goes the next time.
  IF NOT hawser.lock_dead_letters(false) THEN
    RETURN;
  END IF;
  DELETE FROM hawser_data.dead_letters AS d
   WHERE d.id = ANY (ARRAY(
     SELECT o.id
       FROM hawser_data.dead_letters AS o
      WHERE o.created_at < clock_timestamp() - make_interval(days => v_days) AND @is_own(o)@
      ORDER BY o.created_at
      LIMIT least(p_max_rows, @StoreConstants.dead_letter_rows@)
        FOR UPDATE SKIP LOCKED
   ));
  GET DIAGNOSTICS deleted = ROW_COUNT;
  -- Who served a topic so long ago is forgotten, too.
  DELETE FROM hawser_data.served_topics AS s
   WHERE (s.role, s.topic) IN (
     SELECT o.role, o.topic FROM hawser_data.served_topics AS o
      WHERE o.served_until < clock_timestamp() - make_interval(days => v_days)
      LIMIT @StoreConstants.dead_letter_rows@ FOR UPDATE SKIP LOCKED
   );
  PERFORM hawser.expire_results();
  PERFORM hawser.expire_originals();
  PERFORM hawser.expire_audit();
END
