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
      -- Of one whose places are all taken, the oldest handler of all counts, and otherwise that of the topic.
      SELECT w.name, w.beat_at, w.is_whole OR coalesce(w.of_topic -> 'full' = 'true', false) AS is_full,
             (SELECT @reported(ms)@ FROM (SELECT CASE WHEN w.is_whole THEN w.oldest ELSE w.of_topic -> 'oldest_ms' END) AS m (ms)) AS oldest_ms
        FROM (
          SELECT o.name, o.beat_at, coalesce(o.running -> 'full' = 'true', false) AS is_whole, o.running -> 'oldest_ms' AS oldest, o.running -> 'topics' -> p_topic AS of_topic
            FROM hawser_data.workers AS o
           WHERE o.gone_at IS NULL AND o.beat_at > v_now - @lease_of(o)@ AND p_topic = ANY (o.topics) AND p_recipient = ANY (@places_of(o)@)
          OFFSET 0
        ) AS w
    ) AS f;
  explanation := format('all places of the %s workers of the topic are taken; in %s, a handler has been running for %s s', v_workers, to_json(holder), v_oldest_ms / 1000);
  remedy := CASE WHEN v_oldest_ms > 60000 THEN 'The handler may hang: see the log of the worker, and give it a timeoutMs' ELSE 'Start more workers, or raise their concurrency' END;
END
