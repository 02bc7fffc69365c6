#variable_conflict use_column
BEGIN
  PERFORM hawser.check_places(p_topics);
  -- In one order, so that no two wait for each other.
  tids := ARRAY(
    SELECT q.tid
      FROM (SELECT m.* FROM unnest(p_topics, p_recipients, p_roles, p_ranks) AS m (topic, recipient, role, rank) ORDER BY m.rank) AS m
     CROSS JOIN LATERAL (
       SELECT o.ctid AS tid FROM hawser_data.queue AS o
        WHERE o.topic = m.topic AND o.recipient = m.recipient AND o.role = m.role AND o.rank = m.rank AND (p_workers IS NULL OR o.worker = ANY (p_workers))
          FOR UPDATE
     ) AS q
  );
END
