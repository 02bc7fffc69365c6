DECLARE
  v_origin jsonb;
BEGIN
  headers := p_headers;
  IF NOT EXISTS (
    SELECT FROM hawser_data.channels AS m WHERE m.channel_id = p_channel_id AND m.sender_name = @OutboxConstants.peer_sender@
  ) THEN
    RETURN;
  END IF;
  BEGIN
    v_origin := (
      SELECT e.pair
        FROM (
          SELECT s.headers FROM hawser_data.stored_messages AS s
           WHERE s.channel_id = p_channel_id AND s.epoch = p_epoch AND s.number = p_number
          UNION ALL
          SELECT convert_from(p.headers, 'UTF8')::jsonb FROM hawser_data.parked_messages AS p
           WHERE p.channel_id = p_channel_id AND p.epoch = p_epoch AND p.number = p_number
        ) AS r
       CROSS JOIN LATERAL jsonb_array_elements(CASE jsonb_typeof(r.headers) WHEN 'array' THEN r.headers END) AS e (pair)
       WHERE lower((e.pair ->> 0) COLLATE "C") = @ProtocolConstants.message_origin_header@
       LIMIT 1
    );
  EXCEPTION
    -- The owner of the schema has written the row, and its headers are no JSON.
    WHEN data_exception THEN
      v_origin := NULL;
  END;
  headers := CASE WHEN v_origin IS NULL THEN '[]' ELSE jsonb_build_array(v_origin) END || coalesce((
    SELECT jsonb_agg(e.pair ORDER BY e.nth)
      FROM jsonb_array_elements(p_headers) WITH ORDINALITY AS e (pair, nth)
     WHERE lower((e.pair ->> 0) COLLATE "C") <> @ProtocolConstants.message_origin_header@
  ), '[]');
END
