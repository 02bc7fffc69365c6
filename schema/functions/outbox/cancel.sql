#variable_conflict use_column
DECLARE
  v_roles text[];
  v_row record;
  v_key text;
BEGIN
  -- As if it were not there, where it is of a role that the caller is not a member of.
  v_roles := hawser.callers_roles();
  DELETE FROM hawser_data.outbox_later AS l WHERE l.id = cancel.id AND (v_roles IS NULL OR l.role = ANY (v_roles));
  cancelled := FOUND;
  IF cancelled THEN
    RETURN;
  END IF;
  SELECT q.* INTO v_row
    FROM hawser.queue_places('{}') AS p
   CROSS JOIN LATERAL (
     SELECT o.topic, o.recipient, o.role, o.worker FROM hawser_data.queue AS o
      WHERE o.topic = p.topic AND o.recipient = p.recipient AND o.role = p.role AND o.id = cancel.id
        AND NOT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = o.worker AND w.gone_at IS NULL)
      LIMIT 1
   ) AS q
   WHERE v_roles IS NULL OR p.role = ANY (v_roles);
  IF NOT FOUND THEN
    RETURN;
  END IF;
  -- Nobody waits for a worker that is just taking or ending it. With the same worker as before it was not taken: an id of a worker is
  -- never used again.
  PERFORM FROM hawser_data.queue AS q
    WHERE q.topic = v_row.topic AND q.recipient = v_row.recipient AND q.role = v_row.role AND q.id = cancel.id
      AND q.worker IS NOT DISTINCT FROM v_row.worker
      FOR UPDATE SKIP LOCKED;
  cancelled := FOUND;
  IF cancelled THEN
    DELETE FROM hawser_data.queue AS q
     WHERE q.topic = v_row.topic AND q.recipient = v_row.recipient AND q.role = v_row.role AND q.id = cancel.id
    RETURNING q.key INTO v_key;
    -- Workers may have looked at those behind it, and left them because of it.
    IF v_key IS NOT NULL THEN
      PERFORM hawser.wake_topics(ARRAY[v_row.topic]);
    END IF;
  END IF;
END
