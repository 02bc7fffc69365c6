-- One outbox. Relays of the version before find none of their functions; what they have handed over or published is in their
-- positions, which go on here.
-- The index of the outbox below takes these, instead of being made while others wait.
CREATE INDEX CONCURRENTLY outbox_0_xid_slot_idx ON hawser.outbox_0 (xid, slot);
-- Next part.
CREATE INDEX CONCURRENTLY outbox_1_xid_slot_idx ON hawser.outbox_1 (xid, slot);
-- Next part.
CREATE INDEX CONCURRENTLY outbox_2_xid_slot_idx ON hawser.outbox_2 (xid, slot);
-- Next part.
LOCK TABLE hawser.outbox_turns, hawser.peer_outbox_turns, hawser.peers IN ACCESS EXCLUSIVE MODE;
LOCK TABLE hawser.outbox, hawser.peer_outbox, hawser.outbox_later, hawser.outbox_keys IN ACCESS EXCLUSIVE MODE;
DROP VIEW hawser.outbox_status;
DROP FUNCTION hawser.enqueue_nats(text, bytea[], jsonb, text, text, boolean, text, timestamptz);
DROP FUNCTION hawser.outbox_cancel(bigint);
DROP FUNCTION hawser.peer_headers(jsonb, text, text);
DROP FUNCTION hawser.least_due(text, pg_snapshot);
DROP FUNCTION hawser.enqueue_peer(text, bytea[], jsonb, text, text, text, timestamptz);
DROP FUNCTION hawser.peer_enqueue_text(text, text, jsonb, text, text, timestamptz);
DROP FUNCTION hawser.peer_enqueue_text_batch(text, text[], jsonb, text, timestamptz);
DROP FUNCTION hawser.peer_enqueue_json(text, json, jsonb, text, text, timestamptz);
DROP FUNCTION hawser.peer_enqueue_json_batch(text, json[], jsonb, text, timestamptz);
DROP FUNCTION hawser.peer_enqueue_jsonb(text, jsonb, jsonb, text, text, timestamptz);
DROP FUNCTION hawser.peer_enqueue_jsonb_batch(text, jsonb[], jsonb, text, timestamptz);
DROP FUNCTION hawser.peer_enqueue_binary(text, bytea, jsonb, text, text, timestamptz);
DROP FUNCTION hawser.peer_enqueue_binary_batch(text, bytea[], jsonb, text, timestamptz);
DROP FUNCTION hawser.enqueue_later(text, text, bytea[], jsonb, text, text, boolean, text, timestamptz, text);
DROP FUNCTION hawser.take_outbox(text, text);
DROP FUNCTION hawser.run_outbox_turn(text, bigint, pg_snapshot, pg_snapshot, bigint, bigint[], boolean, jsonb, boolean, pg_snapshot, pg_snapshot, bigint, integer, bigint, timestamptz, pg_snapshot);
DROP FUNCTION hawser.rotate_outbox(text, bigint);
DROP FUNCTION hawser.take_peer_outbox(text);
DROP FUNCTION hawser.hand_over_enqueued(text, boolean, integer, bigint, timestamptz, pg_snapshot);
DROP FUNCTION hawser.rotate_peer_outbox(text, bigint);

-- Who enqueued what is there is not known: its role is empty.
ALTER TABLE hawser.outbox
  ADD COLUMN role text NOT NULL DEFAULT '', ADD COLUMN listener text, ADD COLUMN to_all boolean NOT NULL DEFAULT false, ADD COLUMN origin text;
ALTER TABLE hawser.outbox ALTER COLUMN message_id DROP NOT NULL;
ALTER TABLE hawser.outbox ALTER COLUMN role SET DEFAULT CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
ALTER TABLE hawser.outbox_later
  ADD COLUMN role text NOT NULL DEFAULT '', ADD COLUMN to_all boolean NOT NULL DEFAULT false, ADD COLUMN origin text;
ALTER TABLE hawser.outbox_later ALTER COLUMN role SET DEFAULT CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
-- With the slot, by which each query asks: without it, the planner takes the primary key, which has it, for better.
DROP INDEX hawser.outbox_xid;
CREATE INDEX outbox_xid ON hawser.outbox (xid, slot);
UPDATE hawser.outbox_later AS l
   SET headers = (SELECT jsonb_agg(h.pair ORDER BY h.nth) FROM jsonb_array_elements(l.headers) WITH ORDINALITY AS h (pair, nth) WHERE h.pair ->> 0 <> 'message-key')
 WHERE l.kind = 'peer' AND l.key IS NOT NULL;
CREATE TABLE hawser.outbox_3 PARTITION OF hawser.outbox FOR VALUES IN (3);
CREATE TABLE hawser.outbox_4 PARTITION OF hawser.outbox FOR VALUES IN (4);
CREATE TABLE hawser.outbox_5 PARTITION OF hawser.outbox FOR VALUES IN (5);

