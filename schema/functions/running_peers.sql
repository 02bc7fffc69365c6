BEGIN
  running := ARRAY(
    SELECT n.name
      FROM unnest(p_names) WITH ORDINALITY AS n (name, nth)
      JOIN hawser_data.owners AS o ON o.what = 'peer:' || n.name
     -- As is_alive, for all at once.
     WHERE EXISTS (
       SELECT FROM pg_locks AS l
        WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.mode = 'ExclusiveLock' AND l.pid = o.pid
          AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
          AND (l.classid::bigint << 32 | l.objid::bigint) = o.life
     )
     ORDER BY n.nth
  );
END
