#variable_conflict use_column
DECLARE
  v_passed bigint[];
  v_done boolean;
BEGIN
  -- A worker takes a role's key from its first message on, a bounded run at a time, so that one key does not have all places. The first
  -- row is the lock of the key: only who may take messages can lock it. A take does not wait for a key that another transaction
  -- looks at, and leaves it. This is a statement of its own, behind the locks: of two takes of a key, the later one sees what the other
  -- one has locked or taken.
  WITH locked AS MATERIALIZED (
    SELECT q.ctid AS tid, q.topic, q.recipient, q.role, q.key, q.rank, q.id FROM hawser_data.queue AS q WHERE q.ctid = ANY (p_tids)
  ), firsts AS MATERIALIZED (
    SELECT l.topic, l.recipient, l.role, l.key, n.rank, n.worker, n.begun_by
      FROM (SELECT k.topic, k.recipient, k.role, k.key, max(k.rank) AS upto FROM locked AS k WHERE k.key IS NOT NULL GROUP BY 1, 2, 3, 4) AS l
     CROSS JOIN LATERAL (
       SELECT q.rank, q.worker, q.begun_by FROM hawser_data.queue AS q
        WHERE q.topic = l.topic AND q.recipient = l.recipient AND q.role = l.role AND q.key = l.key AND q.rank <= l.upto ORDER BY q.rank LIMIT @QueueConstants.key_run@
     ) AS n
  ), stops AS MATERIALIZED (
    -- One that has begun as a message of a channel may be the worker's before the worker knows.
    SELECT f.topic, f.recipient, f.role, f.key, min(f.rank) AS rank
      FROM firsts AS f
     WHERE (f.worker IS DISTINCT FROM p_worker OR f.begun_by IS NOT NULL) AND f.rank NOT IN (SELECT l.rank FROM locked AS l)
     GROUP BY 1, 2, 3, 4
  ), decided AS (
    SELECT l.tid, l.id,
           l.key IS NULL OR l.rank IN (SELECT f.rank FROM firsts AS f) AND NOT EXISTS (
             SELECT FROM stops AS s WHERE s.topic = l.topic AND s.recipient = l.recipient AND s.role = l.role AND s.key = l.key AND s.rank < l.rank
           ) AS is_taken
      FROM locked AS l
  )
  SELECT coalesce(array_agg(d.tid) FILTER (WHERE d.is_taken), '{}'), array_agg(d.id) FILTER (WHERE NOT d.is_taken) INTO tids, v_passed FROM decided AS d;
  IF v_passed IS NOT NULL THEN
    v_done := hawser.put_behind(v_passed);
  END IF;
END
