#variable_conflict use_column
-- The function's settings: the table grows from nothing to millions of rows while the planner still takes it for empty,
-- so that every plan but the walk along the primary key must be out of the question.
BEGIN
  -- One statement, so that the rows and their count are of one moment.
  RETURN QUERY
  SELECT page.epoch, page.number, page.topic_key, page.codec, page.headers, page.payload,
         (
           SELECT count(*)
             FROM (
               SELECT FROM hawser.conn_messages AS c
                WHERE c.connection_key = p_connection_key AND (c.epoch, c.number) > (p_epoch, p_number)
                LIMIT p_max_rows + p_count_rows
             ) AS behind
         )
    FROM (
      SELECT next.*, sum(octet_length(next.payload)) OVER w AS bytes, row_number() OVER w AS nth
        FROM (
          SELECT m.epoch, m.number, m.topic_key, m.codec::integer, m.headers, m.payload
            FROM hawser.conn_messages AS m
           WHERE m.connection_key = p_connection_key AND (m.epoch, m.number) > (p_epoch, p_number)
           ORDER BY m.connection_key, m.epoch, m.number
           LIMIT p_max_rows
        ) AS next
      WINDOW w AS (ORDER BY next.epoch, next.number ROWS UNBOUNDED PRECEDING)
    ) AS page
   WHERE page.bytes <= p_max_bytes OR page.nth = 1
   ORDER BY page.epoch, page.number;
END
