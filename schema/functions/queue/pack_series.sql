#variable_conflict use_column
BEGIN
  WITH given AS (
    SELECT u.kind, u.name, u.numbers::jsonb AS numbers FROM unnest(p_kinds, p_names, p_numbers) AS u (kind, name, numbers)
  ), ranked AS MATERIALIZED (
    SELECT g.kind, g.name, g.numbers,
           g.name IS NOT NULL AND row_number() OVER (
             PARTITION BY g.kind, g.name IS NULL
             ORDER BY coalesce((g.numbers ->> 1)::bigint, 0) + coalesce((g.numbers ->> 2)::bigint, 0) + coalesce((g.numbers ->> 3)::bigint, 0)
                      + coalesce((g.numbers ->> 4)::bigint, 0) DESC, g.name COLLATE "C"
           ) <= @SampleConstants.named_series@ AS has_name
      FROM given AS g
  ), sums AS (
    SELECT r.kind, p.part, n.nth,
           -- The age of the oldest is that of the oldest of all, and one count that was cut cuts the sum.
           CASE WHEN n.nth IN (6, 7) THEN max((n.value #>> '{}')::bigint) ELSE sum((n.value #>> '{}')::bigint) END AS value
      FROM ranked AS r
     CROSS JOIN (VALUES ('all'), ('rest')) AS p (part)
     CROSS JOIN LATERAL jsonb_array_elements(r.numbers) WITH ORDINALITY AS n (value, nth)
     WHERE p.part = 'all' OR NOT r.has_name
     GROUP BY r.kind, p.part, n.nth
  ), summed AS (
    SELECT s.kind, s.part, jsonb_agg(s.value ORDER BY s.nth) AS numbers FROM sums AS s GROUP BY s.kind, s.part
  ), named AS (
    SELECT r.kind, jsonb_object_agg(r.name, r.numbers) AS numbers FROM ranked AS r WHERE r.has_name GROUP BY r.kind
  )
  SELECT coalesce(jsonb_object_agg(a.kind, jsonb_strip_nulls(jsonb_build_object('all', a.numbers, 'rest', r.numbers, 'named', coalesce(n.numbers, '{}')))), '{}')
    INTO series
    FROM summed AS a
    LEFT JOIN summed AS r ON r.kind = a.kind AND r.part = 'rest'
    LEFT JOIN named AS n ON n.kind = a.kind
   WHERE a.part = 'all';
END
