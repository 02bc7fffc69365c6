BEGIN
  RETURN hawser.write_schedule('peer', name, cron, timezone, missed, topic, @payload@, headers, key, false, NULL, to_all, coalesce(priority, 0)::smallint);
END
