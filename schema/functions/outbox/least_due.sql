#variable_conflict use_column
BEGIN
  IF p_from IS NULL THEN
    -- In a copy of another cluster's database they may have ids of transactions that are still to come here, and every look
    -- would find them. 2 is older than everything.
    UPDATE hawser.outbox_later AS l SET xid = '2' WHERE l.kind = p_kind AND l.xid > pg_current_xact_id();
    SELECT min(l.deliver_at) INTO due_from FROM hawser.outbox_later AS l WHERE l.kind = p_kind;
  ELSE
    SELECT min(l.deliver_at) INTO due_from FROM hawser.outbox_later AS l
     WHERE l.kind = p_kind
       AND (l.xid >= pg_snapshot_xmax(p_from) OR l.xid = ANY (ARRAY(SELECT pg_snapshot_xip(p_from))));
  END IF;
END
