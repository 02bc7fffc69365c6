#variable_conflict use_column
BEGIN
  -- A message is in one of the two at each moment: it passes from one to the other in one statement.
  DELETE FROM hawser_data.original_payloads AS o
   WHERE CASE o.origin
     WHEN 'queue' THEN NOT EXISTS (SELECT FROM hawser_data.queue AS q WHERE q.id = o.id)
       AND NOT EXISTS (SELECT FROM hawser_data.dead_letters AS d WHERE d.job_id = o.id)
     ELSE NOT EXISTS (SELECT FROM hawser_data.dead_letters AS d WHERE d.id = o.id)
       AND NOT EXISTS (
         SELECT FROM hawser_data.queue AS q
          WHERE starts_with(q.topic, @QueueConstants.function_prefix@) AND (q.headers -> 0 ->> 1)::json ->> 'id' = 'dead-letter-' || o.id
       )
   END;
  GET DIAGNOSTICS deleted = ROW_COUNT;
END
