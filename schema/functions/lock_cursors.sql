#variable_conflict use_column
DECLARE
  v_absent integer[] := p_channel_ids;
BEGIN
  FOR i IN 1..2 LOOP
    -- As in cursor_of.
    v_absent := ARRAY(
      SELECT k.key FROM unnest(v_absent) AS k (key)
       WHERE (
         SELECT c.channel_id FROM hawser_peer_data.cursors AS c WHERE c.channel_id = k.key
          ORDER BY c.channel_id DESC, c.epoch DESC, c.number DESC LIMIT 1
       ) IS NULL
       ORDER BY k.key
    );
    EXIT WHEN v_absent = '{}';
    IF i = 1 THEN
      -- No constraint keeps a channel from having two. Whoever makes one has the channel's row, and looks again.
      PERFORM FROM hawser_peer_data.channels AS m WHERE m.channel_id = ANY (v_absent) ORDER BY m.channel_id FOR NO KEY UPDATE;
    ELSE
      INSERT INTO hawser_peer_data.cursors (channel_id)
      SELECT m.channel_id FROM hawser_peer_data.channels AS m WHERE m.channel_id = ANY (v_absent);
    END IF;
  END LOOP;
  -- In the order of ids, so that two calls never wait in a circle. After a wait it is what the other has left.
  RETURN QUERY
  SELECT c.channel_id, c.epoch, c.number
    FROM (SELECT DISTINCT k.key FROM unnest(p_channel_ids) AS k (key) ORDER BY k.key) AS a
   CROSS JOIN LATERAL (
     SELECT n.channel_id, n.epoch, n.number FROM hawser_peer_data.cursors AS n WHERE n.channel_id = a.key
      ORDER BY n.channel_id DESC, n.epoch DESC, n.number DESC LIMIT 1 FOR UPDATE
   ) AS c;
END
