SELECT s.name, s.role, s.kind, s.destination, s.cron, s.timezone, s.missed, CASE WHEN s.problem IS NULL THEN nullif(s.next_at, '-infinity') END AS next_at, s.last_at, s.problem, s.priority
  FROM hawser_data.schedules AS s
 -- Those of all roles only for the roles that may see what all have enqueued for later.
 WHERE has_table_privilege('hawser.later_messages', 'SELECT')
    OR EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname = s.role AND pg_has_role(r.oid, 'MEMBER'))
