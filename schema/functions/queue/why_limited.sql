#variable_conflict use_column
DECLARE
  v_at CONSTANT timestamptz := clock_timestamp();
  v_now CONSTANT bigint := extract(epoch FROM v_at) * 1000000;
  s hawser_data.topic_settings;
  v_running bigint;
  v_limit_key text;
  v_role text;
  v_of_key bigint;
  v_locked record;
  v_header text;
BEGIN
  is_met := true;
  SELECT o.* INTO s FROM hawser_data.topic_settings AS o WHERE o.topic = p_topic;
  IF NOT @is_limited(s)@ THEN
    RETURN;
  END IF;
  -- Of one that a worker has, the start is counted already.
  IF EXISTS (SELECT FROM hawser_data.queue AS q WHERE q.id = p_id AND NOT @is_free(q)@) THEN
    RETURN;
  END IF;
  -- Nothing starts while a transaction changes the settings. Takes, which read workers, lock them only for a moment.
  v_locked := hawser.why_locked(ARRAY(SELECT o.xmax::text FROM hawser_data.topic_settings AS o WHERE o.topic = p_topic), true);
  IF v_locked.holder IS NOT NULL THEN
    is_met := false;
    holder := v_locked.holder;
    since := v_locked.since;
    explanation := format('%s has locked the settings of the topic, in a transaction that has not ended', v_locked.explanation);
    remedy := v_locked.remedy;
    RETURN;
  END IF;
  SELECT count(*), min(t.started_at) INTO v_running, since FROM hawser_data.topic_starts AS t WHERE t.topic = p_topic AND @is_started(t)@;
  v_header := s.key_header;
  remedy := 'Wait, or give higher numbers: ' || concat_ws(' ', 'hawser topics limit', @shell_word(p_topic)@, '--rate ' || s.rate, '--burst ' || s.burst, '--running ' || s.running,
    '--running-per-key ' || s.running_per_key, '--key-header ' || @shell_word(v_header)@);
  IF s.running <= v_running THEN
    is_met := false;
    explanation := format('%s of %s messages of the topic run that may at a time', v_running, s.running);
    RETURN;
  END IF;
  -- The clock may have been set back.
  s.full_at_us := least(s.full_at_us, v_now + s.burst * s.interval_us);
  IF @rate_left(s)@ < 1 THEN
    is_met := false;
    since := NULL;
    explanation := format('the rate of the topic is used up, %s with a burst of %s: the next one may start in %s ms', s.rate, s.burst,
      ceil((s.full_at_us - v_now - (s.burst - 1) * s.interval_us) / 1000.0));
    RETURN;
  END IF;
  IF s.running_per_key IS NULL THEN
    RETURN;
  END IF;
  SELECT hawser.limit_key(@user_key(q)@, q.headers, s.key_header), q.role INTO v_limit_key, v_role FROM hawser_data.queue AS q WHERE q.id = p_id;
  -- By its present header, as takes count.
  SELECT count(*), min(t.started_at) INTO v_of_key, since
    FROM hawser_data.topic_starts AS t JOIN hawser_data.queue AS q ON q.topic = t.topic AND q.recipient = t.recipient AND q.role = t.role AND q.rank = t.rank
   WHERE t.topic = p_topic AND t.role = v_role AND hawser.limit_key(@user_key(q)@, q.headers, s.key_header) = v_limit_key AND @is_started(t)@;
  IF v_of_key >= s.running_per_key THEN
    is_met := false;
    holder := v_limit_key;
    explanation := format('%s of %s messages of the key %s run that may at a time', v_of_key, s.running_per_key, to_json(v_limit_key));
  END IF;
END
