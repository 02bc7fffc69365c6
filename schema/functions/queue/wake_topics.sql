-- Whether a worker waits is asked by trying to have its lock alone. It is given back within the same expression, between whose calls
-- Postgres looks for no interrupt, so that no session keeps it. One that another login has costs notifications that nobody needs.
-- A session that waits itself is not stopped by its own lock, and others of its process may wait with it.
BEGIN
  PERFORM pg_notify(@QueueConstants.channel@, t.topic)
     FROM (
       SELECT u.topic
         FROM (SELECT p.topic, (hawser.wait_locks(ARRAY[p.topic]))[1] AS lock FROM unnest(p_topics) AS p (topic) OFFSET 0) AS u
        WHERE CASE
                WHEN current_setting(@QueueConstants.waiting_setting@, true) = 'on' THEN true
                WHEN pg_try_advisory_lock(u.lock) THEN NOT pg_advisory_unlock(u.lock)
                ELSE true
              END
     ) AS t (topic) WHERE pg_notification_queue_usage() < 0.9;
  woken := true;
END
