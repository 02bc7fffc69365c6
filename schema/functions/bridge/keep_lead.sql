#variable_conflict use_column
BEGIN
  UPDATE hawser_data.owners AS o
     SET owner = CASE WHEN NOT p_ends THEN p_owner END, state = coalesce(p_state, o.state),
         beat = CASE WHEN p_state IS NULL AND o.beat <= 0 THEN o.beat - 1 ELSE greatest(o.beat, 0) + 1 END
   WHERE o.what = 'serve' AND o.epoch = p_epoch AND o.owner = p_owner
     -- A failover can lose the second step of taking it without the first one.
     AND (p_ends OR EXISTS (SELECT FROM hawser_data.fences AS f WHERE f.what = 'serve' AND f.epoch = p_epoch));
  held := FOUND;
  IF held AND p_ends THEN
    PERFORM pg_notify('hawser_nats_handlers', '{}') WHERE pg_notification_queue_usage() < 0.9;
  END IF;
END
