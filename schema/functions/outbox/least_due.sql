BEGIN
  -- In a copy of another cluster's database they may have ids of transactions that are still to come here, and every poll
  -- would find them. 2 is older than everything.
  UPDATE hawser_data.outbox_later AS l SET xid = '2' WHERE l.kind = p_kind AND l.xid > pg_current_xact_id();
  SELECT min(l.deliver_at) INTO due_from FROM hawser_data.outbox_later AS l WHERE l.kind = p_kind;
END
