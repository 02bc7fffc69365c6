#variable_conflict use_column
BEGIN
  -- A failover may lose the commit of a process that took leadership, and another one then takes it from the same epoch, while the
  -- first may not know yet. The step of random size keeps them apart; the clock of a standby may be behind.
  UPDATE hawser_data.owners AS o
     SET epoch = greatest(o.epoch + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) + floor(random() * 1048576)::bigint,
         owner = p_owner, beat = 0
   WHERE o.what = 'serve' AND o.epoch = p_epoch AND o.beat = p_beat
  RETURNING o.epoch INTO take_lead.epoch;
END
