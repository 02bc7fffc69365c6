-- The function's settings: see drain_rows.
DECLARE
  v_rows integer;
  v_is_all boolean;
BEGIN
  -- Few rows are enough where they are batches; where they are not, all are counted in one go.
  FOREACH v_rows IN ARRAY ARRAY[least(32, p_count_rows), p_count_rows] LOOP
    SELECT least(coalesce(sum(b.messages), 0), p_count_rows), count(*) < v_rows
      INTO counted, v_is_all
      FROM (
        -- Of a batch only what is behind the position.
        SELECT CASE WHEN c.epoch = p_epoch THEN least(c.messages, c.number - p_number) ELSE c.messages END AS messages
          FROM hawser_peer_data.stored_messages AS c
         WHERE c.channel_id = p_channel_id AND (c.epoch, c.number) > (p_epoch, p_number)
         ORDER BY c.channel_id, c.epoch, c.number
         LIMIT v_rows
      ) AS b;
    EXIT WHEN v_is_all OR counted = p_count_rows;
  END LOOP;
END
