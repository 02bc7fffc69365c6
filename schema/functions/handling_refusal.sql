#variable_conflict use_column
BEGIN
  -- A look-up for each message: what was marked, and where the cursor was, stays in the indexes until a vacuum, which an open
  -- transaction may keep away for hours. A join may read all of it.
  refusal := CASE
    WHEN EXISTS (
      SELECT FROM (
               SELECT m.epoch, m.number FROM unnest(p_epochs, p_numbers) AS m (epoch, number) ORDER BY m.epoch, m.number LIMIT 1
             ) AS f,
             LATERAL (
               SELECT FROM hawser_peer_data.cursors AS c
                WHERE c.channel_id = p_channel_id AND (c.epoch, c.number) >= (f.epoch, f.number) LIMIT 1
             ) AS c
    ) THEN 'duplicate'
    WHEN NOT EXISTS (SELECT FROM hawser_peer_data.peers AS p WHERE p.name = p_name AND p.epoch = p_epoch) THEN 'fenced'
    WHEN NOT EXISTS (
      SELECT FROM hawser_peer_data.channels AS m
       WHERE m.channel_id = p_channel_id AND coalesce(m.owner, m.listener_name) = p_name
    ) THEN 'not_owned'
    -- A transaction that has not ended may have inserted one, too: only inserting it tells.
    WHEN p_unmarked AND EXISTS (
      SELECT FROM unnest(p_epochs, p_numbers) AS m (epoch, number)
       CROSS JOIN LATERAL (
         SELECT FROM hawser_peer_data.marks AS d
          WHERE d.channel_id = p_channel_id AND d.epoch = m.epoch AND d.number = m.number
         OFFSET 0
       ) AS s
    ) THEN 'duplicate'
  END;
END
