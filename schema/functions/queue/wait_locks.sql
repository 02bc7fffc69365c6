-- Few, so that workers with many topics do not fill the table of locks.
BEGIN
  locks := ARRAY(
    SELECT hashtextextended('hawser:queue:' || b.bucket, 0)
      FROM (SELECT DISTINCT hashtextextended(t.topic, 0) & 31 AS bucket FROM unnest(p_topics) AS t (topic)) AS b
     ORDER BY b.bucket
  );
END
