WITH latest AS (
  SELECT t.*, CASE WHEN t.done_to IS NULL THEN t.done_from ELSE t.done_to END AS seen
    FROM hawser.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1
), waiting AS (
  -- What the last set did not see, by the index on xid; and what it saw and is not done, by the one on id.
  SELECT w.enqueued_at FROM (
    SELECT o.enqueued_at FROM hawser.outbox AS o
     WHERE (o.xid >= (SELECT pg_snapshot_xmax(l.seen) FROM latest AS l)
            OR o.xid = ANY (ARRAY(SELECT pg_snapshot_xip(l.seen) FROM latest AS l)))
       AND o.id <> ALL (ARRAY(SELECT unnest(l.skipped) FROM latest AS l))
     LIMIT 100000
  ) AS w
  UNION ALL
  SELECT w.enqueued_at FROM (
    SELECT o.enqueued_at FROM hawser.outbox AS o, latest AS l
     WHERE o.id > (SELECT b.done_after FROM latest AS b WHERE b.done_to IS NOT NULL)
       AND NOT pg_visible_in_snapshot(o.xid, l.done_from)
       AND pg_visible_in_snapshot(o.xid, l.done_to)
       AND o.id <> ALL (l.skipped)
     ORDER BY o.id LIMIT 100000
  ) AS w
)
SELECT 'nats' AS kind,
       nullif(l.owner, '') AS relay,
       (SELECT a.last_value = 1 FROM hawser.outbox_state_asleep_seq AS a) AS is_awake,
       (SELECT least(100000, count(*)) FROM waiting AS w) AS waiting,
       (SELECT min(w.enqueued_at) FROM waiting AS w) AS oldest_waiting_at,
       l.saved_at AS position_saved_at,
       (
         SELECT jsonb_agg(jsonb_build_object(
                  'slot', n.slot,
                  'filling', n.slot = (s.last_value - 1) % @OutboxConstants.slots@,
                  'bytes', pg_total_relation_size(format('hawser.outbox_%s', n.slot)),
                  'oldest', (SELECT o.enqueued_at FROM hawser.outbox AS o WHERE o.slot = n.slot ORDER BY o.id LIMIT 1)
                ) ORDER BY n.slot)
           FROM generate_series(0, @OutboxConstants.slots@ - 1) AS n (slot), hawser.outbox_state_slot_seq AS s
       ) AS slots,
       (SELECT count(*) FROM (SELECT FROM hawser.outbox_later AS f WHERE f.kind = 'nats' LIMIT 100000) AS f) AS later,
       (SELECT min(f.deliver_at) FROM hawser.outbox_later AS f WHERE f.kind = 'nats') AS next_due_at,
       (SELECT count(*) FROM hawser.dead_letters AS d WHERE d.origin = 'outbox') AS dead_letters
  FROM latest AS l
