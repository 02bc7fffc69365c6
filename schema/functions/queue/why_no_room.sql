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
      SELECT w.name, w.beat_at, w.is_whole OR coalesce(w.topics -> p_topic -> 'full' = 'true', false) AS is_full,
             (SELECT max(@reported(ms)@)
                FROM jsonb_each(CASE jsonb_typeof(w.topics) WHEN 'object' THEN w.topics END) AS t (key, value), LATERAL (SELECT t.value -> 'oldest_ms') AS m (ms)
               WHERE w.is_whole OR t.key = p_topic) AS oldest_ms
        FROM (
          -- Each report is read once, however long it is.
          SELECT o.name, o.beat_at, coalesce(o.running -> 'full' = 'true', false) AS is_whole, o.running -> 'topics' AS topics
            FROM hawser_data.workers AS o
           WHERE o.gone_at IS NULL AND o.beat_at > v_now - @lease_of(o)@ AND p_topic = ANY (o.topics) AND p_recipient = ANY (@places_of(o)@)
          OFFSET 0
        ) AS w
    ) AS f;
  explanation := format('all places of the %s workers of the topic are taken; in %s, a handler has been running for %s s', v_workers, to_json(holder), v_oldest_ms / 1000);
  remedy := CASE WHEN v_oldest_ms > 60000 THEN 'The handler may hang: see the log of the worker, and give it a timeoutMs' ELSE 'Start more workers, or raise their concurrency' END;
END
