WITH RECURSIVE roles AS (
  SELECT k.kind, '' AS role FROM (VALUES ('nats'), ('peer')) AS k (kind)
  UNION ALL
  SELECT r.kind, n.role
    FROM roles AS r
   CROSS JOIN LATERAL (
     SELECT l.role FROM hawser_data.queue AS l WHERE l.later = r.kind AND l.role > r.role ORDER BY l.role LIMIT 1
   ) AS n
), dues AS (
  -- Role by role, as the index has them.
  SELECT r.kind, min(f.at) AS at
    FROM roles AS r
   CROSS JOIN LATERAL (SELECT min(l.due_at) AS at FROM hawser_data.queue AS l WHERE l.later = r.kind AND l.role = r.role) AS f
   GROUP BY r.kind
)
SELECT 'nats' AS kind,
       nullif(left(md5(nullif(l.owner, '')), 8), '') AS relay,
       (SELECT a.last_value = 1 FROM hawser_data.outbox_state_asleep_seq AS a) AS is_awake,
       w.count AS waiting,
       w.oldest_at AS oldest_waiting_at,
       w.oldest_for AS oldest_waiting_for,
       l.saved_at AS position_saved_at,
       (
         SELECT jsonb_agg(jsonb_build_object(
                  'segment', n.segment,
                  'filling', n.segment = (s.last_value - 1) % @OutboxConstants.segments@,
                  'bytes', (SELECT pg_total_relation_size(c.oid) FROM pg_class AS c
                             WHERE c.relnamespace = 'hawser_data'::regnamespace AND c.relname = 'outbox_' || n.segment),
                  'oldest', (SELECT o.enqueued_at FROM hawser_data.outbox AS o WHERE o.segment = n.segment ORDER BY o.id LIMIT 1)
                ) ORDER BY n.segment)
           FROM hawser_data.outbox_state_segment_seq AS s, generate_series(0, @OutboxConstants.segments@ - 1) AS n (segment)
       ) AS segments,
       (SELECT count(*) FROM (SELECT FROM hawser_data.queue AS f WHERE f.later = 'nats' LIMIT @QueueConstants.counted_messages@) AS f) AS later,
       (SELECT d.at FROM dues AS d WHERE d.kind = 'nats') AS next_due_at,
       (SELECT count(*) FROM hawser_data.dead_letters AS d WHERE d.origin = 'outbox') AS dead_letters,
       (
         SELECT coalesce(jsonb_agg(jsonb_build_object('role', s.role, 'route', s.route) ORDER BY s.role, s.route), '[]')
           FROM jsonb_to_recordset(l.series) AS s (role text, route text)
       ) AS lagging,
       w.count < @QueueConstants.counted_messages@ AS is_complete
  FROM (SELECT t.* FROM hawser_data.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1) AS l
 CROSS JOIN LATERAL (
   SELECT count(*) AS count, min(u.enqueued_at) AS oldest_at, (array_agg(u.destination ORDER BY u.enqueued_at))[1] AS oldest_for
     FROM hawser.outbox_undone(NULL, @QueueConstants.counted_messages@, NULL) AS u
 ) AS w
UNION ALL
SELECT 'peer', NULL, false, w.count, w.oldest_at, w.oldest_for, NULL, '[]',
       (SELECT count(*) FROM (SELECT FROM hawser_data.queue AS f WHERE f.later IN ('held', 'peer') LIMIT @QueueConstants.counted_messages@) AS f),
       (SELECT d.at FROM dues AS d WHERE d.kind = 'peer'),
       (SELECT count(*) FROM hawser_data.dead_letters AS d WHERE d.origin = 'queue'), '[]', w.is_complete
  FROM (
    SELECT coalesce(sum(q.messages), 0)::bigint AS count, coalesce(bool_and(q.is_complete), true) AS is_complete, min(q.oldest_at) AS oldest_at,
           (array_agg(q.topic ORDER BY q.oldest_at))[1] AS oldest_for
      FROM hawser.queue_backlog(@QueueConstants.counted_messages@, '{}') AS q
  ) AS w
