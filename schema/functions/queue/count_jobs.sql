#variable_conflict use_column
DECLARE
  v_roles CONSTANT text[] := hawser.callers_roles();
BEGIN
  IF num_nonnulls(header_name, header_value) = 1 THEN
    PERFORM hawser.refuse_argument('hawser.count_jobs', 'header_name', 'NULL', 'must be given with header_value, and only with it');
  END IF;
  RETURN QUERY
  WITH places AS MATERIALIZED (
    SELECT p.* FROM hawser.job_places(of_topic) AS p
  )
  SELECT f.state, count(*)
    FROM (
      SELECT @job_state(q)@ AS state
        FROM places AS p
        JOIN hawser_data.queue AS q
          ON q.topic = of_topic AND q.recipient = p.recipient AND q.role = p.role AND q.rank >= p.lowest AND q.rank < p.lowest + (1::bigint << @QueueConstants.id_bits@)
       WHERE q.later IS DISTINCT FROM 'nats' AND @is_own(q)@ AND (of_key IS NULL OR @user_key(q)@ = of_key) AND @has_header(q)@
      UNION ALL
      SELECT 'dead'
        FROM places AS p JOIN hawser_data.dead_letters AS d ON d.topic = of_topic AND d.role = p.role AND d.job_id IS NOT NULL
       WHERE p.recipient IS NULL AND @is_own(d)@ AND (of_key IS NULL OR @header_key(d)@ = of_key) AND @has_header(d)@
      UNION ALL
      SELECT r.state
        FROM places AS p JOIN hawser_data.results AS r ON r.topic = of_topic AND r.role = p.role
       WHERE p.recipient IS NULL AND @is_in_history(r)@ AND @is_own(r)@ AND (of_key IS NULL OR r.key = of_key) AND @has_header(r)@
    ) AS f
   GROUP BY f.state;
END
