#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
BEGIN
  SELECT f.* INTO topic, key, headers, payload, is_for_any
    FROM (
      SELECT q.topic, @user_key(q)@, q.headers, q.payload,
             q.channel_id IS NOT NULL OR ltrim(q.recipient, @QueueConstants.later_mark@ || @QueueConstants.priority_mark@) = '' AND NOT q.to_all
        FROM hawser_data.queue AS q WHERE q.id = job_message.id AND q.later IS DISTINCT FROM 'nats' AND @is_own(q)@
      UNION ALL
      (
        SELECT r.topic, r.key, r.headers, NULL, true
          FROM hawser_data.results AS r WHERE r.id = job_message.id AND r.expires_at > clock_timestamp() AND @is_own(r)@
         ORDER BY r.ended_at DESC LIMIT 1
      )
    ) AS f
   LIMIT 1;
END
