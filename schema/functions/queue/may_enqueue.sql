BEGIN
  allowed := has_schema_privilege(p_role::name, 'hawser', 'USAGE') AND EXISTS (
    SELECT FROM pg_proc AS f
     WHERE f.pronamespace = 'hawser'::regnamespace AND f.proname IN ('enqueue', 'enqueue_after', 'enqueue_batch', 'enqueue_unique', 'schedule')
       AND CASE p_kind WHEN 'nats' THEN 'subject' ELSE 'topic' END = ANY (f.proargnames)
       AND has_function_privilege(p_role::name, f.oid, 'EXECUTE')
  );
END
