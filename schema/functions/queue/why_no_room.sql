#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  v_oldest_ms bigint;
  v_workers bigint;
BEGIN
  -- What workers say with their beats. One that says nothing is not known to be full.
  SELECT count(*), bool_or(NOT f.is_full) IS NOT FALSE, max(f.oldest_ms), (array_agg(f.name ORDER BY f.oldest_ms DESC NULLS LAST))[1],
         min(f.beat_at - make_interval(secs => f.oldest_ms / 1000.0))
    INTO v_workers, is_met, v_oldest_ms, holder, since
    FROM (
      SELECT w.name, w.beat_at,
             coalesce((w.running ->> 'full')::boolean, false) OR coalesce((w.running -> 'topics' -> p_topic ->> 'full')::boolean, false) AS is_full,
             (SELECT max((t.value ->> 'oldest_ms')::bigint) FROM jsonb_each(w.running -> 'topics') AS t (key, value)
               WHERE (w.running ->> 'full')::boolean OR t.key = p_topic) AS oldest_ms
        FROM hawser_data.workers AS w
       WHERE w.gone_at IS NULL AND w.beat_at > v_now - @lease_of(w)@ AND p_topic = ANY (w.topics) AND p_recipient = ANY (@places_of(w)@)
    ) AS f;
  explanation := format('all places of the %s workers of the topic are taken; in %s, a handler has been running for %s s', v_workers, to_json(holder), v_oldest_ms / 1000);
  remedy := CASE WHEN v_oldest_ms > 60000 THEN 'The handler may hang: see the log of the worker, and give it a timeoutMs' ELSE 'Start more workers, or raise their concurrency' END;
END