ALTER TABLE hawser.outbox_state
  ADD COLUMN peer_asleep bigserial NOT NULL,
  ADD COLUMN peer_slot bigserial NOT NULL,
  ADD COLUMN peer_beat bigserial NOT NULL,
  ADD COLUMN peer_claim bigserial NOT NULL,
  ADD COLUMN secret text NOT NULL DEFAULT gen_random_uuid();
SELECT setval('hawser.outbox_state_peer_slot_seq', s.last_value) FROM hawser.peer_outbox_state_slot_seq AS s;

INSERT INTO hawser.outbox (slot, id, xid, destination, payload, headers, key, message_id, to_stream, enqueued_at, cluster, role, listener)
SELECT 3 + o.slot, o.id, o.xid, o.topic, o.payload,
       -- The hand-over adds the header of the key from now on.
       (SELECT jsonb_agg(h.pair ORDER BY h.nth) FROM jsonb_array_elements(o.headers) WITH ORDINALITY AS h (pair, nth) WHERE h.pair ->> 0 <> 'message-key'),
       o.key, '', false, o.enqueued_at, o.cluster, '', o.listener
  FROM hawser.peer_outbox AS o, (SELECT t.* FROM hawser.peer_outbox_turns AS t ORDER BY t.turn DESC LIMIT 1) AS l
 -- What is handed over does not stay: the position begins behind what the last snapshot has seen.
 WHERE o.cluster IS DISTINCT FROM l.cluster OR NOT pg_visible_in_snapshot(o.xid, l.done_from)
   AND (l.done_to IS NULL OR NOT pg_visible_in_snapshot(o.xid, l.done_to) OR o.id > l.done_after);

DELETE FROM hawser.outbox_keys;
ALTER TABLE hawser.outbox_keys
  DROP CONSTRAINT outbox_keys_pkey,
  ADD COLUMN role text NOT NULL,
  ADD CONSTRAINT outbox_keys_pkey PRIMARY KEY (role, bucket);

-- Other owners: a relay of the version before that may still publish is not the one that works.
CREATE TEMPORARY TABLE last_turns ON COMMIT DROP AS
SELECT * FROM (
  SELECT 0 AS sink, t.turn, CASE t.owner WHEN '' THEN '' ELSE gen_random_uuid()::text END AS owner, t.done_from, t.done_to, t.done_after,
         t.skipped, 0 AS epoch, t.cluster
    FROM hawser.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1
) AS n
UNION ALL
SELECT * FROM (
  -- Of a set that was begun only what is not handed over is there.
  SELECT 1, t.turn, '', t.done_from, NULL::pg_snapshot, 0, '{}'::bigint[], t.epoch, t.cluster
    FROM hawser.peer_outbox_turns AS t ORDER BY t.turn DESC LIMIT 1
) AS p;
DROP TABLE hawser.outbox_turns;
CREATE TABLE hawser.outbox_turns (
  sink smallint NOT NULL,
  turn bigint NOT NULL,
  owner text NOT NULL,
  pid integer NOT NULL,
  done_from pg_snapshot NOT NULL,
  done_to pg_snapshot,
  done_after bigint NOT NULL,
  series jsonb DEFAULT '[]' NOT NULL,
  skipped bigint[] DEFAULT '{}' NOT NULL,
  epoch bigint DEFAULT 0 NOT NULL,
  cluster bigint,
  saved_at timestamptz DEFAULT clock_timestamp() NOT NULL,
  CONSTRAINT outbox_turns_pkey PRIMARY KEY (turn, sink),
  CONSTRAINT outbox_turns_turn_range CHECK (turn >= 1)
) PARTITION BY LIST (sink);
CREATE TABLE hawser.outbox_turns_0 PARTITION OF hawser.outbox_turns FOR VALUES IN (0);
CREATE TABLE hawser.outbox_turns_1 PARTITION OF hawser.outbox_turns FOR VALUES IN (1);
INSERT INTO hawser.outbox_turns (sink, turn, owner, pid, done_from, done_to, done_after, skipped, epoch, cluster)
SELECT t.sink, t.turn + 1, t.owner, 0, t.done_from, t.done_to, t.done_after, t.skipped, t.epoch, t.cluster FROM pg_temp.last_turns AS t;
DROP TABLE hawser.peer_outbox_turns, hawser.peer_outbox, hawser.peer_outbox_state;

-- A process of the version before says nothing of it, and leadership is not handed over to it.
ALTER TABLE hawser.gateways ADD COLUMN can_lead boolean NOT NULL DEFAULT false;

-- Functions alone write dead letters and the names of peers from now on.
DO $$
DECLARE
  v_role text;
