#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  v_now_ms CONSTANT bigint := floor(extract(epoch FROM v_now) * 1000);
  v_nth CONSTANT bigint := v_now_ms / @SampleConstants.step_ms@;
  v_before hawser_data.sampling;
  -- Number of the step of the sample before.
  v_last bigint;
  -- NULL: nothing can be counted.
  v_covers_ms bigint;
  -- More than any worker handles in that time: a report may say anything.
  v_most bigint;
  v_totals jsonb;
  v_positions jsonb;
  v_series jsonb;
  v_dead_letter bigint;
  -- Series of the sample before.
  v_known jsonb := '{}';
  -- Kinds of which that one has summed some.
  v_rests text[];
  v_kinds text[];
  v_names text[];
  v_numbers text[];
  v_done boolean;
BEGIN
  sampled := false;
  next_in_ms := (v_nth + 1) * @SampleConstants.step_ms@ - v_now_ms;
  -- Nearly all calls of all but one process end here, without a lock.
  IF pg_is_in_recovery() OR EXISTS (
    SELECT FROM hawser_data.sampling AS s WHERE floor(extract(epoch FROM s.sampled_at) * 1000)::bigint / @SampleConstants.step_ms@ = v_nth
  ) THEN
    RETURN;
  END IF;
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  SELECT s.* INTO v_before FROM hawser_data.sampling AS s WHERE s.id = 1 FOR UPDATE SKIP LOCKED;
  v_last := floor(extract(epoch FROM v_before.sampled_at) * 1000)::bigint / @SampleConstants.step_ms@;
  -- Another one takes it, or has just done so.
  IF NOT FOUND OR v_last = v_nth THEN
    RETURN;
  END IF;
  IF v_before.sampled_at BETWEEN v_now - make_interval(secs => @SampleConstants.longest_gap_ms@ / 1000.0) AND v_now THEN
    v_covers_ms := greatest(1, round(extract(epoch FROM v_now - v_before.sampled_at) * 1000));
    v_most := v_covers_ms * 1000;
    SELECT s.series INTO v_known FROM hawser_data.samples AS s WHERE s.step = @SampleConstants.step_ms@ / 1000 AND s.slot = v_last % @SampleConstants.slots@;
    v_known := coalesce(v_known, '{}');
    v_rests := ARRAY(SELECT k.key FROM jsonb_each(v_known) AS k WHERE k.value ? 'rest');
  END IF;
  -- One that is gone is read once more: it may have reported since.
  WITH ended AS (
    DELETE FROM hawser_data.ended_workers AS e RETURNING e.role, e.opened_at, e.running
  ), before AS MATERIALIZED (
    SELECT w.key AS worker, w.value AS totals FROM jsonb_each(v_before.totals) AS w
  ), chosen AS MATERIALIZED (
    SELECT n.worker, n.running, n.has_ended,
           -- Of one that has not been read before, and is older, nobody knows when it handled what it says.
           b.worker IS NOT NULL OR n.opened_at > v_before.sampled_at AS is_known
      FROM (
        SELECT floor(extract(epoch FROM c.opened_at) * 1000000)::bigint || ':' || c.role AS worker, c.running, c.has_ended, c.opened_at
          FROM (
            SELECT a.*, row_number() OVER (PARTITION BY a.role ORDER BY a.opened_at) AS nth
              FROM (
                SELECT w.role, w.opened_at, w.running, false AS has_ended FROM hawser_data.workers AS w WHERE w.gone_at IS NULL OR w.gone_at > v_before.sampled_at
                 UNION ALL
                SELECT e.role, e.opened_at, e.running, true FROM ended AS e
              ) AS a
          ) AS c
         ORDER BY c.nth, c.role LIMIT @SampleConstants.workers@
      ) AS n
      LEFT JOIN before AS b ON b.worker = n.worker
  ), said AS MATERIALIZED (
    SELECT c.worker, c.is_known, t.topic, t.totals
      FROM chosen AS c
     CROSS JOIN LATERAL (
       SELECT e.key AS topic, e.value AS totals
         FROM jsonb_each(CASE jsonb_typeof(c.running -> 'totals') WHEN 'object' THEN c.running -> 'totals' ELSE '{}' END) AS e
        WHERE jsonb_typeof(e.value) = 'array' AND octet_length(e.key) BETWEEN 1 AND 255
        LIMIT @SampleConstants.reported_topics@
     ) AS t
  ), known AS (
    SELECT b.worker, t.key AS topic, t.value AS totals FROM before AS b CROSS JOIN LATERAL jsonb_each(b.totals) AS t
  ), moved AS (
    SELECT n.topic, n.nth, sum(least(greatest(coalesce(@reported(now_said)@, 0) - coalesce(@reported(was_said)@, 0), 0), v_most))::bigint AS value
      FROM (
        SELECT s.topic, i.nth, s.totals -> i.nth AS now_said, k.totals -> i.nth AS was_said
          FROM said AS s
          LEFT JOIN known AS k ON k.worker = s.worker AND k.topic = s.topic
         -- Handled, failed, time, and ten durations.
         CROSS JOIN generate_series(0, 12) AS i (nth)
         WHERE s.is_known AND v_covers_ms IS NOT NULL AND s.totals IS DISTINCT FROM k.totals
      ) AS n
     GROUP BY n.topic, n.nth
  ), handled AS (
    SELECT m.topic, sum(m.value) FILTER (WHERE m.nth = 0) AS handled, sum(m.value) FILTER (WHERE m.nth = 1) AS failed,
           to_jsonb(array_agg(m.value ORDER BY m.nth) FILTER (WHERE m.nth BETWEEN 2 AND m.last)) AS spent
      FROM (SELECT o.*, max(o.nth) FILTER (WHERE o.value > 0) OVER (PARTITION BY o.topic) AS last FROM moved AS o) AS m
     GROUP BY m.topic
  ), letters AS MATERIALIZED (
    SELECT d.id, d.origin, d.topic, d.handler_id
      FROM hawser_data.dead_letters AS d WHERE d.id > v_before.dead_letter ORDER BY d.id LIMIT @QueueConstants.counted_messages@
  ), handlers AS MATERIALIZED (
    SELECT h.id, h.kind, CASE h.kind WHEN 'stream' THEN h.subject ELSE format('%s %I.%I(%s)', h.subject, h.function_schema, h.function_name, h.argument_types) END AS name
      FROM hawser_bridge_data.nats_handlers AS h
     -- As in stream_status.
     WHERE h.kind IN ('subscription', 'stream') AND EXISTS (
       SELECT FROM pg_catalog.pg_type AS t
        WHERE t.typnamespace = pg_catalog.to_regnamespace('hawser_run')
          AND t.typname = 'token_' || pg_catalog.right(h.wrapper, @BridgeConstants.wrapper_random_length@)
     )
  ), streams AS MATERIALIZED (
    SELECT h.name, s.position, (v_before.positions ->> h.name)::bigint AS was, s.lag, s.last_done_at, s.filters
      FROM handlers AS h JOIN hawser_bridge_data.stream_subscriptions AS s ON s.handler_id = h.id WHERE h.kind = 'stream'
  ), parts AS (
    SELECT 'topic' AS kind, m.topic AS name, m.handled, m.failed, NULL::bigint AS dead, NULL::bigint AS waiting, NULL::timestamptz AS oldest_at,
           false AS is_cut, m.spent
      FROM handled AS m
     UNION ALL
    SELECT 'topic', b.topic, NULL, NULL, NULL, sum(b.messages)::bigint, min(b.oldest_at), NOT bool_and(b.is_complete), NULL
      FROM hawser.backlog(@QueueConstants.counted_messages@) AS b
     -- The others wait for other messages, not for a worker.
     WHERE coalesce(b.state, '') NOT IN ('held', 'blocked')
     GROUP BY b.topic
     UNION ALL
    SELECT 'topic', l.topic, NULL, NULL, count(*), NULL, NULL, false, NULL FROM letters AS l WHERE l.origin IN ('queue', 'peer') GROUP BY l.topic
     UNION ALL
    SELECT h.kind, h.name, NULL, NULL, count(*), NULL, NULL, false, NULL
      FROM letters AS l JOIN handlers AS h ON h.id = l.handler_id WHERE l.origin = 'subscription' GROUP BY h.kind, h.name
     UNION ALL
    SELECT 'subscription', h.name, NULL, NULL, NULL, s.messages, s.oldest_at, s.messages = p.rows, NULL
      FROM handlers AS h
     CROSS JOIN (SELECT greatest(100, @QueueConstants.counted_messages@ / greatest(1, count(*))) AS rows FROM handlers AS n WHERE n.kind = 'subscription') AS p
     CROSS JOIN LATERAL (
       SELECT count(*) AS messages, min(o.saved_at) AS oldest_at
         FROM (SELECT m.saved_at FROM hawser_bridge_data.saved_messages AS m WHERE m.handler_id = h.id ORDER BY m.handler_id, m.id LIMIT p.rows) AS o
     ) AS s
     WHERE h.kind = 'subscription'
     UNION ALL
    SELECT 'stream', s.name, CASE WHEN s.position >= s.was THEN s.position - s.was END, NULL, NULL, s.lag,
           CASE WHEN s.lag > 0 THEN to_timestamp(s.last_done_at / 1000000000.0) END, false, NULL
      FROM streams AS s
  ), series AS (
    SELECT p.kind, p.name, sum(p.handled)::bigint AS handled, sum(p.failed)::bigint AS failed, coalesce(sum(p.dead), 0)::bigint AS dead,
           sum(p.waiting)::bigint AS waiting, min(p.oldest_at) AS oldest_at, bool_or(p.is_cut) AS is_cut,
           (array_agg(p.spent) FILTER (WHERE p.spent IS NOT NULL))[1] AS spent
      FROM parts AS p GROUP BY p.kind, p.name
  ), named AS MATERIALIZED (
    SELECT k.key AS kind, n.key AS name, (n.value ->> 4)::bigint AS waiting, n.value ->> 6 = '1' AS is_cut
      FROM jsonb_each(v_known) AS k CROSS JOIN LATERAL jsonb_each(k.value -> 'named') AS n
  ), numbered AS (
    SELECT s.kind, s.name, s.dead, s.is_cut, s.spent, s.oldest_at,
           CASE s.kind WHEN 'topic' THEN coalesce(s.handled, 0) ELSE s.handled END AS handled,
           CASE s.kind WHEN 'topic' THEN coalesce(s.failed, 0) END AS failed,
           CASE s.kind WHEN 'stream' THEN s.waiting ELSE coalesce(s.waiting, 0) END AS waiting,
           -- By how much more waits, at least.
           CASE
             -- With filters, the sequence numbers are also those of other messages.
             WHEN s.kind = 'stream' THEN (SELECT s.waiting - k.waiting FROM streams AS t WHERE t.name = s.name AND t.filters = '{}' LIMIT 1)
             WHEN k.is_cut THEN 0
             -- One that had no name may have been in the sum of those.
             WHEN k.name IS NULL AND s.kind = ANY (v_rests) THEN 0
             WHEN s.is_cut THEN greatest(0, s.waiting - coalesce(k.waiting, 0))
             ELSE coalesce(s.waiting, 0) - coalesce(k.waiting, 0)
           END AS growth
      FROM series AS s
      LEFT JOIN named AS k ON k.kind = s.kind AND k.name = s.name
  )
  SELECT array_agg(n.kind), array_agg(n.name), array_agg((jsonb_build_array(
           CASE WHEN v_covers_ms IS NOT NULL AND n.handled IS NOT NULL AND n.growth IS NOT NULL THEN greatest(0, n.handled + n.dead + n.growth) END,
           CASE WHEN v_covers_ms IS NOT NULL THEN n.handled END,
           CASE WHEN v_covers_ms IS NOT NULL THEN n.failed END,
           CASE WHEN v_covers_ms IS NOT NULL THEN n.dead END,
           n.waiting, CASE WHEN n.waiting > 0 THEN greatest(0, floor(extract(epoch FROM v_now - n.oldest_at) * 1000)::bigint) WHEN n.waiting = 0 THEN 0 END,
           n.is_cut::integer
         ) || coalesce(n.spent, '[]'))::text),
         (
           SELECT coalesce(jsonb_object_agg(w.worker, w.totals), '{}')
             FROM (
               SELECT c.worker, coalesce(jsonb_object_agg(s.topic, s.totals) FILTER (WHERE s.topic IS NOT NULL), '{}') AS totals
                 FROM chosen AS c LEFT JOIN said AS s ON s.worker = c.worker WHERE NOT c.has_ended GROUP BY c.worker
             ) AS w
         ),
         (SELECT coalesce(jsonb_object_agg(s.name, s.position) FILTER (WHERE s.position IS NOT NULL), '{}') FROM streams AS s),
         greatest(v_before.dead_letter, (SELECT d.id FROM hawser_data.dead_letters AS d ORDER BY d.id DESC LIMIT 1))
    INTO v_kinds, v_names, v_numbers, v_totals, v_positions, v_dead_letter
    FROM numbered AS n
   WHERE n.kind <> 'topic' OR n.handled + n.failed + n.dead + n.waiting > 0;
  v_series := hawser.pack_series(coalesce(v_kinds, '{}'), coalesce(v_names, '{}'), coalesce(v_numbers, '{}'));
  INSERT INTO hawser_data.samples AS s (step, slot, sampled_at, covers_ms, series)
  VALUES (@SampleConstants.step_ms@ / 1000, v_nth % @SampleConstants.slots@, v_now, v_covers_ms, v_series)
  ON CONFLICT (step, slot) DO UPDATE SET sampled_at = excluded.sampled_at, covers_ms = excluded.covers_ms, series = excluded.series;
  UPDATE hawser_data.sampling AS s SET sampled_at = v_now, dead_letter = v_dead_letter, totals = v_totals, positions = v_positions WHERE s.id = 1;
  -- The first sample of a step of the day completes the one before.
  IF v_last / @SampleConstants.folded@ < v_nth / @SampleConstants.folded@ THEN
    v_done := hawser.fold_samples(v_last / @SampleConstants.folded@);
  END IF;
  sampled := true;
END
