BEGIN
  -- Transactions that notify are committed one after the other, so nobody is notified who does not wait.
  PERFORM pg_notify(@QueueConstants.results_channel@, e.id::text)
     FROM (SELECT n.id FROM unnest(p_ids) AS n (id) WHERE @is_awaited(n)@) AS e (id) WHERE pg_notification_queue_usage() < 0.9;
  told := true;
END