BEGIN
  FOR v_role IN SELECT r.rolname FROM pg_roles AS r WHERE r.rolname IN ('hawser_peer', 'hawser_bridge') LOOP
    EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON hawser.dead_letters FROM %I', v_role);
    EXECUTE format('REVOKE ALL ON SEQUENCE hawser.dead_letters_id_seq FROM %I', v_role);
    EXECUTE format('REVOKE INSERT, UPDATE ON hawser.peers FROM %I', v_role);
  END LOOP;
END
$$;
ALTER TABLE hawser.dead_letters ADD COLUMN role text, ADD COLUMN stack text, ADD COLUMN failures jsonb;
ALTER TABLE hawser.dead_letters ADD CONSTRAINT dead_letters_stack_bytes CHECK (octet_length(stack) <= 8192);
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
DROP FUNCTION hawser.expire_dead_letters(integer, integer);
DROP FUNCTION hawser.retry_enqueued(bigint[]);
-- One function marks what is done.
DROP FUNCTION hawser.finish_retry(bigint, bytea);
DROP FUNCTION hawser.stream_position(bigint, bigint);
DROP FUNCTION hawser.advance_stream(bigint, bytea, bigint, int8multirange, bigint, bigint, bigint, bigint);
-- Peers of the step before hold their names by advisory locks, and this step gives the names to others. Each of their writes
-- reads this table in its own transaction: the lock has waited for those under way, and later ones find another epoch.
ALTER TABLE hawser.peers ADD COLUMN replaced boolean NOT NULL DEFAULT false, ADD COLUMN version text, ADD COLUMN certificate_ends_at timestamptz,
  ALTER COLUMN in_group DROP DEFAULT, ALTER COLUMN in_group DROP NOT NULL,
  ALTER COLUMN in_group TYPE text USING CASE WHEN in_group THEN 'default' END;
ALTER TABLE hawser.peers RENAME COLUMN in_group TO group_name;
ALTER TABLE hawser.peers
  ADD CONSTRAINT peers_group_name_bytes CHECK (octet_length(group_name) BETWEEN 1 AND 255),
  ADD CONSTRAINT peers_group_name_pattern CHECK (group_name ~ E'^[^:\\u0001-\\u001f\\u007f]+$'),
  ADD CONSTRAINT peers_version_bytes CHECK (octet_length(version) <= 255),
  ADD CONSTRAINT peers_certificate_ends_at_range CHECK (extract(epoch FROM certificate_ends_at) BETWEEN 0 AND 253402300799);
DROP FUNCTION hawser.give_back_channels(text, bigint, integer[]);
DROP FUNCTION hawser.enter_directory(text, bigint, text, bigint, boolean, text[], boolean[], boolean, boolean);
UPDATE hawser.peers AS p
   SET epoch = greatest(p.epoch + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), token = NULL;

DROP FUNCTION hawser.commit_cursors(text, bigint, integer[], bigint[], bigint[], jsonb, bytea);
-- With the cursor itself: found at the end of what it has left in the index.
ALTER TABLE hawser.conn_mess_number
  DROP CONSTRAINT conn_mess_number_pkey,
  ADD CONSTRAINT conn_mess_number_pkey PRIMARY KEY (connection_key, epoch, v);
DROP FUNCTION hawser.channels_with_messages(text);
ALTER TABLE hawser.conn_key_map ADD COLUMN has_copies boolean NOT NULL DEFAULT false;
-- What waits there is for any member.
ALTER TABLE hawser.peer_waiting_topics
  DROP CONSTRAINT peer_waiting_topics_pkey,
  ADD COLUMN for_group text NOT NULL DEFAULT '',
  ADD CONSTRAINT peer_waiting_topics_pkey PRIMARY KEY (topic, for_group);

-- What is above the limits is not read any more: such a subscription waits until it is made anew.
UPDATE hawser.stream_subscriptions AS s
   SET turn = s.turn + 1, generation = s.generation + 1, filters = '{_hawser.filters_too_large}', paused = true, written_at = clock_timestamp(),
       problem = 'its filters had more than 1024 bytes each or 16384 bytes in all: end it with nats_unsubscribe_stream, and subscribe again with fewer'
 WHERE octet_length(array_to_string(s.filters, '')) > 16384
    OR EXISTS (SELECT FROM unnest(s.filters) AS f (filter) WHERE octet_length(f.filter) > 1024);
ALTER TABLE hawser.stream_subscriptions
  ADD CONSTRAINT stream_subscriptions_filters_bytes CHECK (octet_length(array_to_string(filters, '')) <= 16384);

-- Its processes see the leader in a view of this name, which they cannot update: so they lead no more, and keep what they receive
-- until this version has done it. Batches under way are waited for; later ones find another epoch.
DROP TABLE hawser.bridge_lead, hawser.bridge_fence;
