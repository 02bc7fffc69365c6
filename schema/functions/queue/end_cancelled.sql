#variable_conflict use_column
DECLARE
  v_topics text[];
  v_marked jsonb;
  v_kept jsonb;
  v_done boolean;
BEGIN
  v_done := set_config('idle_in_transaction_session_timeout', '@StoreConstants.session_idle_in_transaction_ms@', true) IS NULL;
  -- A row that is locked is just being handled, or freed: it is looked at again, unless it is gone then.
  WITH asked AS MATERIALIZED (
    SELECT c.* FROM hawser_data.cancellations AS c
     WHERE p_ids = '{}' OR (c.topic, c.recipient, c.role, c.id) IN (SELECT * FROM unnest(p_topics, p_recipients, p_roles, p_ids))
     LIMIT 10000 FOR UPDATE SKIP LOCKED
  ), locked AS MATERIALIZED (
    SELECT topic, recipient, role, id
      FROM (SELECT DISTINCT a.topic, a.recipient, a.role, a.id FROM asked AS a) AS a JOIN hawser_data.queue AS q USING (topic, recipient, role, id)
       FOR UPDATE OF q SKIP LOCKED
  ), gone AS (
    DELETE FROM hawser_data.queue AS q USING locked AS l
     WHERE q.topic = l.topic AND q.recipient = l.recipient AND q.role = l.role AND q.id = l.id
    RETURNING q.*
  ), ended AS (
    DELETE FROM hawser_data.cancellations AS c USING asked AS a
     WHERE c.topic = a.topic AND c.recipient = a.recipient AND c.role = a.role AND c.id = a.id AND c.xid = a.xid
       AND (
         (a.topic, a.recipient, a.role, a.id) IN (SELECT l.topic, l.recipient, l.role, l.id FROM locked AS l)
         OR NOT EXISTS (
           SELECT FROM hawser_data.queue AS q WHERE q.topic = a.topic AND q.recipient = a.recipient AND q.role = a.role AND q.id = a.id
         )
       )
  )
  -- Workers may have looked at those behind them, and left them because of them.
  SELECT array_agg(DISTINCT g.topic) FILTER (WHERE g.key IS NOT NULL), jsonb_agg(@marks_of(g)@) FILTER (WHERE @is_marked(g)@),
         jsonb_agg(@kept_of(g)@) FILTER (WHERE @keep_ms_of(g)@ IS NOT NULL)
    INTO v_topics, v_marked, v_kept FROM gone AS g;
  v_done := hawser.end_marked(v_marked, false);
  IF v_kept IS NOT NULL THEN
    v_done := hawser.keep_ended(v_kept, 'cancelled', NULL, NULL);
  END IF;
  IF v_topics IS NOT NULL THEN
    v_done := hawser.wake_topics(v_topics);
  END IF;
  ids := ARRAY(
    SELECT m.id FROM unnest(p_topics, p_recipients, p_roles, p_ids) AS m (topic, recipient, role, id)
     WHERE NOT EXISTS (
       SELECT FROM hawser_data.queue AS q WHERE q.topic = m.topic AND q.recipient = m.recipient AND q.role = m.role AND q.id = m.id
     )
  );
END
