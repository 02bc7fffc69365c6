#variable_conflict use_column
BEGIN
  -- Such a name is no peer's.
  IF starts_with(p_name, @QueueConstants.reserved_prefix@) THEN
    RAISE EXCEPTION 'the sender "%" begins with __#, which is reserved', p_name
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Name a peer.';
  END IF;

  IF NOT hawser.end_ownership(p_name, false) THEN
    RAISE EXCEPTION 'the peer "%" is running', p_name
      USING ERRCODE = 'object_in_use', HINT = 'Stop it first.';
  END IF;
  -- As when the name is taken: waits for the writes under way of a holder that has lost its session.
  UPDATE hawser_data.fences AS f SET epoch = o.epoch FROM hawser_data.owners AS o WHERE f.what = 'peer:' || p_name AND o.what = f.what;

  DELETE FROM hawser_peer_data.routes AS s WHERE s.sender_key = p_name || ':' || p_source_topic;
  WITH gone AS (
    DELETE FROM hawser_peer_data.stored_messages AS s
     USING hawser_peer_data.channels AS m
     WHERE s.channel_id = m.channel_id
       AND m.sender_name = p_name AND m.source_topic = p_source_topic
    RETURNING s.messages
  )
  SELECT coalesce(sum(g.messages), 0) INTO deleted FROM gone AS g;
  IF deleted > 0 THEN
    PERFORM hawser.record_act('clear_stored', p_name, deleted, jsonb_build_object('source_topic', p_source_topic));
  END IF;
END
