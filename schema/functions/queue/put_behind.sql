#variable_conflict use_column
BEGIN
  -- This function locks the first message of the key, so that whoever ends that message sees those behind it. If another transaction has the
  -- lock, for example to end the message, the function does not wait, and leaves the key as it is. It also marks the messages that follow in
  -- the key, so that takes pass a key with many messages in few steps.
  WITH keys AS MATERIALIZED (
    SELECT q.topic, q.recipient, q.role, q.key, min(q.rank) AS rank, greatest(1, 1000 / count(*) OVER ()) AS most
      FROM unnest(p_ids) AS p (id)
     -- One by one: with statistics from when there was no message, a plan could read all that have a key.
     CROSS JOIN LATERAL (SELECT o.topic, o.recipient, o.role, o.key, o.rank FROM hawser_data.queue AS o WHERE o.id = p.id OFFSET 0) AS q
     WHERE q.key IS NOT NULL
     GROUP BY 1, 2, 3, 4
  ), held AS MATERIALIZED (
    SELECT k.*
      FROM keys AS k
     CROSS JOIN LATERAL (
       SELECT q.ctid AS tid, q.rank FROM hawser_data.queue AS q
        WHERE q.topic = k.topic AND q.recipient = k.recipient AND q.role = k.role AND q.key = k.key ORDER BY q.rank LIMIT 1
     ) AS f
     CROSS JOIN LATERAL (SELECT FROM hawser_data.queue AS q WHERE q.ctid = f.tid AND q.rank = f.rank FOR KEY SHARE SKIP LOCKED) AS l
     WHERE f.rank < k.rank
  ), passed AS MATERIALIZED (
    SELECT r.tid, h.key
      FROM held AS h
     CROSS JOIN LATERAL (
       SELECT q.ctid AS tid FROM hawser_data.queue AS q
        WHERE q.topic = h.topic AND q.recipient = h.recipient AND q.role = h.role AND q.key = h.key AND q.rank >= h.rank AND q.worker IS NULL AND q.behind IS NULL
          AND NOT @is_for_all(q)@
        ORDER BY q.rank LIMIT h.most FOR UPDATE SKIP LOCKED
     ) AS r
  )
  UPDATE hawser_data.queue AS q SET behind = @QueueConstants.behind_key@ || p.key FROM passed AS p WHERE q.ctid = p.tid;
  is_put := FOUND;
END
