#variable_conflict use_column
-- Logical replication copies tables and not their sequences. Rows that only functions write, or a role that Hawser trusts: a number
-- that others could choose could use a sequence up.
DECLARE
  v_decides boolean := NOT p_raise;
  -- NULL for a role that may not name these tables: it does not wait for those who can.
  v_handler bigint;
  v_saved bigint;
BEGIN
  LOOP
    IF has_schema_privilege(CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END, 'hawser_bridge_data', 'USAGE') THEN
      SELECT max(h.id), (
               SELECT max(m.id)
                 FROM hawser_bridge_data.nats_handlers AS h
                CROSS JOIN LATERAL (
                  SELECT g.id FROM hawser_bridge_data.saved_messages AS g WHERE g.handler_id = h.id ORDER BY g.handler_id DESC, g.id DESC LIMIT 1
                ) AS m
             )
        INTO v_handler, v_saved
        FROM hawser_bridge_data.nats_handlers AS h;
    END IF;
    FOR sequence_name, last_value, highest IN
      SELECT s.name, s.last, s.highest
        FROM (
          SELECT v.name, CASE WHEN v.highest IS NOT NULL THEN coalesce(pg_sequence_last_value(v.name::regclass), 0) END AS last, v.highest
            FROM (
              VALUES
                ('hawser_data.audit_records_id_seq', (SELECT max(a.id) FROM hawser_data.audit_records AS a)),
                ('hawser_data.dead_letters_id_seq', (SELECT max(d.id) FROM hawser_data.dead_letters AS d)),
                ('hawser_data.flow_ends_nth_seq', (SELECT max(f.nth) FROM hawser_data.flow_ends AS f)),
                ('hawser_bridge_data.nats_handlers_id_seq', v_handler),
                ('hawser_data.outbox_id_seq', greatest(
                  (SELECT max(o.id) FROM hawser_data.outbox AS o), (SELECT max(q.id) FROM hawser_data.queue AS q),
                  -- Of those whose ranks are not of their ids.
                  (SELECT max(q.rank & (1::bigint << @QueueConstants.id_bits@) - 1) FROM hawser_data.queue AS q WHERE q.rank <> q.id),
                  -- Of jobs that have ended, by which a retry and `job` find them.
                  (SELECT max(d.job_id) FROM hawser_data.dead_letters AS d), (SELECT max(r.id) FROM hawser_data.results AS r)
                )),
                ('hawser_bridge_data.saved_messages_id_seq', v_saved),
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
