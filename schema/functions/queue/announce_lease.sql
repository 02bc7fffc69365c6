BEGIN
  PERFORM pg_notify(@QueueConstants.channel@, @QueueConstants.lease_mark@ || p_lease_ms) WHERE pg_notification_queue_usage() < 0.9;
  announced := true;
END
