#variable_conflict use_column
-- The function's settings: the table grows from nothing to millions of rows while the planner still takes it for empty,
-- so that every plan but the walk along the primary key must be out of the question.
DECLARE
  v_messages bigint := 0;
  v_bytes bigint := 0;
BEGIN
  counted := (
    SELECT c.counted FROM hawser.count_messages(p_channel_id, p_epoch, p_number, p_max_messages + p_count_messages) AS c
  );
  FOR epoch, number, messages, lengths, topic_id, codec, headers, payload IN
    SELECT m.epoch, m.number, m.messages, m.lengths, m.topic_id, m.codec, m.headers, m.payload
      FROM hawser_peer_data.stored_messages AS m
     WHERE m.channel_id = p_channel_id AND (m.epoch, m.number) > (p_epoch, p_number)
     ORDER BY m.channel_id, m.epoch, m.number
     LIMIT p_max_messages
  LOOP
    EXIT WHEN v_messages > 0 AND (
      v_messages + messages > p_max_messages OR v_bytes + octet_length(payload) > p_max_bytes
    );
    v_messages := v_messages + messages;
    v_bytes := v_bytes + octet_length(payload);
    RETURN NEXT;
  END LOOP;
END
