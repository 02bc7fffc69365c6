#variable_conflict use_column
BEGIN
  -- What a worker had that is gone is suspect, and counts as tried if its handler was told to begin. For the first time nothing need have
  -- been told: then the first messages may have been running, and of a key the first.
  WITH had AS (
    SELECT q.worker, q.topic || ':' || q.recipient AS place, q.rank, q.is_suspect, q.begun_by IS NOT DISTINCT FROM q.worker AS has_begun,
           q.key IS NULL OR row_number() OVER (PARTITION BY q.worker, q.topic, q.recipient, q.role, q.key ORDER BY q.rank) = 1 AS may_run
      FROM hawser_data.queue AS q JOIN hawser_data.workers AS w ON w.id = q.worker AND w.gone_at IS NOT NULL WHERE q.ctid = ANY (p_tids)
  ), guessed AS MATERIALIZED (
    SELECT h.rank, h.worker, h.place, coalesce((w.suspects ->> h.place)::integer, w.concurrency) AS rest
      FROM (
        SELECT h.*, row_number() OVER (PARTITION BY h.worker, h.place ORDER BY h.rank) AS nth FROM had AS h WHERE h.may_run AND NOT h.is_suspect AND NOT h.has_begun
      ) AS h
      JOIN hawser_data.workers AS w ON w.id = h.worker
     WHERE h.nth <= coalesce((w.suspects ->> h.place)::integer, w.concurrency)
  ), counted AS (
    UPDATE hawser_data.workers AS w SET suspects = w.suspects || c.suspects
      FROM (
        SELECT p.worker, jsonb_object_agg(p.place, p.rest) AS suspects
          FROM (SELECT g.worker, g.place, min(g.rest) - count(*) AS rest FROM guessed AS g GROUP BY 1, 2) AS p GROUP BY 1
      ) AS c
     WHERE w.id = c.worker
  )
  SELECT coalesce(array_agg(h.rank), '{}'), coalesce(array_agg(h.rank) FILTER (WHERE h.has_begun OR h.rank IN (SELECT g.rank FROM guessed AS g)), '{}')
    INTO suspects, tried FROM had AS h;
END
