#variable_conflict use_column
DECLARE
  v_seconds CONSTANT integer := @SampleConstants.step_ms@ / 1000 * @SampleConstants.folded@;
  v_from CONSTANT timestamptz := to_timestamp(p_nth * v_seconds);
  v_sampled_at timestamptz;
  v_covers_ms bigint;
  v_kinds text[];
  v_names text[];
  v_numbers text[];
BEGIN
  WITH taken AS MATERIALIZED (
    SELECT s.sampled_at, s.covers_ms, s.series, row_number() OVER (ORDER BY s.sampled_at DESC) = 1 AS is_last
      FROM hawser_data.samples AS s
     WHERE s.step = @SampleConstants.step_ms@ / 1000 AND s.sampled_at >= v_from AND s.sampled_at < v_from + make_interval(secs => v_seconds)
  ), parts AS MATERIALIZED (
    SELECT t.is_last, k.key AS kind, n.key AS name, n.value AS numbers
      FROM taken AS t CROSS JOIN LATERAL jsonb_each(t.series) AS k CROSS JOIN LATERAL jsonb_each(k.value -> 'named') AS n
     UNION ALL
    SELECT t.is_last, k.key, NULL, k.value -> 'rest'
      FROM taken AS t CROSS JOIN LATERAL jsonb_each(t.series) AS k WHERE k.value ? 'rest'
  ), sums AS (
    SELECT p.kind, p.name, n.nth,
           -- What waited at the end, and how long.
           CASE
             WHEN n.nth IN (5, 6) THEN sum((n.value #>> '{}')::bigint) FILTER (WHERE p.is_last)
             WHEN n.nth = 7 THEN max((n.value #>> '{}')::bigint)
             ELSE sum((n.value #>> '{}')::bigint)
           END AS value
      FROM parts AS p CROSS JOIN LATERAL jsonb_array_elements(p.numbers) WITH ORDINALITY AS n (value, nth)
     GROUP BY p.kind, p.name, n.nth
  ), rests AS MATERIALIZED (
    SELECT DISTINCT p.kind FROM parts AS p WHERE p.is_last AND p.name IS NULL
  ), series AS (
    -- A series that the last sample does not name had nothing then, unless it is in the sum of the others.
    SELECT s.kind, s.name, jsonb_agg(CASE WHEN s.nth IN (5, 6) AND r.kind IS NULL THEN coalesce(s.value, 0) ELSE s.value END ORDER BY s.nth) AS numbers
      FROM sums AS s LEFT JOIN rests AS r ON r.kind = s.kind GROUP BY s.kind, s.name
  )
  SELECT array_agg(s.kind), array_agg(s.name), array_agg(s.numbers::text), (SELECT max(t.sampled_at) FROM taken AS t), (SELECT sum(t.covers_ms)::bigint FROM taken AS t)
    INTO v_kinds, v_names, v_numbers, v_sampled_at, v_covers_ms
    FROM series AS s;
  folded := v_sampled_at IS NOT NULL;
  IF folded THEN
    INSERT INTO hawser_data.samples AS s (step, slot, sampled_at, covers_ms, series)
    VALUES (v_seconds, p_nth % @SampleConstants.folded_slots@, v_sampled_at, v_covers_ms,
            hawser.pack_series(coalesce(v_kinds, '{}'), coalesce(v_names, '{}'), coalesce(v_numbers, '{}')))
    ON CONFLICT (step, slot) DO UPDATE SET sampled_at = excluded.sampled_at, covers_ms = excluded.covers_ms, series = excluded.series;
  END IF;
END
