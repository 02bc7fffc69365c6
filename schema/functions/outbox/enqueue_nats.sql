#variable_conflict use_column
DECLARE
  v_cluster CONSTANT bigint := hawser.present_cluster();
BEGIN
  PERFORM hawser.check_headers(p_headers);
  IF p_key IS NOT NULL THEN
    PERFORM FROM hawser.outbox_keys AS k
     WHERE k.bucket = (hashtextextended(p_subject || ' ' || p_key, 0) & 4095)::integer
       FOR UPDATE;
  END IF;

  INSERT INTO hawser.outbox (slot, destination, payload, headers, key, message_id, to_stream, domain, cluster)
  SELECT (s.last_value - 1) % @OutboxConstants.slots@, p_subject, p.payload, nullif(p_headers, '{}'), p_key,
         coalesce(p_message_id, gen_random_uuid()::text), p_to_stream, p_domain, v_cluster
    FROM unnest(p_payloads) WITH ORDINALITY AS p (payload, nth), hawser.outbox_state_slot_seq AS s
   ORDER BY p.nth;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  id := currval('hawser.outbox_id_seq');

  -- Behind the insert, by which the transaction has an id: the relay's last look before it sleeps sees that it is open. A
  -- sequence shows its present value, whatever the snapshot.
  IF (SELECT a.last_value FROM hawser.outbox_state_asleep_seq AS a) = 2 THEN
    PERFORM pg_notify('hawser_outbox', '');
  END IF;
END
