#variable_conflict use_column
-- The function's settings: see drain_messages. For each channel its first row is looked up; of an EXISTS the planner makes a
-- join that reads the whole table where a few channels have most of it.
BEGIN
  RETURN QUERY
  SELECT m.channel_id
    FROM hawser_peer_data.channels AS m
    LEFT JOIN LATERAL (
      -- As in cursor_of.
      SELECT n.epoch, n.number FROM hawser_peer_data.cursors AS n WHERE n.channel_id = m.channel_id
       ORDER BY n.channel_id DESC, n.epoch DESC, n.number DESC LIMIT 1
    ) AS c ON true
   WHERE m.listener_name = p_listener_name
     AND coalesce(
       -- Behind the cursor first: up to it the index has what was deleted, until a vacuum.
       (
         SELECT s.channel_id
           FROM hawser_peer_data.stored_messages AS s
          WHERE s.channel_id = m.channel_id AND (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.number, 0))
          ORDER BY s.channel_id, s.epoch, s.number
          LIMIT 1
       ),
       -- What has come late.
       (
         SELECT s.channel_id
           FROM hawser_peer_data.stored_messages AS s
          WHERE s.channel_id = m.channel_id
          ORDER BY s.channel_id, s.epoch, s.number
          LIMIT 1
       )
     ) IS NOT NULL
   ORDER BY m.channel_id;
END
