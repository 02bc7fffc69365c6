BEGIN
  -- Transactions that notify are committed one after the other, so nobody is notified who does not wait.
  PERFORM pg_notify(@QueueConstants.results_channel@, e.id::text)
     FROM unnest(p_ids) AS e (id) WHERE @is_awaited(e)@ AND pg_notification_queue_usage() < 0.9;
  told := true;
END
