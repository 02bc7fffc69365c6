#variable_conflict use_column
-- Logical replication copies tables and not their sequences. Rows that only functions write, or a role that Hawser trusts: a number
-- that others could choose could use a sequence up.
DECLARE
  v_decides boolean := NOT p_raise;
BEGIN
  LOOP
    FOR sequence_name, last_value, highest IN
      SELECT s.name, s.last, s.highest
        FROM (
          SELECT v.name, coalesce(pg_sequence_last_value(v.name::regclass), 0) AS last, v.highest
            FROM (
              VALUES
                ('hawser_data.dead_letters_id_seq', (SELECT max(d.id) FROM hawser_data.dead_letters AS d)),
                ('hawser_data.flow_ends_nth_seq', (SELECT max(f.nth) FROM hawser_data.flow_ends AS f)),
                ('hawser_data.nats_handlers_id_seq', (SELECT max(h.id) FROM hawser_data.nats_handlers AS h)),
                ('hawser_data.outbox_id_seq', greatest(
                  (SELECT max(o.id) FROM hawser_data.outbox AS o), (SELECT max(l.id) FROM hawser_data.outbox_later AS l), (
                    -- The last of each place, role and priority: the table may have millions of rows.
                    WITH RECURSIVE lasts AS (
                      SELECT p.topic, p.recipient, p.role, 9223372036854775807 AS id FROM hawser.queue_places('{}') AS p
                      UNION ALL
                      SELECT l.topic, l.recipient, l.role, q.id
                        FROM lasts AS l
                       CROSS JOIN LATERAL (
                         SELECT q.id FROM hawser_data.queue AS q
                          WHERE q.topic = l.topic AND q.recipient = l.recipient AND q.role = l.role AND q.id < l.id >> @QueueConstants.id_bits@ << @QueueConstants.id_bits@
                          ORDER BY q.id DESC LIMIT 1
                       ) AS q
                    )
                    SELECT max(l.id & (1::bigint << @QueueConstants.id_bits@) - 1) FROM lasts AS l WHERE l.id < 9223372036854775807
                  )
                )),
                ('hawser_data.saved_messages_id_seq', (
                  SELECT max(m.id)
                    FROM hawser_data.nats_handlers AS h
                   CROSS JOIN LATERAL (
                     SELECT g.id FROM hawser_data.saved_messages AS g WHERE g.handler_id = h.id ORDER BY g.handler_id DESC, g.id DESC LIMIT 1
                   ) AS m
                )),
                ('hawser_data.schedules_revision_seq', (SELECT max(c.revision) FROM hawser_data.schedules AS c))
            ) AS v (name, highest)
        ) AS s
       WHERE s.last < s.highest AND s.highest <= 9007199254740991
    LOOP
      EXIT WHEN NOT v_decides;
      IF p_raise THEN
        PERFORM setval(sequence_name::regclass, highest);
      END IF;
      RETURN NEXT;
    END LOOP;
    EXIT WHEN v_decides OR NOT FOUND;
    -- One at a time: who has waited looks again, or it would set back what the other has raised and used since.
    PERFORM FROM hawser_data.outbox_state AS s WHERE s.id = 1 FOR UPDATE;
    v_decides := true;
  END LOOP;
END
