SELECT s.name, s.role, s.kind, s.destination, s.cron, s.timezone, s.missed, nullif(s.next_at, '-infinity') AS next_at, s.last_at, s.problem
  FROM hawser.schedules AS s
