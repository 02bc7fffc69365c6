DECLARE
  v_role CONSTANT text := coalesce(nullif(current_setting('role'), 'none'), session_user);
  v_topic text;
BEGIN
  -- The functions that only one of both kinds of workers may call show which the caller is. An administrator is both.
  SELECT t.topic INTO v_topic
    FROM (
      SELECT min(u.topic) FILTER (WHERE starts_with(u.topic, @QueueConstants.function_prefix@)) AS of_function,
             min(u.topic) FILTER (WHERE NOT starts_with(u.topic, @QueueConstants.function_prefix@)) AS of_others
        FROM unnest(p_topics) AS u (topic)
    ) AS n
   CROSS JOIN LATERAL (VALUES (n.of_function, 'hawser.drop_unsubscribed()'), (n.of_others, 'hawser.paused_topics(text[])')) AS t (topic, function)
   WHERE t.topic IS NOT NULL AND NOT has_function_privilege(v_role, t.function, 'EXECUTE')
   LIMIT 1;
  checked := NOT FOUND;
  IF NOT checked THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('internal_topic'),
      MESSAGE = format('the topic %s is not for %s', to_json(left(v_topic, 60)), to_json(v_role)),
      HINT = 'What waits for subscribed functions is for hawser serve, all else for members of hawser_peer.';
  END IF;
END
