BEGIN
  RETURN hawser.write_schedule('nats', name, cron, timezone, missed, subject, @payload@, headers, key, stream, domain, false, 0::smallint);
END
