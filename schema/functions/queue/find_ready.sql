#variable_conflict use_column
DECLARE
  -- One value, as an index is searched for it.
  v_now CONSTANT timestamptz := clock_timestamp();
  -- With limits some are looked at that may not start, and passed: the rest of their key has to wait.
  v_rows CONSTANT integer := CASE WHEN p_starts IS NULL THEN p_most ELSE greatest(p_starts, CASE WHEN p_per_key > 0 THEN 500 ELSE 100 END) END;
BEGIN
  -- The first rows of each place and role, and those that are due again. Each role gets an equal part, however many messages others
  -- have; a priority orders those of one role alone. This looks at messages with a priority from the first one on, since a new one may
  -- come before those that it has seen. The roles of a place are found one behind the other in the index; what a role has had before a known position may be dead there by thousands.
  WITH RECURSIVE sources AS (
    SELECT t.topic, r.recipient, '' AS role, CASE jsonb_typeof(p_after -> t.topic -> r.recipient) WHEN 'object' THEN p_after -> t.topic -> r.recipient ELSE '{}' END AS known
      FROM unnest(p_topics) AS t (topic) CROSS JOIN unnest(p_places) AS r (recipient)
    UNION ALL
    SELECT s.topic, s.recipient, n.role, s.known
      FROM sources AS s
     CROSS JOIN LATERAL (SELECT min(o.role) AS role FROM jsonb_object_keys(s.known) AS o (role) WHERE o.role > s.role) AS k
     CROSS JOIN LATERAL (
       SELECT coalesce(CASE
                WHEN k.role IS NULL THEN (
                  SELECT q.role FROM hawser_data.queue AS q
                   WHERE q.topic = s.topic AND q.recipient = s.recipient AND q.role > s.role ORDER BY q.role LIMIT 1
                )
                ELSE (
                  SELECT q.role FROM hawser_data.queue AS q
                   WHERE q.topic = s.topic AND q.recipient = s.recipient AND q.role > s.role AND q.role < k.role ORDER BY q.role LIMIT 1
                )
              END, k.role) AS role
     ) AS n
     WHERE n.role IS NOT NULL
  ), parts AS MATERIALIZED (
    SELECT s.topic, s.recipient, s.role,
           CASE WHEN starts_with(s.recipient, @QueueConstants.priority_mark@) THEN -9223372036854775808 ELSE coalesce((s.known ->> s.role)::bigint, -9223372036854775808) END AS after,
           least(v_rows, 2 * v_rows / count(*) OVER () + 1) AS most
      FROM sources AS s WHERE s.role <> ''
  ), found AS MATERIALIZED (
    SELECT p.topic, p.recipient, p.role, f.*, random() AS lot
      FROM parts AS p
     CROSS JOIN LATERAL (
       (
         SELECT q.ctid AS tid, q.rank, q.key, q.worker, q.to_all, @taken_bytes(q)@ AS bytes, q.due_at
           FROM hawser_data.queue AS q
          WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.rank > p.after AND q.due_at IS NULL AND q.behind IS NULL
            AND @is_free(q)@
          ORDER BY q.rank LIMIT p.most
       )
       UNION ALL
       (
         SELECT q.ctid, q.rank, q.key, q.worker, q.to_all, @taken_bytes(q)@, q.due_at
           FROM hawser_data.queue AS q
          WHERE q.topic = p.topic AND q.recipient = p.recipient AND q.role = p.role AND q.due_at <= v_now AND q.behind IS NULL
            AND @is_free(q)@
          ORDER BY q.due_at, q.rank LIMIT p.most
       )
     ) AS f
  ), judged AS MATERIALIZED (
    -- Of a topic with limits.
    SELECT j.* FROM hawser.judge_starts(p_topics[1], ARRAY(SELECT f.tid FROM found AS f), p_per_key, p_key_header) AS j WHERE p_starts IS NOT NULL
  ), ordered AS MATERIALIZED (
    SELECT n.*
      FROM (
        SELECT r.*, row_number() OVER w AS place, sum(r.bytes) OVER w AS upto
          FROM (
            SELECT f.*, row_number() OVER o AS nth, (sum(f.bytes) OVER o - f.bytes) / @QueueConstants.turn_bytes@ AS bytes_before, bool_or(f.bytes > p_max_bytes) OVER o AS is_behind_long
              FROM found AS f WHERE p_starts IS NULL OR f.tid IN (SELECT j.tid FROM judged AS j WHERE j.may_start)
            WINDOW o AS (PARTITION BY f.topic, ltrim(f.recipient, @QueueConstants.priority_mark@), f.role, f.due_at IS NULL ORDER BY f.rank >> @QueueConstants.id_bits@, f.due_at, f.rank)
          ) AS r
        -- A message longer than all that a take may bring comes alone, now and then: by bytes as often as the messages of others, which come
        -- before it otherwise.
        WINDOW w AS (
          ORDER BY CASE WHEN NOT r.is_behind_long THEN 1 WHEN r.nth = 1 AND r.lot < least(0.5, p_most * @QueueConstants.turn_bytes@::bigint::numeric / r.bytes) THEN 0 ELSE 2 END, r.nth + r.bytes_before, r.lot, r.nth ROWS UNBOUNDED PRECEDING
        )
      ) AS n
     WHERE n.place <= p_most
  ), chosen AS MATERIALIZED (
    SELECT o.* FROM ordered AS o WHERE o.place = 1 OR (o.upto <= p_max_bytes AND o.place <= coalesce(p_starts, p_most))
  ), looked AS (
    SELECT c.topic, c.recipient, c.role, max(c.rank) AS upto FROM chosen AS c
     WHERE p_starts IS NULL AND c.due_at IS NULL AND NOT starts_with(c.recipient, @QueueConstants.priority_mark@) GROUP BY 1, 2, 3
    UNION ALL
    -- With limits, up to the first one that is left and might start, or all that was found.
    SELECT f.topic, f.recipient, f.role, coalesce(min(f.rank) FILTER (WHERE j.may_start AND c.tid IS NULL) - 1, max(f.rank))
      FROM found AS f JOIN judged AS j ON j.tid = f.tid LEFT JOIN chosen AS c ON c.tid = f.tid
     WHERE p_starts IS NOT NULL AND f.due_at IS NULL AND NOT starts_with(f.recipient, @QueueConstants.priority_mark@) GROUP BY 1, 2, 3
  )
  SELECT c.*, l.*, (SELECT count(*) FROM ordered) > coalesce(cardinality(c.tids), 0),
         CASE WHEN p_starts IS NULL THEN '{}' ELSE ARRAY(SELECT j.id FROM judged AS j WHERE j.is_passed) END,
         CASE WHEN p_starts IS NULL THEN '{}' ELSE ARRAY(SELECT j.tid FROM judged AS j WHERE j.is_full) END
    INTO tids, ranks, workers, has_keys, has_copies, topics, recipients, roles, upto, has_more, passed_ids, full_tids
    FROM (
      SELECT array_agg(c.tid) AS tids, array_agg(c.rank), array_agg(c.worker), bool_or(c.key IS NOT NULL), bool_or(@is_for_all(c)@) FROM chosen AS c
    ) AS c, (
      SELECT array_agg(l.topic), array_agg(l.recipient), array_agg(l.role), array_agg(l.upto) FROM looked AS l
    ) AS l;
END
