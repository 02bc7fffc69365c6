#variable_conflict use_column
DECLARE
  v_step CONSTANT integer := coalesce(p_step, @SampleConstants.step_ms@ / 1000);
  -- Older rows wait to be written anew.
  v_kept CONSTANT interval := make_interval(secs => v_step * CASE v_step
    WHEN @SampleConstants.step_ms@ / 1000 THEN @SampleConstants.slots@ ELSE @SampleConstants.folded_slots@
  END);
  v_since CONSTANT timestamptz := greatest(p_since, clock_timestamp() - v_kept);
  v_names CONSTANT text[] := ARRAY(SELECT DISTINCT u.name FROM unnest(p_names) AS u (name));
BEGIN
  RETURN QUERY
  -- Each sample is read once and let go: all of them would fill a temporary file.
  WITH wanted AS (
    SELECT s.sampled_at, s.covers_ms, n.name, n.numbers, n.is_unknown
      FROM hawser_data.samples AS s
     CROSS JOIN LATERAL (SELECT o.of_kind, o.of_kind -> 'named' AS named FROM (SELECT s.series -> p_kind AS of_kind OFFSET 0) AS o OFFSET 0) AS k
     CROSS JOIN LATERAL (
       -- What a sample does not name had nothing, unless it sums others, which may be this one.
       SELECT u.name, k.named -> u.name AS numbers, k.of_kind ? 'rest' AS is_unknown FROM unnest(v_names) AS u (name) WHERE p_each IS NOT TRUE
        UNION ALL
       SELECT NULL, k.of_kind -> 'all', false WHERE p_each IS NOT TRUE AND v_names = '{}'
        UNION ALL
       SELECT e.key, e.value, false FROM jsonb_each(k.named) AS e WHERE p_each
        UNION ALL
       SELECT NULL, k.of_kind -> 'rest', false WHERE p_each AND k.of_kind ? 'rest'
     ) AS n
     WHERE s.step = v_step AND s.sampled_at > v_since
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
