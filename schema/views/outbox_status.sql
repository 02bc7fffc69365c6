-- What waits: what the last set did not see, by the index on xid, and what it saw and is not done, by the one on id.
WITH nats_latest AS (
  SELECT t.*, coalesce(t.done_to, t.done_from) AS seen FROM hawser.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1
), nats_waiting AS (
  SELECT w.* FROM (
    SELECT o.enqueued_at, o.destination AS destination FROM hawser.outbox AS o
     WHERE (o.xid >= (SELECT pg_snapshot_xmax(l.seen) FROM nats_latest AS l)
            OR o.xid = ANY (ARRAY(SELECT pg_snapshot_xip(l.seen) FROM nats_latest AS l)))
       AND o.id <> ALL (ARRAY(SELECT unnest(l.skipped) FROM nats_latest AS l))
     LIMIT 100000
  ) AS w
  UNION ALL
  SELECT w.* FROM (
    SELECT o.enqueued_at, o.destination FROM hawser.outbox AS o, nats_latest AS l
     WHERE o.id > (SELECT b.done_after FROM nats_latest AS b WHERE b.done_to IS NOT NULL)
       AND NOT pg_visible_in_snapshot(o.xid, l.done_from)
       AND pg_visible_in_snapshot(o.xid, l.done_to)
       AND o.id <> ALL (l.skipped)
     ORDER BY o.id LIMIT 100000
  ) AS w
), peer_latest AS (
  SELECT t.*, coalesce(t.done_to, t.done_from) AS seen FROM hawser.peer_outbox_turns AS t ORDER BY t.turn DESC LIMIT 1
), peer_waiting AS (
  SELECT w.* FROM (
    SELECT o.enqueued_at, o.topic AS destination FROM hawser.peer_outbox AS o
     WHERE (o.xid >= (SELECT pg_snapshot_xmax(l.seen) FROM peer_latest AS l)
            OR o.xid = ANY (ARRAY(SELECT pg_snapshot_xip(l.seen) FROM peer_latest AS l)))
     LIMIT 100000
  ) AS w
  UNION ALL
  SELECT w.* FROM (
    SELECT o.enqueued_at, o.topic FROM hawser.peer_outbox AS o, peer_latest AS l
     WHERE o.id > (SELECT b.done_after FROM peer_latest AS b WHERE b.done_to IS NOT NULL)
       AND NOT pg_visible_in_snapshot(o.xid, l.done_from)
       AND pg_visible_in_snapshot(o.xid, l.done_to)
     ORDER BY o.id LIMIT 100000
  ) AS w
)
SELECT 'nats' AS kind,
       nullif(l.owner, '') AS relay,
       (SELECT a.last_value = 1 FROM hawser.outbox_state_asleep_seq AS a) AS is_awake,
       (SELECT least(100000, count(*)) FROM nats_waiting AS w) AS waiting,
       (SELECT min(w.enqueued_at) FROM nats_waiting AS w) AS oldest_waiting_at,
       (SELECT w.destination FROM nats_waiting AS w ORDER BY w.enqueued_at LIMIT 1) AS oldest_waiting_for,
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
  FROM nats_latest AS l
UNION ALL
SELECT 'peer' AS kind,
       nullif(l.owner, '') AS relay,
       (SELECT a.last_value = 1 FROM hawser.peer_outbox_state_asleep_seq AS a) AS is_awake,
       (SELECT least(100000, count(*)) FROM peer_waiting AS w) AS waiting,
       (SELECT min(w.enqueued_at) FROM peer_waiting AS w) AS oldest_waiting_at,
       (SELECT w.destination FROM peer_waiting AS w ORDER BY w.enqueued_at LIMIT 1) AS oldest_waiting_for,
       l.saved_at AS position_saved_at,
       (
         SELECT jsonb_agg(jsonb_build_object(
                  'slot', n.slot,
                  'filling', n.slot = (s.last_value - 1) % @OutboxConstants.slots@,
                  'bytes', pg_total_relation_size(format('hawser.peer_outbox_%s', n.slot)),
                  'oldest', (SELECT o.enqueued_at FROM hawser.peer_outbox AS o WHERE o.slot = n.slot ORDER BY o.id LIMIT 1)
                ) ORDER BY n.slot)
           FROM generate_series(0, @OutboxConstants.slots@ - 1) AS n (slot), hawser.peer_outbox_state_slot_seq AS s
       ) AS slots,
       (SELECT count(*) FROM (SELECT FROM hawser.outbox_later AS f WHERE f.kind = 'peer' LIMIT 100000) AS f) AS later,
       (SELECT min(f.deliver_at) FROM hawser.outbox_later AS f WHERE f.kind = 'peer') AS next_due_at,
       0 AS dead_letters
  FROM peer_latest AS l
