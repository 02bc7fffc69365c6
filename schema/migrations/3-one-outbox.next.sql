
-- Functions alone write dead letters from now on.
DO $$
DECLARE
  v_role text;
BEGIN
  FOR v_role IN SELECT r.rolname FROM pg_roles AS r WHERE r.rolname IN ('hawser_peer', 'hawser_bridge') LOOP
    EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON hawser.dead_letters FROM %I', v_role);
    EXECUTE format('REVOKE ALL ON SEQUENCE hawser.dead_letters_id_seq FROM %I', v_role);
  END LOOP;
END
$$;
ALTER TABLE hawser.dead_letters ADD COLUMN role text;
ALTER TABLE hawser.dead_letters
  ALTER COLUMN role SET DEFAULT CASE current_setting('role') WHEN 'none' THEN session_user::text ELSE current_setting('role') END;
-- Every peer could write them, and can send any message.
UPDATE hawser.dead_letters SET role = 'hawser_peer' WHERE origin = 'peer';
-- Those that the bridge wrote have a seal, made with the token of the wrapper; of several copies one is enough. Of all others,
-- and of those of the outbox, nothing proves who wrote them: their role stays NULL, and they are not retried.
UPDATE hawser.dead_letters AS d
   SET role = p.role, message_id = left(d.message_id, -65)
  FROM (
    SELECT DISTINCT ON (l.message_id) l.id, pg_get_userbyid(w.proowner)::text AS role
      FROM hawser.dead_letters AS l
      JOIN hawser.nats_handlers AS h ON h.id = l.handler_id
      JOIN pg_type AS t ON t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(h.wrapper, 16)
      JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proname = h.wrapper AND w.proargtypes[0] = t.oid
     WHERE l.origin = 'subscription'
       AND right(l.message_id, 65) = '.' || encode(sha256(
             h.token || sha256(convert_to(l.topic, 'UTF8')) || sha256(l.payload)
             || sha256(convert_to(coalesce(l.headers::text, ''), 'UTF8'))
           ), 'hex')
     ORDER BY l.message_id, l.id
  ) AS p
 WHERE d.id = p.id;
UPDATE hawser.dead_letters SET retry_requested = false WHERE retry_requested AND role IS NULL;

-- Their results have a column more, or they are no longer for everybody.
DROP FUNCTION hawser.discard_dead_letters(bigint[]);
DROP FUNCTION hawser.request_retries(bigint[]);
DROP FUNCTION hawser.retry_enqueued(bigint[]);

-- What is above the limits is not read any more: such a subscription waits until it is made anew.
UPDATE hawser.stream_subscriptions AS s
   SET turn = s.turn + 1, generation = s.generation + 1, filters = '{_hawser.filters_too_large}', paused = true, written_at = clock_timestamp(),
       problem = 'its filters had more than 1024 bytes each or 16384 bytes in all: end it with nats_unsubscribe_stream, and subscribe again with fewer'
 WHERE octet_length(array_to_string(s.filters, '')) > 16384
    OR EXISTS (SELECT FROM unnest(s.filters) AS f (filter) WHERE octet_length(f.filter) > 1024);
ALTER TABLE hawser.stream_subscriptions
  ADD CONSTRAINT stream_subscriptions_filters_bytes CHECK (octet_length(array_to_string(filters, '')) <= 16384);
