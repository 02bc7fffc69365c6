#variable_conflict use_column
DECLARE
  v_rate CONSTANT text[] := regexp_match(limit_topic.rate, '^([1-9][0-9]{0,6})/(s|m|h|d)$');
  -- Rounded up: starts never exceed the rate.
  v_interval CONSTANT bigint := ceil(CASE v_rate[2] WHEN 's' THEN 1 WHEN 'm' THEN 60 WHEN 'h' THEN 3600 ELSE 86400 END * 1000000.0 / v_rate[1]::integer);
  -- A start may come so late, since no place was free, before it is lost: a second. Without effect on a rate of minutes.
  v_burst CONSTANT integer := CASE WHEN v_rate IS NOT NULL THEN coalesce(limit_topic.burst, CASE WHEN v_interval < 50000000 THEN 1 + ceil(1000000.0 / v_interval) ELSE 1 END) END;
  v_now bigint;
  v_before hawser_data.topic_settings;
  v_after hawser_data.topic_settings;
  v_fault text;
  v_done boolean;
BEGIN
  v_fault := CASE
    WHEN limit_topic.rate IS NOT NULL AND v_rate IS NULL THEN
      format('the argument rate is %s, and must be a number and a unit, such as 100/s. Give one such as 100/s, 10/m, 500/h or 1000/d', to_json(limit_topic.rate))
    WHEN limit_topic.burst IS NOT NULL AND v_rate IS NULL THEN 'the argument burst belongs to a rate. Give a rate, too'
    WHEN limit_topic.key_header IS NOT NULL AND limit_topic.running_per_key IS NULL THEN
      'the argument key_header belongs to running_per_key. Give that, too'
  END;
  IF v_fault IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = 'hawser.limit_topic: ' || split_part(v_fault, '. ', 1),
      HINT = split_part(v_fault, '. ', 2) || '.';
  END IF;
  limited := num_nonnulls(limit_topic.rate, limit_topic.running, limit_topic.running_per_key) > 0;
  v_done := hawser.commit_durably();
  INSERT INTO hawser_data.topic_settings AS s (topic) VALUES (limit_topic.topic)
  ON CONFLICT (topic) DO UPDATE SET topic = excluded.topic RETURNING s.* INTO v_before;
  v_now := extract(epoch FROM clock_timestamp()) * 1000000;
  UPDATE hawser_data.topic_settings AS s
     SET rate = limit_topic.rate, interval_us = v_interval, burst = v_burst, running = limit_topic.running,
         running_per_key = limit_topic.running_per_key, key_header = lower(limit_topic.key_header COLLATE "C"),
         -- As many of the burst are used as were before.
         full_at_us = CASE
           WHEN v_interval IS NOT NULL AND v_before.interval_us IS NOT NULL THEN
             v_now + ceil(least(v_burst * v_interval, greatest(0, v_before.full_at_us - v_now)::numeric * v_interval / v_before.interval_us))
           ELSE 0
         END
   WHERE s.topic = limit_topic.topic
  RETURNING s.* INTO v_after;
  IF (v_before.rate, v_before.burst, v_before.running, v_before.running_per_key, v_before.key_header)
     IS DISTINCT FROM (v_after.rate, v_after.burst, v_after.running, v_after.running_per_key, v_after.key_header) THEN
    PERFORM hawser.record_act('limit', limit_topic.topic, NULL, jsonb_build_object(
      'rate', v_after.rate, 'burst', v_after.burst, 'running', v_after.running, 'running_per_key', v_after.running_per_key,
      'key_header', v_after.key_header
    ));
  END IF;
  IF v_before.running_per_key IS NOT NULL THEN
    -- What waits for others of its key may start under other limits.
    UPDATE hawser_data.queue AS q SET behind = NULL WHERE q.topic = limit_topic.topic AND q.behind >= @QueueConstants.behind_limit@;
  END IF;
  IF NOT limited THEN
    DELETE FROM hawser_data.topic_settings AS s WHERE s.topic = limit_topic.topic AND NOT @has_settings(s)@;
    DELETE FROM hawser_data.topic_starts AS s WHERE s.topic = limit_topic.topic;
  ELSIF NOT @is_limited(v_before)@ THEN
    -- What workers have counts from now on. They give back what they have not begun.
    INSERT INTO hawser_data.topic_starts (topic, recipient, role, rank, worker, started_at, limit_key)
    SELECT q.topic, q.recipient, q.role, q.rank, q.worker, clock_timestamp(),
           CASE WHEN limit_topic.running_per_key IS NOT NULL THEN hawser.limit_key(@user_key(q)@, q.headers, lower(limit_topic.key_header COLLATE "C")) END
      FROM hawser_data.queue AS q
      JOIN hawser_data.workers AS w ON w.id = q.worker AND w.gone_at IS NULL
     WHERE q.topic = limit_topic.topic
    ON CONFLICT DO NOTHING;
  END IF;
  PERFORM pg_notify(@QueueConstants.settings_channel@, limit_topic.topic) WHERE pg_notification_queue_usage() < 0.9;
END
