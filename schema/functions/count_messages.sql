-- The function's settings: see drain_messages.
BEGIN
  counted := (
    SELECT count(*)
      FROM (
        SELECT FROM hawser.conn_messages AS c
         WHERE c.connection_key = p_connection_key AND (c.epoch, c.number) > (p_epoch, p_number)
         LIMIT p_count_rows
      ) AS behind
  );
END
