#variable_conflict use_column
DECLARE
  v_step CONSTANT integer := coalesce(p_step, @SampleConstants.step_ms@ / 1000);
  -- Older rows wait to be written anew.
  v_kept CONSTANT interval := make_interval(secs => v_step * CASE v_step
    WHEN @SampleConstants.step_ms@ / 1000 THEN @SampleConstants.slots@ ELSE @SampleConstants.folded_slots@
  END);
  v_since CONSTANT timestamptz := greatest(p_since, clock_timestamp() - v_kept);
BEGIN
  RETURN QUERY
  WITH taken AS MATERIALIZED (
    SELECT s.slot, s.sampled_at, s.covers_ms, s.series #> ARRAY[p_kind, 'rest'] AS rest, CASE WHEN p_names = '{}' THEN s.series #> ARRAY[p_kind, 'all'] END AS of_all
      FROM hawser_data.samples AS s WHERE s.step = v_step AND s.sampled_at > v_since
  ), named AS MATERIALIZED (
    -- Each sample is read once, and only what is asked for is kept: whole ones would fill a temporary file.
    SELECT s.slot, n.key AS name, n.value AS numbers
      FROM hawser_data.samples AS s CROSS JOIN LATERAL jsonb_each(s.series #> ARRAY[p_kind, 'named']) AS n
     WHERE s.step = v_step AND s.sampled_at > v_since AND (p_each OR n.key = ANY (p_names))
  ), wanted AS (
    SELECT t.sampled_at, t.covers_ms, n.name, n.numbers, false AS is_unknown FROM taken AS t JOIN named AS n USING (slot) WHERE p_each
     UNION ALL
    SELECT t.sampled_at, t.covers_ms, NULL, t.rest, false FROM taken AS t WHERE p_each AND t.rest IS NOT NULL
     UNION ALL
    -- What a sample does not name had nothing, unless it sums others, which may be this one.
    SELECT t.sampled_at, t.covers_ms, u.name, n.numbers, t.rest IS NOT NULL
      FROM taken AS t
     CROSS JOIN (SELECT DISTINCT o.name FROM unnest(p_names) AS o (name)) AS u
      LEFT JOIN named AS n ON n.slot = t.slot AND n.name = u.name
     WHERE p_each IS NOT TRUE
     UNION ALL
    SELECT t.sampled_at, t.covers_ms, NULL, t.of_all, false FROM taken AS t WHERE p_each IS NOT TRUE AND p_names = '{}'
  )
  SELECT w.sampled_at, w.covers_ms, w.name, (n.numbers ->> 0)::bigint, (n.numbers ->> 1)::bigint, (n.numbers ->> 2)::bigint,
         (n.numbers ->> 3)::bigint, (n.numbers ->> 4)::bigint, (n.numbers ->> 5)::bigint, (n.numbers ->> 6) = '0', (n.numbers ->> 7)::bigint,
         CASE WHEN jsonb_array_length(n.numbers) > 8 THEN
           ARRAY(SELECT (d.value #>> '{}')::bigint FROM jsonb_array_elements(n.numbers) WITH ORDINALITY AS d (value, nth) WHERE d.nth > 8 ORDER BY d.nth)
         ELSE '{}' END
    FROM wanted AS w
   CROSS JOIN LATERAL (
     SELECT coalesce(w.numbers, CASE
       WHEN w.is_unknown THEN '[null, null, null, null, null, null, null]'::jsonb
       WHEN w.covers_ms IS NULL THEN '[null, null, null, null, 0, 0, 0]'
       WHEN p_kind = 'topic' THEN '[0, 0, 0, 0, 0, 0, 0]'
       ELSE '[null, null, null, 0, 0, 0, 0]'
     END) AS numbers
   ) AS n
   ORDER BY w.sampled_at, w.name COLLATE "C";
END
