#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  q hawser_data.queue;
  w hawser_data.workers;
  v_locked record;
  -- What its worker says of its topic.
  v_said jsonb;
  v_ms jsonb;
  v_count jsonb;
  v_oldest bigint;
  v_is_cancelled boolean;
BEGIN
  is_met := true;
  SELECT o.* INTO q FROM hawser_data.queue AS o WHERE o.id = p_id;
  SELECT o.* INTO w FROM hawser_data.workers AS o WHERE o.id = q.worker AND o.gone_at IS NULL;
  v_is_cancelled := EXISTS (
    SELECT FROM hawser_data.cancellations AS c WHERE c.topic = q.topic AND c.recipient = q.recipient AND c.role = q.role AND c.rank = q.rank
  );
  IF NOT @is_free(q)@ THEN
    is_met := false;
    holder := w.name;
    v_said := w.running -> 'topics' -> q.topic;
    v_ms := v_said -> 'oldest_ms';
    v_count := v_said -> 'running';
    v_oldest := @reported(v_ms)@;
    since := w.beat_at - make_interval(secs => v_oldest / 1000.0);
    IF w.beat_at < v_now - @lease_of(w)@ / 2 THEN
      since := w.beat_at;
      explanation := format('the worker %s has it, and has been silent for %s s: another one takes it over in %s s', to_json(w.name),
        floor(extract(epoch FROM v_now - w.beat_at)), greatest(0, ceil(extract(epoch FROM w.beat_at + @lease_of(w)@ - v_now))));
      -- A process that starts under the name of a peer has what the one before had.
      remedy := 'Wait for the takeover' || coalesce(', or start ' || to_json(substr(@own_recipient(w)@, 2)) || ' again', ', which needs another worker of the topic');
    ELSIF v_is_cancelled THEN
      explanation := format('it is to be cancelled, when its handler in the worker %s has ended', to_json(w.name));
      remedy := 'Wait: handlers learn of it by message.signal';
    ELSE
      explanation := format('the worker %s has it: its handler runs, or is next%s', to_json(w.name),
        coalesce('. It runs ' || @reported(v_count)@ || ' of the topic, the oldest for ' || v_oldest / 1000 || ' s', ''));
      remedy := 'Wait for its handler; if it hangs, see the log of the worker, and give it a timeoutMs';
    END IF;
    RETURN;
  END IF;
  IF v_is_cancelled THEN
    is_met := false;
    explanation := 'it is to be cancelled, and nobody has it any more: the next look of a worker ends it';
    remedy := 'Wait for it, or start a worker';
    RETURN;
  END IF;
  -- What relies on its unique key holds it up, too: it would be put off before it begins.
  v_locked := hawser.why_locked(ARRAY(
    SELECT o.xmax::text FROM hawser_data.queue AS o WHERE o.id = p_id
    UNION ALL
    SELECT u.xmax::text FROM hawser_data.unique_locks AS u WHERE u.id = p_id
    UNION ALL
    SELECT u.xmax::text FROM hawser_data.unique_keys AS u WHERE u.role = q.role AND u.topic = q.topic AND u.unique_key = q.unique_key AND u.id = p_id
  ), false);
  IF v_locked.holder IS NOT NULL THEN
    is_met := false;
    holder := v_locked.holder;
    since := v_locked.since;
    explanation := format('%s has locked it%s, in a transaction that has not ended', v_locked.explanation, CASE WHEN q.unique_key IS NOT NULL THEN ', or its unique key' END);
    remedy := v_locked.remedy;
  END IF;
END
