#variable_conflict use_column
DECLARE
  v_setting hawser_data.topic_settings;
  v_now bigint;
BEGIN
  most := 0;
  -- Nobody waits: a worker has other topics, too.
  SELECT s.* INTO v_setting FROM hawser_data.topic_settings AS s WHERE s.topic = p_topic FOR NO KEY UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  -- Behind the lock: of two takes, the later one counts what the other has started.
  at := coalesce(p_at, clock_timestamp());
  v_now := extract(epoch FROM at) * 1000000;
  IF v_setting.full_at_us > v_now + v_setting.burst * v_setting.interval_us THEN
    -- The clock was set back.
    v_setting.full_at_us := v_now + v_setting.burst * v_setting.interval_us;
    UPDATE hawser_data.topic_settings AS s SET full_at_us = v_setting.full_at_us WHERE s.topic = p_topic;
  END IF;
  -- The next ones of the same key and role may start.
  WITH RECURSIVE ended AS (
    DELETE FROM hawser_data.topic_starts AS s
     WHERE s.topic = p_topic
       AND NOT @is_started(s)@
    RETURNING s.role, s.limit_key
  ), places AS (
    SELECT DISTINCT @QueueConstants.behind_limit@ || e.limit_key AS behind, e.role, '' AS recipient FROM ended AS e
    UNION ALL
    SELECT p.behind, p.role, n.recipient
      FROM places AS p
     CROSS JOIN LATERAL (
       SELECT q.recipient FROM hawser_data.queue AS q
        WHERE q.topic = p_topic AND q.behind = p.behind AND q.role = p.role AND q.recipient > p.recipient ORDER BY q.recipient LIMIT 1
     ) AS n
  ), next AS MATERIALIZED (
    SELECT n.tid
      FROM places AS p
     CROSS JOIN LATERAL (
       SELECT q.ctid AS tid FROM hawser_data.queue AS q
        WHERE q.topic = p_topic AND q.behind = p.behind AND q.role = p.role AND q.recipient = p.recipient
        ORDER BY q.rank LIMIT v_setting.running_per_key FOR UPDATE SKIP LOCKED
     ) AS n
  )
  UPDATE hawser_data.queue AS q SET behind = NULL FROM next AS n WHERE q.ctid = n.tid;
  most := greatest(0, least(
    1000,
    v_setting.running - CASE WHEN v_setting.running IS NOT NULL THEN (SELECT count(*) FROM hawser_data.topic_starts AS s WHERE s.topic = p_topic) END,
    @rate_left(v_setting)@
  ));
  per_key := v_setting.running_per_key;
  key_header := v_setting.key_header;
END
