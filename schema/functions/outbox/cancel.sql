#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
  v_marked jsonb;
  v_kept jsonb;
BEGIN
  -- A message of a role that the caller is not a member of is as if it were not there.
  DELETE FROM hawser_data.outbox_later AS l WHERE l.id = cancel.id AND @is_own(l)@
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
      SELECT array_agg(q.topic) AS topics, array_agg(q.recipient) AS recipients, array_agg(q.role) AS roles, array_agg(q.rank) AS ranks
        FROM hawser_data.queue AS q WHERE q.id = cancel.id AND @is_own(q)@
    ) AS f
   CROSS JOIN LATERAL hawser.cancel_queued(f.topics, f.recipients, f.roles, f.ranks) AS c;
  IF FOUND THEN
    RETURN;
  END IF;
  -- The relay may have read it, unless it is of this transaction.
  DELETE FROM hawser_data.outbox AS o USING hawser.outbox_find(cancel.id, NULL, 1) AS f WHERE o.id = f.id AND f.waits
  RETURNING CASE WHEN o.xid = pg_current_xact_id() THEN 'cancelled' ELSE 'cancelling' END INTO state;
  state := coalesce(state, 'not_waiting');
END
