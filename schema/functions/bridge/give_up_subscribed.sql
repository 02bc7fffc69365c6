#variable_conflict use_column
DECLARE
  v_handler CONSTANT bigint := substr(p_topic, length(@QueueConstants.function_prefix@) + 1)::bigint;
BEGIN
  WITH gone AS (
    DELETE FROM hawser_data.queue AS q WHERE q.topic = p_topic AND q.recipient = '' AND q.role = p_role AND q.rank = p_rank AND q.worker IS NOT DISTINCT FROM nullif(p_worker, 0)
    RETURNING q.*
  ), ended AS MATERIALIZED (
    SELECT hawser.end_marked(jsonb_build_array(@marks_of(g)@), false) FROM gone AS g WHERE @is_marked(g)@
  )
  INSERT INTO hawser_data.dead_letters AS d
    (id, origin, source, topic, payload, headers, error_code, error_message, attempts, handler_id, message_id, failures, role, role_id, worker, given_back)
  SELECT coalesce(substring(m.of ->> 'id' FROM '^dead-letter-([0-9]{1,18})$')::bigint, nextval('hawser_data.dead_letters_id_seq')),
         'subscription', CASE WHEN h.id IS NULL THEN '' ELSE format('%I.%I(%s)', h.function_schema, h.function_name, h.argument_types) END, m.of ->> 'subject', g.payload,
         (
           SELECT jsonb_agg(jsonb_build_array(n.name, v.value) ORDER BY n.nth, v.nth)
             FROM json_each(CASE json_typeof(m.of -> 'headers') WHEN 'object' THEN m.of -> 'headers' END) WITH ORDINALITY AS n (name, members, nth)
            CROSS JOIN json_array_elements_text(n.members) WITH ORDINALITY AS v (value, nth)
         ),
         left(p_error_code, @dead_letter_error_code.max_bytes@), p_error_message,
         g.attempts + (p_failure IS NOT NULL)::integer + coalesce((m.of ->> 'attempts')::integer, 0), v_handler, m.of ->> 'id',
         @with_failure(g)@, g.role, g.role_id, (SELECT w.name FROM hawser_data.workers AS w WHERE w.id = p_worker), g.given_back
    FROM gone AS g
   CROSS JOIN LATERAL (SELECT (g.headers -> 0 ->> 1)::json AS of) AS m
    LEFT JOIN hawser_bridge_data.nats_handlers AS h ON h.id = v_handler
   WHERE (SELECT count(*) FROM ended) >= 0
  RETURNING d.id INTO dead_letter;
END
