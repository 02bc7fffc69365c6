#variable_conflict use_column
DECLARE
  v_role CONSTANT text := CASE current_setting('role') WHEN 'none' THEN session_user::text ELSE current_setting('role') END;
BEGIN
  remembered := true;
  -- Another one of the role that has just ended is not waited for: what it writes says as much.
  WITH ended AS MATERIALIZED (
    SELECT DISTINCT ON (u.topic) u.topic, u.name, to_timestamp(u.until_us / 1000000.0) AS until
      FROM unnest(p_topics, p_names, p_until_us) AS u (topic, name, until_us)
     WHERE NOT starts_with(u.topic, @QueueConstants.function_prefix@) ORDER BY u.topic, u.until_us DESC
  ), known AS MATERIALIZED (
    SELECT s.topic FROM hawser_data.served_topics AS s WHERE s.role = v_role AND s.topic = ANY (p_topics) ORDER BY s.topic FOR UPDATE SKIP LOCKED
  ), renewed AS (
    UPDATE hawser_data.served_topics AS s SET name = e.name, served_until = e.until
      FROM ended AS e JOIN known AS k ON k.topic = e.topic
     WHERE s.role = v_role AND s.topic = e.topic AND s.served_until < e.until
  )
  INSERT INTO hawser_data.served_topics (role, topic, name, served_until)
  SELECT v_role, e.topic, e.name, e.until FROM ended AS e
   WHERE NOT EXISTS (SELECT FROM hawser_data.served_topics AS s WHERE s.role = v_role AND s.topic = e.topic)
   ORDER BY e.topic
  ON CONFLICT (role, topic) DO NOTHING;
  DELETE FROM hawser_data.served_topics AS s
   WHERE s.role = v_role AND s.topic = ANY (ARRAY(
     SELECT o.topic FROM hawser_data.served_topics AS o
      WHERE o.role = v_role AND o.topic = ANY (ARRAY(
        SELECT a.topic FROM hawser_data.served_topics AS a WHERE a.role = v_role
         ORDER BY a.served_until DESC, a.topic OFFSET @QueueConstants.served_topics@
      ))
        FOR UPDATE SKIP LOCKED
   ));
END
