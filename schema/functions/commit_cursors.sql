#variable_conflict use_column
-- The function's settings: the tables grow from nothing to millions of rows while a plan made for the empty ones is
-- still cached, so no plan may scan them; and planning anew for each set of arrays would cost more than the rest.
DECLARE
  -- What is deleted lies behind this position.
  v_after_epoch bigint;
  v_after_number bigint;
  -- The cursors before, and which of them move.
  v_keys integer[];
  v_epochs bigint[];
  v_numbers bigint[];
  v_moves record;
  v_moved integer[] := '{}';
  -- What leave_channels returns.
  v_left integer[] := '{}';
  v_ranks text;
  v_role text;
  -- What only has an effect is assigned: an assignment of a plain expression takes a fraction of a PERFORM.
  v_done boolean;
BEGIN
  -- From here on a session that stands still holds the fence, and keeps others out.
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  held := hawser.fenced(p_name, p_epoch);
  IF NOT held THEN
    RETURN NEXT;
    RETURN;
  END IF;

  -- One channel alone, as while there is little to do, whose cursor moves: without the machinery for many, and in as few
  -- statements as can be.
  IF cardinality(p_channel_ids) = 1 AND p_left IS NULL THEN
    -- As in cursor_of. Then by its whole key: of anything less the planner would make a walk through all that the cursor has left,
    -- as the statistics say that the table has one row.
    SELECT c.epoch, c.number INTO v_after_epoch, v_after_number
      FROM hawser_peer_data.cursors AS c WHERE c.channel_id = p_channel_ids[1]
     ORDER BY c.channel_id DESC, c.epoch DESC, c.number DESC LIMIT 1 FOR UPDATE;
    UPDATE hawser_peer_data.cursors AS c
       SET epoch = p_cursor_epochs[1], number = p_cursors[1]
     WHERE c.channel_id = p_channel_ids[1] AND c.epoch = v_after_epoch AND c.number = v_after_number
       AND (v_after_epoch, v_after_number) < (p_cursor_epochs[1], p_cursors[1])
       AND EXISTS (SELECT FROM hawser_peer_data.channels AS m WHERE m.channel_id = p_channel_ids[1] AND m.listener_name = p_name);
    IF FOUND THEN
      -- Not from the channel's first row on: until a vacuum the index still has all that was deleted before, which each
      -- commit of a great backlog would walk through.
      DELETE FROM hawser_peer_data.stored_messages AS d
       WHERE d.channel_id = p_channel_ids[1]
         AND (d.epoch, d.number) > (v_after_epoch, v_after_number)
         AND (d.epoch, d.number) <= (p_cursor_epochs[1], p_cursors[1]);
      channel_id := p_channel_ids[1];
      moved := true;
      RETURN NEXT;
      RETURN;
    END IF;
  END IF;

  SELECT array_agg(l.channel_id), array_agg(l.epoch), array_agg(l.number)
    INTO v_keys, v_epochs, v_numbers
    FROM hawser.lock_cursors(ARRAY(
      SELECT m.channel_id FROM hawser_peer_data.channels AS m WHERE m.channel_id = ANY (p_channel_ids) AND m.listener_name = p_name
    )) AS l;
  IF p_left IS NOT NULL THEN
    IF EXISTS (
      SELECT FROM jsonb_to_recordset(p_left) AS j (channel_id integer, epoch bigint, number bigint)
        LEFT JOIN unnest(p_channel_ids, p_cursor_epochs, p_cursors) AS a (key, epoch, number) ON a.key = j.channel_id
       WHERE ((j.epoch, j.number) <= (a.epoch, a.number)) IS NOT TRUE
    ) THEN
      RAISE EXCEPTION 'a message of "%" leaves its channel before the cursor passes it', p_name
        USING ERRCODE = 'invalid_parameter_value', HINT = 'Give with a cursor only messages up to it.';
    END IF;
    SELECT l.channel_ids, l.ranks, l.role INTO v_left, v_ranks, v_role FROM hawser.leave_channels(p_name, p_left, p_left_payloads) AS l;
  END IF;

  FOR v_moves IN
    SELECT a.key, a.epoch, a.number, o.epoch AS old_epoch, o.number AS old_number
      FROM unnest(p_channel_ids, p_cursor_epochs, p_cursors) AS a (key, epoch, number)
      JOIN unnest(v_keys, v_epochs, v_numbers) AS o (key, epoch, number) ON o.key = a.key
     WHERE (o.epoch, o.number) < (a.epoch, a.number)
  LOOP
    UPDATE hawser_peer_data.cursors AS c
       SET epoch = v_moves.epoch, number = v_moves.number,
           has_rows = c.has_rows OR v_moves.key = ANY (v_left)
     WHERE c.channel_id = v_moves.key AND c.epoch = v_moves.old_epoch AND c.number = v_moves.old_number;
    v_moved := v_moved || v_moves.key;
  END LOOP;

  RETURN QUERY
  WITH asked AS MATERIALIZED (
    SELECT a.key, a.epoch, a.number, o.key IS NOT NULL AS owned,
           CASE WHEN (o.epoch, o.number) < (a.epoch, a.number) THEN o.epoch ELSE -1 END AS after_epoch,
           CASE WHEN (o.epoch, o.number) < (a.epoch, a.number) THEN o.number ELSE 0 END AS after_number
      FROM unnest(p_channel_ids, p_cursor_epochs, p_cursors) AS a (key, epoch, number)
      LEFT JOIN unnest(v_keys, v_epochs, v_numbers) AS o (key, epoch, number) ON o.key = a.key
  ), deleted AS (
    -- What the cursor passes now; if it was there before, everything up to it. By ctid over a look-up for each channel: no
    -- other plan stays cheap for few and for many stored rows.
    DELETE FROM hawser_peer_data.stored_messages AS d
     WHERE d.ctid = ANY (ARRAY(
       SELECT s.ctid
         FROM asked AS a
        CROSS JOIN LATERAL (
          SELECT r.ctid
            FROM hawser_peer_data.stored_messages AS r
           WHERE r.channel_id = a.key
             AND (r.epoch, r.number) > (a.after_epoch, a.after_number) AND (r.epoch, r.number) <= (a.epoch, a.number)
          OFFSET 0
        ) AS s
        WHERE a.owned
     ))
  )
  SELECT true, a.key, CASE WHEN a.owned THEN a.key = ANY (v_moved) END, v_ranks, v_role
    FROM asked AS a;
END
