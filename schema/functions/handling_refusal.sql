#variable_conflict use_column
BEGIN
  refusal := CASE
    WHEN EXISTS (
      SELECT FROM hawser.conn_mess_number AS c, unnest(p_epochs, p_numbers) AS m (epoch, number)
       WHERE c.connection_key = p_connection_key AND (c.epoch, c.v) >= (m.epoch, m.number)
    ) THEN 'duplicate'
    WHEN NOT EXISTS (SELECT FROM hawser.peers AS p WHERE p.name = p_name AND p.epoch = p_epoch) THEN 'fenced'
    WHEN NOT EXISTS (
      SELECT FROM hawser.conn_key_map AS m
       WHERE m.connection_key = p_connection_key AND coalesce(m.owner, m.listener_name) = p_name
    ) THEN 'not_owned'
    -- A transaction that has not ended may have inserted one, too: only inserting it tells.
    -- A look-up for each: a join may read all marks of the channel.
    WHEN p_unmarked AND EXISTS (
      SELECT FROM unnest(p_epochs, p_numbers) AS m (epoch, number)
       CROSS JOIN LATERAL (
         SELECT FROM hawser.done_messages AS d
          WHERE d.connection_key = p_connection_key AND d.epoch = m.epoch AND d.number = m.number
         OFFSET 0
       ) AS s
    ) THEN 'duplicate'
  END;
END
