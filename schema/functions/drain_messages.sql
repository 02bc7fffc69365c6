#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH stored AS MATERIALIZED (
    -- Read from its pieces once, not once for each message.
    SELECT d.*, d.payload || ''::bytea AS all_payloads,
           lag(d.number) OVER (PARTITION BY d.epoch ORDER BY d.number) AS number_before
      FROM hawser.drain_rows(p_channel_id, p_epoch, p_number, p_max_rows, p_max_bytes, p_count_rows) AS d
  ), one AS (
    SELECT s.epoch, s.number - s.messages + l.nth AS number, s.topic_id, s.codec,
           CASE WHEN s.messages = 1 THEN s.headers ELSE nullif(s.headers -> (l.nth - 1)::integer, 'null'::jsonb) END AS headers,
           substring(s.all_payloads FROM (l.past - l.length + 1)::integer FOR l.length) AS payload,
           s.counted, s.number_before
      FROM stored AS s
     CROSS JOIN LATERAL (
       SELECT u.length, u.nth, sum(u.length) OVER (ORDER BY u.nth ROWS UNBOUNDED PRECEDING) AS past
         FROM unnest(CASE WHEN s.messages = 1 THEN ARRAY[octet_length(s.all_payloads)] ELSE s.lengths END)
              WITH ORDINALITY AS u (length, nth)
     ) AS l
  ), page AS (
    SELECT o.*, row_number() OVER w AS nth, sum(octet_length(o.payload)) OVER w AS bytes
      FROM one AS o
     -- A call whose fate was unknown may have been repeated with more messages while it was still under way.
     WHERE (o.epoch, o.number) > (p_epoch, p_number) AND o.number > coalesce(o.number_before, -1)
    WINDOW w AS (ORDER BY o.epoch, o.number ROWS UNBOUNDED PRECEDING)
  )
  SELECT p.epoch, p.number, p.topic_id, p.codec, p.headers, p.payload, p.counted
    FROM page AS p
   WHERE p.nth = 1 OR (p.nth <= p_max_rows AND p.bytes <= p_max_bytes)
   ORDER BY p.epoch, p.number;
END
