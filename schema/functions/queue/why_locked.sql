#variable_conflict use_column
DECLARE
  v_xids text[] := p_xids;
  v_xid text;
BEGIN
  -- Such an id may stand for several transactions that share a lock. Nothing says which it is, but that it is none of these is an error.
  FOREACH v_xid IN ARRAY array_remove(coalesce(p_xids, '{}'), '0') LOOP
    BEGIN
      v_xids := v_xids || ARRAY(SELECT m.xid::text FROM pg_get_multixact_members(v_xid::xid) AS m);
    EXCEPTION WHEN internal_error OR invalid_parameter_value THEN
      NULL;
    END;
  END LOOP;
  WITH locks AS MATERIALIZED (
    SELECT l.* FROM pg_locks AS l WHERE l.granted AND l.locktype IN ('relation', 'transactionid') AND l.pid IS DISTINCT FROM pg_backend_pid()
  ), tables AS MATERIALIZED (
    SELECT l.virtualtransaction, l.pid, l.relation, l.mode FROM locks AS l
     WHERE l.locktype = 'relation' AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
       AND l.relation = ANY ('{hawser_data.queue, hawser_data.unique_keys, hawser_data.unique_locks, hawser_data.topic_settings, hawser_data.workers}'::regclass[])
  ), holders AS (
    SELECT t.virtualtransaction, t.pid FROM tables AS t
     WHERE p_xids IS NULL AND t.relation = 'hawser_data.queue'::regclass AND t.mode = 'RowExclusiveLock'
     UNION
    SELECT l.virtualtransaction, l.pid FROM locks AS l
     WHERE l.transactionid::text = ANY (v_xids) AND l.mode = 'ExclusiveLock'
       -- The number may be that of a transaction which has ended, too.
       AND EXISTS (SELECT FROM tables AS t WHERE t.virtualtransaction = l.virtualtransaction)
       AND NOT (p_but_workers AND EXISTS (SELECT FROM tables AS t WHERE t.virtualtransaction = l.virtualtransaction AND t.relation = 'hawser_data.workers'::regclass))
  )
  SELECT CASE WHEN h.pid IS NULL THEN 'prepared transaction ' || quote_literal(p.gid) ELSE 'session ' || h.pid END,
         CASE WHEN h.pid IS NULL THEN p.prepared ELSE a.xact_start END,
         CASE WHEN h.pid IS NULL THEN 'the prepared transaction ' || quote_literal(p.gid) ELSE format('the session %s of the role %s', h.pid, to_json(a.usename)) END,
         CASE WHEN h.pid IS NULL THEN format('COMMIT PREPARED %L, or ROLLBACK PREPARED %L', p.gid, p.gid) ELSE format('Wait for its end, or SELECT pg_terminate_backend(%s)', h.pid) END
    INTO holder, since, explanation, remedy
    FROM holders AS h
    LEFT JOIN pg_stat_activity AS a ON a.pid = h.pid
    LEFT JOIN pg_prepared_xacts AS p
      ON h.pid IS NULL AND EXISTS (SELECT FROM locks AS l WHERE l.pid IS NULL AND l.virtualtransaction = h.virtualtransaction AND l.transactionid = p.transaction)
   ORDER BY 2 NULLS LAST, h.pid LIMIT 1;
END
