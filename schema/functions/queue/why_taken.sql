#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  q hawser_data.queue;
  w hawser_data.workers;
  v_locker record;
  v_oldest bigint;
  v_is_cancelled boolean;
BEGIN
  is_met := true;
  SELECT o.* INTO q FROM hawser_data.queue AS o WHERE o.id = p_id;
  SELECT o.* INTO w FROM hawser_data.workers AS o WHERE o.id = q.worker AND o.gone_at IS NULL;
  IF NOT @is_free(q)@ THEN
    is_met := false;
    holder := w.name;
    v_oldest := (w.running -> 'topics' -> q.topic ->> 'oldest_ms')::bigint;
    v_is_cancelled := EXISTS (
      SELECT FROM hawser_data.cancellations AS c WHERE c.topic = q.topic AND c.recipient = q.recipient AND c.role = q.role AND c.rank = q.rank
    );
    since := w.beat_at - make_interval(secs => v_oldest / 1000.0);
    IF w.beat_at < v_now - @lease_of(w)@ / 2 THEN
      since := w.beat_at;
      explanation := format('the worker %s has it, and has been silent for %s s: another one takes it over in %s s', to_json(w.name),
        floor(extract(epoch FROM v_now - w.beat_at)), greatest(0, ceil(extract(epoch FROM w.beat_at + @lease_of(w)@ - v_now))));
      remedy := 'Wait for the takeover, or start the worker again';
    ELSIF v_is_cancelled THEN
      explanation := format('it is to be cancelled, when its handler in the worker %s has ended', to_json(w.name));
      remedy := 'Wait: handlers learn of it by message.signal';
    ELSE
      explanation := format('the worker %s has it: its handler runs, or is next%s', to_json(w.name), coalesce(format(
        '. Of the topic, %s run there, the oldest for %s s', w.running -> 'topics' -> q.topic ->> 'running', v_oldest / 1000), ''));
      remedy := 'Wait for its handler; if it hangs, see the log of the worker, and give it a timeoutMs';
    END IF;
    RETURN;
  END IF;
  SELECT l.pid, a.usename, a.xact_start INTO v_locker
    FROM (SELECT o.xmax FROM hawser_data.queue AS o WHERE o.id = p_id) AS x
    JOIN pg_locks AS l ON l.locktype = 'transactionid' AND l.granted AND l.transactionid = x.xmax AND l.pid IS DISTINCT FROM pg_backend_pid()
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
   LIMIT 1;
  IF FOUND THEN
    is_met := false;
    holder := 'session ' || v_locker.pid;
    since := v_locker.xact_start;
    explanation := format('the session %s of the role %s has locked it, in a transaction that has not ended', v_locker.pid, to_json(v_locker.usename));
    remedy := format('Wait for its end, or SELECT pg_terminate_backend(%s)', v_locker.pid);
  END IF;
END
