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
              END, k.role) AS role OFFSET 0
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
    SELECT n.*, n.may_start AND (n.place = 1 OR n.upto <= p_max_bytes AND n.place <= coalesce(p_starts, p_most)) AS is_chosen
      FROM (
        SELECT r.*, row_number() OVER w AS place, sum(r.bytes) OVER w AS upto
          FROM (
            SELECT m.*, row_number() OVER o AS nth, (sum(m.bytes) OVER o - m.bytes) / @QueueConstants.turn_bytes@ AS bytes_before, bool_or(m.bytes > p_max_bytes) OVER o AS is_behind_long
              FROM (SELECT f.*, p_starts IS NULL OR f.tid IN (SELECT j.tid FROM judged AS j WHERE j.may_start) AS may_start FROM found AS f) AS m
            WINDOW o AS (PARTITION BY m.may_start, m.topic, ltrim(m.recipient, @QueueConstants.priority_mark@), m.role, m.due_at IS NULL ORDER BY m.rank >> @QueueConstants.id_bits@, m.due_at, m.rank)
          ) AS r
        -- A message longer than all that a take may bring comes alone, now and then: by bytes as often as the messages of others, which come
        -- before it otherwise.
        WINDOW w AS (
          ORDER BY CASE
                     WHEN NOT r.may_start THEN 3
                     WHEN NOT r.is_behind_long THEN 1
                     WHEN r.nth = 1 AND r.lot < least(0.5, p_most * @QueueConstants.turn_bytes@::bigint::numeric / r.bytes) THEN 0
                     ELSE 2
                   END, r.nth + r.bytes_before, r.lot, r.nth ROWS UNBOUNDED PRECEDING
        )
      ) AS n
  ), looked AS (
    -- With limits, up to the first one that is left and might start, or all that was found.
    SELECT o.topic, o.recipient, o.role,
           CASE
             WHEN p_starts IS NULL THEN max(o.rank) FILTER (WHERE o.is_chosen)
             ELSE coalesce(min(o.rank) FILTER (WHERE o.may_start AND NOT o.is_chosen) - 1, max(o.rank))
           END AS upto
      FROM ordered AS o WHERE o.due_at IS NULL AND NOT starts_with(o.recipient, @QueueConstants.priority_mark@) GROUP BY 1, 2, 3
  )
  SELECT c.*, l.*,
         CASE WHEN p_starts IS NULL THEN '{}' ELSE ARRAY(SELECT j.id FROM judged AS j WHERE j.is_passed) END,
         CASE WHEN p_starts IS NULL THEN '{}' ELSE ARRAY(SELECT j.tid FROM judged AS j WHERE j.is_full) END
    INTO tids, ranks, workers, has_keys, has_copies, has_more, topics, recipients, roles, upto, passed_ids, full_tids
    FROM (
      SELECT array_agg(o.tid) FILTER (WHERE o.is_chosen), array_agg(o.rank) FILTER (WHERE o.is_chosen), array_agg(o.worker) FILTER (WHERE o.is_chosen),
             bool_or(o.key IS NOT NULL) FILTER (WHERE o.is_chosen), bool_or(@is_for_all(o)@) FILTER (WHERE o.is_chosen),
             bool_or(o.may_start AND NOT o.is_chosen AND o.place <= p_most)
        FROM ordered AS o
    ) AS c, (
      SELECT array_agg(l.topic), array_agg(l.recipient), array_agg(l.role), array_agg(l.upto) FROM looked AS l WHERE l.upto IS NOT NULL
    ) AS l;
END
