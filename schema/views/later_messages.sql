-- One that is held without a due time of its own has that of its enqueue.
SELECT q.id, q.later AS kind, coalesce(q.due_at, q.enqueued_at) AS deliver_at, q.topic AS destination,
       -- Callers chose these: they are for those who may read messages, as dead letters are, and not for those who only watch.
       CASE WHEN s.shows THEN q.key END AS key,
       -- For peers it is a header, which is written with the message.
       coalesce(CASE WHEN s.shows THEN coalesce(
         q.message_id,
         (
           SELECT h.pair ->> 1 FROM jsonb_array_elements(CASE WHEN q.later <> 'nats' THEN q.headers END) AS h (pair)
            WHERE h.pair ->> 0 = @ProtocolConstants.message_id_header@ LIMIT 1
         )
       ) END, '') AS message_id,
       octet_length(q.payload) AS payload_bytes, q.enqueued_at, (-(q.rank >> @QueueConstants.id_bits@))::smallint AS priority,
       CASE q.later WHEN 'held' THEN (SELECT count(*)::integer FROM hawser_data.flow_edges AS e WHERE e.after_id = q.id) ELSE 0 END AS held_for,
       CASE q.later WHEN 'held' THEN @waits_for(q)@ END AS waits_for
  FROM hawser_data.queue AS q
 CROSS JOIN (SELECT has_table_privilege('hawser.dead_letters'::regclass, 'SELECT') AS shows) AS s
 WHERE q.later IS NOT NULL
