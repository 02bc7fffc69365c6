#variable_conflict use_column
DECLARE
  v_absent integer[] := p_connection_keys;
BEGIN
  FOR i IN 1..2 LOOP
    -- As in cursor_of.
    v_absent := ARRAY(
      SELECT k.key FROM unnest(v_absent) AS k (key)
       WHERE (
         SELECT c.connection_key FROM hawser_data.cursors AS c WHERE c.connection_key = k.key
          ORDER BY c.connection_key DESC, c.epoch DESC, c.v DESC LIMIT 1
       ) IS NULL
       ORDER BY k.key
    );
    EXIT WHEN v_absent = '{}';
    IF i = 1 THEN
      -- No constraint keeps a channel from having two. Whoever makes one has the channel's row, and looks again.
      PERFORM FROM hawser_data.channels AS m WHERE m.connection_key = ANY (v_absent) ORDER BY m.connection_key FOR NO KEY UPDATE;
    ELSE
      INSERT INTO hawser_data.cursors (connection_key)
      SELECT m.connection_key FROM hawser_data.channels AS m WHERE m.connection_key = ANY (v_absent);
    END IF;
  END LOOP;
  -- In key order, so that two calls never wait in a circle. After a wait it is what the other has left.
  RETURN QUERY
  SELECT c.connection_key, c.epoch, c.v
    FROM (SELECT DISTINCT k.key FROM unnest(p_connection_keys) AS k (key) ORDER BY k.key) AS a
   CROSS JOIN LATERAL (
     SELECT n.connection_key, n.epoch, n.v FROM hawser_data.cursors AS n WHERE n.connection_key = a.key
      ORDER BY n.connection_key DESC, n.epoch DESC, n.v DESC LIMIT 1 FOR UPDATE
   ) AS c;
END
