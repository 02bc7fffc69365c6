#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_marked jsonb;
  v_kept jsonb;
BEGIN
  -- A message of a role that the caller is not a member of is as if it were not there.
  DELETE FROM hawser_data.outbox_later AS l WHERE l.id = cancel.id AND (v_roles IS NULL OR l.role = ANY (v_roles))
  RETURNING jsonb_build_array(@later_marks_of(l)@), CASE WHEN @later_keep_ms(l)@ IS NOT NULL THEN jsonb_build_array(@kept_later(l)@) END
    INTO v_marked, v_kept;
  IF FOUND THEN
    PERFORM hawser.end_marked(v_marked, false);
    PERFORM hawser.keep_ended(v_kept, 'cancelled', NULL, NULL);
    state := 'cancelled';
    RETURN;
  END IF;
  SELECT c.state INTO state
    FROM (
      SELECT array_agg(q.topic) AS topics, array_agg(q.recipient) AS recipients, array_agg(q.role) AS roles, array_agg(q.id) AS ids
        FROM (
          SELECT o.topic, o.recipient, o.role, o.id FROM hawser_data.queue AS o WHERE o.first_id = cancel.id
          UNION ALL
          SELECT n.*
            FROM hawser.queue_places('{}') AS p
           CROSS JOIN LATERAL (
             SELECT o.topic, o.recipient, o.role, o.id FROM hawser_data.queue AS o
              WHERE o.topic = p.topic AND o.recipient = p.recipient AND o.role = p.role AND o.id = cancel.id
              LIMIT 1
           ) AS n
        ) AS q
       WHERE v_roles IS NULL OR q.role = ANY (v_roles)
    ) AS f
   CROSS JOIN LATERAL hawser.cancel_queued(f.topics, f.recipients, f.roles, f.ids) AS c;
  IF FOUND THEN
    RETURN;
  END IF;
  -- The relay may have read it, unless it is of this transaction.
  DELETE FROM hawser_data.outbox AS o USING hawser.outbox_find(cancel.id, NULL, 1) AS f WHERE o.id = f.id AND f.waits
  RETURNING CASE WHEN o.xid = pg_current_xact_id() THEN 'cancelled' ELSE 'cancelling' END INTO state;
  state := coalesce(state, 'not_waiting');
END
