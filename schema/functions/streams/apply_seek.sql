DECLARE
  v_present record;
  v_asked text;
BEGIN
  sought := false;
  FOR v_present IN SELECT h.* FROM hawser.lock_handlers('stream', p_name) AS h LOOP
    v_asked := obj_description(to_regtype(v_present.token_type), 'pg_type');
    CONTINUE WHEN v_asked IS NULL OR v_asked !~ '^[-0-9a-f]{36} (all|[0-9]{1,16}|[12][0-9]{3}-[-0-9T:.]+Z)$';
    UPDATE hawser_bridge_data.stream_subscriptions AS s
       SET turn = s.turn + 1, generation = s.generation + 1 + floor(random() * 1048576)::bigint, seek = left(v_asked, 36),
           start = substr(v_asked, 38), stream_created = NULL, position = NULL, done = '{}', last_done = NULL, last_done_at = NULL,
           nothing_until = 0, lag = NULL, missing = 0, missing_reason = NULL, missing_from = NULL, missing_to = NULL, missing_at = NULL,
           paused = false, problem = NULL, written_at = clock_timestamp()
      FROM hawser_bridge_data.nats_handlers AS h
     WHERE h.kind = 'stream' AND h.subject = p_name AND h.wrapper = v_present.wrapper AND s.handler_id = h.id
       AND s.seek IS DISTINCT FROM left(v_asked, 36);
    sought := sought OR FOUND;
  END LOOP;
  IF sought THEN
    PERFORM hawser.record_act('seek', p_name, NULL, jsonb_build_object('start', substr(v_asked, 38)));
    PERFORM pg_notify('hawser_nats_handlers', '{}') WHERE pg_notification_queue_usage() < 0.9;
  END IF;
END
