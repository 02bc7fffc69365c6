#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_role text;
  v_destination text;
BEGIN
  -- A message of a role that the caller is not a member of is as if it were not there. One that is due later does not become due meanwhile.
  PERFORM FROM hawser_data.queue AS q WHERE q.id = cancel.id AND @is_later(q)@ AND @is_own(q)@ FOR UPDATE;
  SELECT c.state, f.roles[1], f.topics[1] INTO state, v_role, v_destination
    FROM (
      SELECT array_agg(q.topic) AS topics, array_agg(q.recipient) AS recipients, array_agg(q.role) AS roles, array_agg(q.rank) AS ranks
        FROM hawser_data.queue AS q WHERE q.id = cancel.id AND @is_own(q)@
    ) AS f
   CROSS JOIN LATERAL hawser.cancel_queued(f.topics, f.recipients, f.roles, f.ranks) AS c;
  IF NOT FOUND THEN
    -- The relay may have read it, unless it is of this transaction.
    DELETE FROM hawser_data.outbox AS o USING hawser.outbox_find(cancel.id, NULL, 1) AS f WHERE o.id = f.id AND f.waits
    RETURNING CASE WHEN o.xid = pg_current_xact_id() THEN 'cancelled' ELSE 'cancelling' END, o.role, o.destination INTO state, v_role, v_destination;
  END IF;
  -- Programs cancel messages of their own, and often: that is no operator's act.
  IF v_role <> coalesce(nullif(current_setting('role'), 'none'), session_user) THEN
    PERFORM hawser.record_act('cancel', v_destination, 1, jsonb_build_object('ids', jsonb_build_array(cancel.id)));
  END IF;
  state := coalesce(state, 'not_waiting');
END
