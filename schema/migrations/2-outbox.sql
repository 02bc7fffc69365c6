DO $do$
BEGIN
  -- What is new after what follows gets no default privileges: see the block at the end.
  PERFORM pg_catalog.set_config('hawser.present', (
    SELECT coalesce(pg_catalog.string_agg(o.oid::text, ','), '') FROM (
      SELECT n.oid, 'SCHEMA hawser' AS object, 'n'::"char" AS type, n.nspowner AS owner, n.nspacl AS acl
      FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'
      UNION ALL
      SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,
        (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner, c.relacl
      FROM pg_catalog.pg_class AS c
      WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      UNION ALL
      SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl
      FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')
    ) AS o
  ), false);
  IF to_regnamespace('hawser') IS NULL THEN
    CREATE SCHEMA hawser;
  END IF;
END
$do$;

ALTER TABLE hawser.dead_letters
  DROP CONSTRAINT dead_letters_origin_values,
  ADD CONSTRAINT dead_letters_origin_values CHECK (origin IN ('peer', 'subscription', 'outbox'));

-- Its result has a column more, which CREATE OR REPLACE refuses.
DROP FUNCTION hawser.retry_dead_letters(bigint[]);

ALTER TABLE hawser.conn_messages ADD COLUMN key_hash bigint;
-- Without a rewrite: rows of before are one message each.
ALTER TABLE hawser.conn_messages
  ADD COLUMN messages integer NOT NULL DEFAULT 1,
  ADD COLUMN lengths integer[] NOT NULL DEFAULT '{}',
  ADD CONSTRAINT conn_messages_messages_range CHECK (messages >= 1),
  ADD CONSTRAINT conn_messages_one_length_each
    CHECK (cardinality(lengths) = CASE messages WHEN 1 THEN 0 ELSE messages END),
  ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX conn_messages_key_hash ON hawser.conn_messages (key_hash, epoch) WHERE key_hash IS NOT NULL;

ALTER TABLE hawser.nats_handlers
  DROP CONSTRAINT nats_handlers_kind_values,
  ADD CONSTRAINT nats_handlers_kind_values CHECK (kind IN ('subscription', 'responder', 'stream'));

ALTER TABLE hawser.peers ADD COLUMN in_group boolean NOT NULL DEFAULT false;
-- It has a parameter more, which peers of the version before leave out.
DROP FUNCTION hawser.enter_directory(text, bigint, text, bigint, boolean, text[], boolean[], boolean);

COMMENT ON TABLE hawser.nats_handlers IS 'A function that is called for each message of a subject, or that answers the requests to one. Hawser calls the
function through a wrapper in the schema hawser_run. The function runs as the owner of the wrapper, and stays bound
as long as the wrapper exists. Functions and types are named in text, so that pg_upgrade works.';
COMMENT ON COLUMN hawser.nats_handlers.id IS 'Its number.';
COMMENT ON COLUMN hawser.nats_handlers.kind IS 'Whether it is called for each message of a subject or of a stream, or answers.';
COMMENT ON COLUMN hawser.nats_handlers.subject IS 'The subject; may hold wildcards. Of a stream: the name of the subscription, whose row in `stream_subscriptions` says the
rest.';
COMMENT ON COLUMN hawser.nats_handlers.function_schema IS 'The schema of the function.';
COMMENT ON COLUMN hawser.nats_handlers.function_name IS 'Its name.';
COMMENT ON COLUMN hawser.nats_handlers.argument_types IS 'The types of its arguments, such as `bytea, text`.';
COMMENT ON COLUMN hawser.nats_handlers.wrapper IS 'The name of the wrapper in the schema hawser_run. Its first argument is of a type of its own, which is there, too:
`token_` and the last 16 characters of this.';
COMMENT ON COLUMN hawser.nats_handlers.token IS 'What the wrapper demands of its caller; the wrapper holds its SHA-256. Without the token, a role that replaces its own
wrapper could call those of others with messages that were never sent.';
COMMENT ON COLUMN hawser.nats_handlers.created_at IS 'When it was made.';

COMMENT ON TABLE hawser.bridge_lead IS 'The process that leads: it runs the subscriptions. A process that sees the row unchanged for `leader_expiry_ms` takes it
over, under the next epoch.';
COMMENT ON COLUMN hawser.bridge_lead.id IS 'Always 1.';
COMMENT ON COLUMN hawser.bridge_lead.epoch IS 'Grows with each process that leads.';
COMMENT ON COLUMN hawser.bridge_lead.owner IS 'The process that leads, as a random id. NULL: the last leader has ended cleanly, or there was none.';
COMMENT ON COLUMN hawser.bridge_lead.beat IS 'Changes with each heartbeat of the leader. 0 or less: this leader has not reported its progress yet, and the next
columns are still those of the leader before it.';
COMMENT ON COLUMN hawser.bridge_lead.progress_at IS 'The progress: every message that was received before this time, by the clock of Postgres, is done, except in the
subscriptions that `behind` lists. NULL: not known.';
COMMENT ON COLUMN hawser.bridge_lead.complete_since IS 'The leader has received all messages since this time, by the clock of Postgres. `progress_at` is about these
messages only, and not about older ones. NULL: not known.';
COMMENT ON COLUMN hawser.bridge_lead.behind IS 'The subscriptions that are slower than `progress_at`, so that they do not hold back the others. A JSON object: its
keys are the numbers of at most `max_told_behind` subscriptions, its values are the progress of each in
milliseconds since 1970. NULL: there are none.';
COMMENT ON COLUMN hawser.bridge_lead.complete_until IS 'The leader is about to end, and has received nothing since this time, by the clock of Postgres. NULL: it receives.';

COMMENT ON TABLE hawser.saved_messages IS 'Messages that a process had received and could not run before it ended, that it had and the leader had not, or that the
leader has no room for in memory. Who leads runs them before anything that it has received later, in the order of their ids.';
COMMENT ON COLUMN hawser.saved_messages.id IS 'Its number, in the order of arrival.';
COMMENT ON COLUMN hawser.saved_messages.handler_id IS 'The subscription that the message is for. When a subscription ends, its messages are deleted.';
COMMENT ON COLUMN hawser.saved_messages.subject IS 'The subject that it was published to.';
COMMENT ON COLUMN hawser.saved_messages.payload IS 'The payload.';
COMMENT ON COLUMN hawser.saved_messages.headers IS 'The headers, a JSON object of lists of strings; NULL: it has none.';
COMMENT ON COLUMN hawser.saved_messages.headers_problem IS 'Why there may be more headers than these; NULL: all could be read.';
COMMENT ON COLUMN hawser.saved_messages.message_id IS 'The id from which the ids of a function''s publishes into streams are made, so that they are the same again after a
crash.';
COMMENT ON COLUMN hawser.saved_messages.saved_at IS 'When it was saved.';

COMMENT ON TABLE hawser.bridge_fence IS 'The epoch whose batches may be committed: a row that each batch locks, so that it changes only when no batch of the
epoch before can be committed any more. Apart from `bridge_lead`, which the leader writes all the time.';
COMMENT ON COLUMN hawser.bridge_fence.id IS 'Always 1.';
COMMENT ON COLUMN hawser.bridge_fence.epoch IS 'The epoch.';

COMMENT ON TABLE hawser.executor_login IS 'The login by which wrappers are called. It can read nothing, and is in no other role than hawser_executor: what a function
can reach beyond its owner''s rights is what this login can.';
COMMENT ON COLUMN hawser.executor_login.id IS 'Always 1.';
COMMENT ON COLUMN hawser.executor_login.user_name IS 'The name of the role.';
COMMENT ON COLUMN hawser.executor_login.password IS 'Its password.';

COMMENT ON TABLE hawser.nats_server IS 'The options of the NATS server, whichever way they were given: one row, which gateway and bridge read. Beside it stands
what the foreign server looked like when it was last seen, so that its changes are noticed and the last one set wins.';
COMMENT ON COLUMN hawser.nats_server.id IS 'Always 1.';
COMMENT ON COLUMN hawser.nats_server.options IS 'The options, without those of the user mapping; NULL: no server is defined.';
COMMENT ON COLUMN hawser.nats_server.server_name IS 'The foreign server that they are from; NULL: they are from hawser.set_nats_server, or there are none.';
COMMENT ON COLUMN hawser.nats_server.seen_server_name IS 'The name of the foreign server when it was last seen; NULL: there was none.';
COMMENT ON COLUMN hawser.nats_server.seen_options IS 'Its options when it was last seen.';
COMMENT ON COLUMN hawser.nats_server.changed_at IS 'When the options were last changed.';

COMMENT ON TABLE hawser.gateways IS 'The gateways that Postgres can reach; it takes the first that answers, the youngest first. Several may be reached at one
address, behind the name of a service: each has a row.';
COMMENT ON COLUMN hawser.gateways.host IS 'Where Postgres dials it: a host name or an address.';
COMMENT ON COLUMN hawser.gateways.port IS 'The port.';
COMMENT ON COLUMN hawser.gateways.sslmode IS 'What libpq demands of the connection.';
COMMENT ON COLUMN hawser.gateways.root_certificate IS 'The file with the CA of the gateway''s certificate, on the machine of Postgres.';
COMMENT ON COLUMN hawser.gateways.started_at IS 'When it was started.';
COMMENT ON COLUMN hawser.gateways.owner IS 'The random id of the process that entered it; empty: it was entered by hand, and no gateway removes it.';
COMMENT ON COLUMN hawser.gateways.seen_at IS 'When its process was last there.';
COMMENT ON COLUMN hawser.gateways.nats_server IS 'The NATS server that its process receives subscriptions from, by its `host:port` in option `host`; none: it is not
connected.';
COMMENT ON COLUMN hawser.gateways.nats_server_id IS 'The id that this server has given itself, a new one at each start.';

COMMENT ON TABLE hawser.gateway_secret IS 'What Postgres proves itself with to the gateway; made at the first migration.';
COMMENT ON COLUMN hawser.gateway_secret.id IS 'Always 1.';
COMMENT ON COLUMN hawser.gateway_secret.user_name IS 'The user name.';
COMMENT ON COLUMN hawser.gateway_secret.password IS 'The password.';

CREATE TABLE hawser.stream_subscriptions (
  handler_id bigint NOT NULL,
  turn bigint DEFAULT 1 NOT NULL,
  name text NOT NULL,
  stream text NOT NULL,
  domain text,
  filters text[] DEFAULT '{}' NOT NULL,
  key_token integer,
  consumer text NOT NULL,
  start text NOT NULL,
  seek text,
  generation bigint DEFAULT 0 NOT NULL,
  stream_created text,
  position bigint,
  done int8multirange DEFAULT '{}' NOT NULL,
  last_done bigint,
  last_done_at bigint,
  nothing_until bigint DEFAULT 0 NOT NULL,
  lag bigint,
  missing bigint DEFAULT 0 NOT NULL,
  missing_reason text,
  missing_from bigint,
  missing_to bigint,
  missing_at timestamptz,
  paused boolean DEFAULT false NOT NULL,
  problem text,
  written_at timestamptz DEFAULT clock_timestamp() NOT NULL,
  CONSTRAINT stream_subscriptions_pkey PRIMARY KEY (handler_id, turn),
  CONSTRAINT stream_subscriptions_name_bytes CHECK (octet_length(name) BETWEEN 1 AND 100),
  CONSTRAINT stream_subscriptions_name_pattern CHECK (name ~ '^[-_0-9A-Za-z]+$'),
  CONSTRAINT stream_subscriptions_stream_bytes CHECK (octet_length(stream) BETWEEN 1 AND 255),
  CONSTRAINT stream_subscriptions_stream_pattern CHECK (stream ~ E'^[^.*>/\\\\\\u0001-\\u0020\\u007f]+$'),
  CONSTRAINT stream_subscriptions_domain_bytes CHECK (octet_length(domain) BETWEEN 1 AND 255),
  CONSTRAINT stream_subscriptions_domain_pattern CHECK (domain ~ E'^[^.*>\\u0001-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff]+$'),
  CONSTRAINT stream_subscriptions_key_token_range CHECK (key_token BETWEEN 1 AND 64),
  CONSTRAINT stream_subscriptions_position_range CHECK (position >= 0),
  CONSTRAINT stream_subscriptions_missing_reason_values CHECK (missing_reason IN ('cut_short', 'acknowledged', 'deleted', 'recreated')),
  CONSTRAINT stream_subscriptions_filters_valid CHECK (array_to_string(filters, ' ') ~ '^[^\u0001-\u001f]*$' AND array_position(filters, '') IS NULL AND cardinality(filters) <= 100)
);

COMMENT ON TABLE hawser.stream_subscriptions IS 'A subscription to a stream: one row. Each batch of messages writes its position here, in the transaction of its effects.
`turn` changes with each write and is part of the key: so an old snapshot elsewhere does not make reading slow.';
COMMENT ON COLUMN hawser.stream_subscriptions.handler_id IS 'Its row in `nats_handlers`.';
COMMENT ON COLUMN hawser.stream_subscriptions.turn IS 'Grows with each write.';
COMMENT ON COLUMN hawser.stream_subscriptions.name IS 'Its name.';
COMMENT ON COLUMN hawser.stream_subscriptions.stream IS 'The stream.';
COMMENT ON COLUMN hawser.stream_subscriptions.domain IS 'The JetStream domain; NULL: that of the server.';
COMMENT ON COLUMN hawser.stream_subscriptions.filters IS 'Only messages of these subjects, which may hold wildcards. Empty: all.';
COMMENT ON COLUMN hawser.stream_subscriptions.key_token IS 'Messages with the same word here in their subjects run in order, others side by side; the first word has 1. NULL: all
run in order.';
COMMENT ON COLUMN hawser.stream_subscriptions.consumer IS 'What the names of its consumers begin with.';
COMMENT ON COLUMN hawser.stream_subscriptions.start IS 'Where it began: `all`, a sequence number, or a time.';
COMMENT ON COLUMN hawser.stream_subscriptions.seek IS 'What the last nats_seek_stream is known by.';
COMMENT ON COLUMN hawser.stream_subscriptions.generation IS 'Changes whenever a process begins to read, and with nats_seek_stream: messages that were read before that are not
committed.';
COMMENT ON COLUMN hawser.stream_subscriptions.stream_created IS 'When the stream was created, as NATS writes it: a stream that was made anew has other messages under the same numbers.
NULL: not known yet.';
COMMENT ON COLUMN hawser.stream_subscriptions.position IS 'All messages up to this sequence number are done. NULL: not known yet.';
COMMENT ON COLUMN hawser.stream_subscriptions.done IS 'The sequence numbers beyond that which are done.';
COMMENT ON COLUMN hawser.stream_subscriptions.last_done IS 'The greatest sequence number of a message that is done.';
COMMENT ON COLUMN hawser.stream_subscriptions.last_done_at IS 'When the stream stored that one, in nanoseconds since 1970: by this the message is recognized.';
COMMENT ON COLUMN hawser.stream_subscriptions.nothing_until IS 'Between the position and this sequence number the stream had nothing for the subscription.';
COMMENT ON COLUMN hawser.stream_subscriptions.lag IS 'How many messages of the stream are not done. NULL: not known.';
COMMENT ON COLUMN hawser.stream_subscriptions.missing IS 'How many messages were gone from the stream before they could be taken, since the last nats_seek_stream.';
COMMENT ON COLUMN hawser.stream_subscriptions.missing_reason IS 'Why the last ones were.';
COMMENT ON COLUMN hawser.stream_subscriptions.missing_from IS 'The first of those.';
COMMENT ON COLUMN hawser.stream_subscriptions.missing_to IS 'The last of those.';
COMMENT ON COLUMN hawser.stream_subscriptions.missing_at IS 'When that was noticed.';
COMMENT ON COLUMN hawser.stream_subscriptions.paused IS 'It goes on only after nats_seek_stream; `problem` says why.';
COMMENT ON COLUMN hawser.stream_subscriptions.problem IS 'What keeps it from going on. NULL: nothing.';
COMMENT ON COLUMN hawser.stream_subscriptions.written_at IS 'When the row was written last.';

CREATE TABLE hawser.outbox (
  slot smallint NOT NULL,
  id bigserial NOT NULL,
  xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
  destination text NOT NULL,
  payload bytea NOT NULL,
  headers jsonb,
  key text,
  message_id text NOT NULL,
  to_stream boolean NOT NULL,
  domain text,
  enqueued_at timestamptz DEFAULT clock_timestamp() NOT NULL,
  cluster bigint,
  first_enqueued_at timestamptz,
  copy_of bigint,
  CONSTRAINT outbox_pkey PRIMARY KEY (id, slot)
) PARTITION BY LIST (slot);
CREATE TABLE hawser.outbox_0 PARTITION OF hawser.outbox FOR VALUES IN (0);
CREATE TABLE hawser.outbox_1 PARTITION OF hawser.outbox FOR VALUES IN (1);
CREATE TABLE hawser.outbox_2 PARTITION OF hawser.outbox FOR VALUES IN (2);

CREATE INDEX outbox_xid ON hawser.outbox (xid);

COMMENT ON TABLE hawser.outbox IS 'Messages that were enqueued, in the order of their ids. A transaction writes them, and a relay publishes them when it has
committed. They stay for a while, and go together: of the slots, which are filled in turn, the oldest is truncated when
all that it has is done. It has no rules of its own: each would add about a fifth to what an insert costs. What
may be in it is checked by the functions that write it, and nobody else may.';
COMMENT ON COLUMN hawser.outbox.slot IS 'The part of the table that it is in.';
COMMENT ON COLUMN hawser.outbox.id IS 'Its number: of two messages with the same destination and key, the one that is committed later has the greater one.';
COMMENT ON COLUMN hawser.outbox.xid IS 'The transaction that wrote it.';
COMMENT ON COLUMN hawser.outbox.destination IS 'Where it goes to: the subject.';
COMMENT ON COLUMN hawser.outbox.payload IS 'The payload.';
COMMENT ON COLUMN hawser.outbox.headers IS 'The headers, an object of strings or of arrays of strings; NULL: none.';
COMMENT ON COLUMN hawser.outbox.key IS 'What keeps it in order with others; NULL: nothing.';
COMMENT ON COLUMN hawser.outbox.message_id IS 'What the destination knows it by. Drawn at random and not made of the id, which may be given again after a failover.';
COMMENT ON COLUMN hawser.outbox.to_stream IS 'It goes into a stream. False: to core NATS.';
COMMENT ON COLUMN hawser.outbox.domain IS 'The JetStream domain; NULL: that of the server.';
COMMENT ON COLUMN hawser.outbox.enqueued_at IS 'When it was enqueued.';
COMMENT ON COLUMN hawser.outbox.cluster IS 'The cluster whose transaction `xid` is. In a copy of the database elsewhere it means nothing. NULL: not known.';
COMMENT ON COLUMN hawser.outbox.first_enqueued_at IS 'Of a message that is published again: when it was enqueued first; of one that was due later: when. Its stream may have it
since then. NULL: it is new.';
COMMENT ON COLUMN hawser.outbox.copy_of IS 'Of a message that is published again: the id of the first one. NULL: it is the first one.';

CREATE TABLE hawser.outbox_later (
  id bigint NOT NULL,
  kind text NOT NULL,
  xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
  deliver_at timestamptz NOT NULL,
  destination text NOT NULL,
  payload bytea NOT NULL,
  headers jsonb,
  key text,
  message_id text NOT NULL,
  to_stream boolean NOT NULL,
  domain text,
  enqueued_at timestamptz DEFAULT clock_timestamp() NOT NULL,
  listener text,
  CONSTRAINT outbox_later_pkey PRIMARY KEY (id),
  CONSTRAINT outbox_later_kind_values CHECK (kind IN ('nats', 'peer')),
  CONSTRAINT outbox_later_key_bytes CHECK (octet_length(key) BETWEEN 1 AND 1024),
  CONSTRAINT outbox_later_key_pattern CHECK (key ~ E'^[^\\u0001-\\u001f\\u007f]+$'),
  CONSTRAINT outbox_later_message_id_bytes CHECK (octet_length(message_id) BETWEEN 1 AND 255),
  CONSTRAINT outbox_later_message_id_pattern CHECK (message_id ~ E'^[^\\u0001-\\u0020\\u007f]+$')
);

CREATE INDEX outbox_later_due ON hawser.outbox_later (kind, deliver_at, id);

CREATE INDEX outbox_later_xid ON hawser.outbox_later (xid);

COMMENT ON TABLE hawser.outbox_later IS 'Messages that are not due yet. When they are, a relay brings them into the outbox, in one transaction.';
COMMENT ON COLUMN hawser.outbox_later.id IS 'The number by which it can be cancelled, from the sequence of the outbox. In the outbox it has another one.';
COMMENT ON COLUMN hawser.outbox_later.kind IS 'For NATS, or for peers.';
COMMENT ON COLUMN hawser.outbox_later.xid IS 'The transaction that wrote it.';
COMMENT ON COLUMN hawser.outbox_later.deliver_at IS 'When it is due.';
COMMENT ON COLUMN hawser.outbox_later.destination IS 'Where it goes to: the subject, or the topic.';
COMMENT ON COLUMN hawser.outbox_later.payload IS 'The payload.';
COMMENT ON COLUMN hawser.outbox_later.headers IS 'The headers; NULL: none.';
COMMENT ON COLUMN hawser.outbox_later.key IS 'What keeps it in order with others that were due; NULL: nothing.';
COMMENT ON COLUMN hawser.outbox_later.message_id IS 'What the destination knows it by.';
COMMENT ON COLUMN hawser.outbox_later.to_stream IS 'It goes into a stream.';
COMMENT ON COLUMN hawser.outbox_later.domain IS 'The JetStream domain; NULL: that of the server.';
COMMENT ON COLUMN hawser.outbox_later.enqueued_at IS 'When it was enqueued.';
COMMENT ON COLUMN hawser.outbox_later.listener IS 'The listener that it is for, as in `peer_outbox`.';

CREATE TABLE hawser.outbox_turns (
  turn bigint NOT NULL,
  owner text NOT NULL,
  done_from pg_snapshot NOT NULL,
  done_to pg_snapshot,
  done_after bigint NOT NULL,
  skipped bigint[] DEFAULT '{}' NOT NULL,
  cluster bigint,
  saved_at timestamptz DEFAULT clock_timestamp() NOT NULL,
  CONSTRAINT outbox_turns_pkey PRIMARY KEY (turn),
  CONSTRAINT outbox_turns_turn_range CHECK (turn >= 1)
);

COMMENT ON TABLE hawser.outbox_turns IS 'One row for each turn of a relay that has changed something: up to where all messages are done. The newest one counts. Rows
are added only, so that an old snapshot elsewhere makes nothing slow.';
COMMENT ON COLUMN hawser.outbox_turns.turn IS 'Its number. Two relays cannot both have a turn of the same number: that is the fence.';
COMMENT ON COLUMN hawser.outbox_turns.owner IS 'The relay, as a random id. Only the newest one may have the next turn. Empty: it has ended, and publishes nothing more.';
COMMENT ON COLUMN hawser.outbox_turns.done_from IS 'All messages that this snapshot sees are done.';
COMMENT ON COLUMN hawser.outbox_turns.done_to IS 'Of those that this one sees, in addition, all with an id up to `done_after` are done. NULL: nothing was begun.';
COMMENT ON COLUMN hawser.outbox_turns.done_after IS 'See `done_to`.';
COMMENT ON COLUMN hawser.outbox_turns.skipped IS 'Of what is behind that: the messages that are dead letters already.';
COMMENT ON COLUMN hawser.outbox_turns.cluster IS 'The cluster that the snapshots are of. NULL: not known.';
COMMENT ON COLUMN hawser.outbox_turns.saved_at IS 'When it was written.';

INSERT INTO hawser.outbox_turns (turn, owner, done_from, done_to, done_after, skipped, cluster, saved_at)
VALUES (1, '', '3:3:', NULL, 0, '{}', NULL, now());

CREATE TABLE hawser.outbox_keys (
  bucket integer NOT NULL,
  CONSTRAINT outbox_keys_pkey PRIMARY KEY (bucket),
  CONSTRAINT outbox_keys_bucket_range CHECK (bucket BETWEEN 0 AND 4095)
);

COMMENT ON TABLE hawser.outbox_keys IS 'Locks: each destination and key has one of these rows, many share one. A transaction that enqueues with a key locks it to
its end, before it draws the id of the message. So ids grow in the order of the commits.';
COMMENT ON COLUMN hawser.outbox_keys.bucket IS 'The hash of destination and key, modulo 4,096.';

INSERT INTO hawser.outbox_keys
SELECT pg_catalog.generate_series(0, 4095);

CREATE TABLE hawser.outbox_state (
  id integer NOT NULL,
  asleep bigserial NOT NULL,
  slot bigserial NOT NULL,
  CONSTRAINT outbox_state_pkey PRIMARY KEY (id),
  CONSTRAINT outbox_state_id_range CHECK (id = 1)
);

COMMENT ON TABLE hawser.outbox_state IS 'What everybody has to see at once, whatever their snapshots: it is in the sequences of the columns, and not in the row.';
COMMENT ON COLUMN hawser.outbox_state.id IS 'Always 1.';
COMMENT ON COLUMN hawser.outbox_state.asleep IS 'Its sequence: 1 while the relay looks for messages by itself, 2 while it has to be notified.';
COMMENT ON COLUMN hawser.outbox_state.slot IS 'Its sequence: the slot that is filled, from 1.';

INSERT INTO hawser.outbox_state (id, asleep, slot)
VALUES (1, 1, 1);

CREATE TABLE hawser.peer_outbox (
  slot smallint NOT NULL,
  id bigint DEFAULT nextval('hawser.outbox_id_seq') NOT NULL,
  xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
  topic text NOT NULL,
  payload bytea NOT NULL,
  headers jsonb,
  key text,
  listener text,
  enqueued_at timestamptz DEFAULT clock_timestamp() NOT NULL,
  cluster bigint,
  CONSTRAINT peer_outbox_pkey PRIMARY KEY (id, slot)
) PARTITION BY LIST (slot);
CREATE TABLE hawser.peer_outbox_0 PARTITION OF hawser.peer_outbox FOR VALUES IN (0);
CREATE TABLE hawser.peer_outbox_1 PARTITION OF hawser.peer_outbox FOR VALUES IN (1);
CREATE TABLE hawser.peer_outbox_2 PARTITION OF hawser.peer_outbox FOR VALUES IN (2);

CREATE INDEX peer_outbox_xid ON hawser.peer_outbox (xid);

COMMENT ON TABLE hawser.peer_outbox IS 'Messages for peers that were enqueued, in the order of their ids. Slots and what they are for are as in the table `outbox`.';
COMMENT ON COLUMN hawser.peer_outbox.slot IS 'The part of the table that it is in.';
COMMENT ON COLUMN hawser.peer_outbox.id IS 'Its number: of two messages with the same topic and key, the one that is committed later has the greater one. No message
of the table `outbox` has the same.';
COMMENT ON COLUMN hawser.peer_outbox.xid IS 'The transaction that wrote it.';
COMMENT ON COLUMN hawser.peer_outbox.topic IS 'The topic.';
COMMENT ON COLUMN hawser.peer_outbox.payload IS 'The payload.';
COMMENT ON COLUMN hawser.peer_outbox.headers IS 'The headers: [[name, value], ...]; NULL: none.';
COMMENT ON COLUMN hawser.peer_outbox.key IS 'What keeps it in order with others; NULL: nothing.';
COMMENT ON COLUMN hawser.peer_outbox.listener IS 'The listener that it is for, as of a reply; NULL: one of those that serve the topic.';
COMMENT ON COLUMN hawser.peer_outbox.enqueued_at IS 'When it was enqueued.';
COMMENT ON COLUMN hawser.peer_outbox.cluster IS 'The cluster whose transaction `xid` is; NULL: not known.';

CREATE TABLE hawser.peer_outbox_turns (
  turn bigint NOT NULL,
  owner text NOT NULL,
  done_from pg_snapshot NOT NULL,
  done_to pg_snapshot,
  done_after bigint NOT NULL,
  cluster bigint,
  saved_at timestamptz DEFAULT clock_timestamp() NOT NULL,
  epoch bigint NOT NULL,
  CONSTRAINT peer_outbox_turns_pkey PRIMARY KEY (turn),
  CONSTRAINT peer_outbox_turns_turn_range CHECK (turn >= 1)
);

COMMENT ON TABLE hawser.peer_outbox_turns IS 'One row for each turn of the peers'' relay that has changed something. The newest one counts.';
COMMENT ON COLUMN hawser.peer_outbox_turns.turn IS 'Its number. Two relays cannot both have a turn of the same number: that is the fence.';
COMMENT ON COLUMN hawser.peer_outbox_turns.owner IS 'The relay, as a random id. Only the newest one may have the next turn.';
COMMENT ON COLUMN hawser.peer_outbox_turns.done_from IS 'All messages that this snapshot sees are stored for their listeners.';
COMMENT ON COLUMN hawser.peer_outbox_turns.done_to IS 'Of those that this one sees, in addition, all with an id up to `done_after` are stored. NULL: nothing was begun.';
COMMENT ON COLUMN hawser.peer_outbox_turns.done_after IS 'See `done_to`.';
COMMENT ON COLUMN hawser.peer_outbox_turns.cluster IS 'The cluster that the snapshots are of. NULL: not known.';
COMMENT ON COLUMN hawser.peer_outbox_turns.saved_at IS 'When it was written.';
COMMENT ON COLUMN hawser.peer_outbox_turns.epoch IS 'The epoch of the messages that it has stored for listeners. It grows with the turns, and a relay begins with the clock: so
none is given again after a failover that has lost the last turns.';

INSERT INTO hawser.peer_outbox_turns (turn, owner, done_from, done_to, done_after, cluster, saved_at, epoch)
VALUES (1, '', '3:3:', NULL, 0, NULL, now(), 1);

CREATE TABLE hawser.peer_waiting_topics (
  topic text NOT NULL,
  connection_key integer NOT NULL,
  CONSTRAINT peer_waiting_topics_pkey PRIMARY KEY (topic)
);

COMMENT ON TABLE hawser.peer_waiting_topics IS 'The topics that have messages and have never had a listener. Their messages are stored in a channel without an owner, which
becomes that of the first listener.';
COMMENT ON COLUMN hawser.peer_waiting_topics.topic IS 'The topic.';
COMMENT ON COLUMN hawser.peer_waiting_topics.connection_key IS 'The channel that has its messages.';

CREATE TABLE hawser.peer_outbox_state (
  id integer NOT NULL,
  asleep bigserial NOT NULL,
  slot bigserial NOT NULL,
  CONSTRAINT peer_outbox_state_pkey PRIMARY KEY (id),
  CONSTRAINT peer_outbox_state_id_range CHECK (id = 1)
);

COMMENT ON TABLE hawser.peer_outbox_state IS 'As `outbox_state`, for peers.';
COMMENT ON COLUMN hawser.peer_outbox_state.id IS 'Always 1.';
COMMENT ON COLUMN hawser.peer_outbox_state.asleep IS 'Its sequence: 1 while the relay looks for messages by itself, 2 while it has to be notified.';
COMMENT ON COLUMN hawser.peer_outbox_state.slot IS 'Its sequence: the slot that is filled, from 1.';

INSERT INTO hawser.peer_outbox_state (id, asleep, slot)
VALUES (1, 1, 1);

COMMENT ON TABLE hawser.seq IS 'The counter for connection keys and topic keys; one row.';
COMMENT ON COLUMN hawser.seq.id IS 'Always 1.';
COMMENT ON COLUMN hawser.seq.v IS 'The last key given.';

COMMENT ON TABLE hawser.topic_addr IS 'The directory: which listener serves which topic, and where. Operators may insert rows of their own.';
COMMENT ON COLUMN hawser.topic_addr.topic IS 'The topic served.';
COMMENT ON COLUMN hawser.topic_addr.addr IS 'The published address, host:port.';
COMMENT ON COLUMN hawser.topic_addr.client_name IS 'The listener''s name.';
COMMENT ON COLUMN hawser.topic_addr.epoch IS 'The listener''s epoch when it registered; 0 for a row that an operator wrote.';
COMMENT ON COLUMN hawser.topic_addr.max_message_bytes IS 'The greatest payload that the listener takes, in bytes.';
COMMENT ON COLUMN hawser.topic_addr.durable IS 'The row stays when the listener stops, so that even senders that never connected to it store for it.';
COMMENT ON COLUMN hawser.topic_addr.subscribed IS 'The listener subscribed to the topic, as opposed to serving it as its source topic.';
COMMENT ON COLUMN hawser.topic_addr.registered_at IS 'When the row was written.';

COMMENT ON TABLE hawser.sender_listener IS 'The listeners that a sender has met, so that it can store for them after they have left the directory.';
COMMENT ON COLUMN hawser.sender_listener.sender_key IS 'The sender: ''name:source_topic''.';
COMMENT ON COLUMN hawser.sender_listener.addr IS 'The listener''s last known address.';
COMMENT ON COLUMN hawser.sender_listener.listener_topic IS 'The topic that the listener serves.';
COMMENT ON COLUMN hawser.sender_listener.client_name IS 'The listener''s name.';
COMMENT ON COLUMN hawser.sender_listener.max_message_bytes IS 'The greatest payload that the listener takes, as last heard, in bytes.';

COMMENT ON TABLE hawser.conn_key_map IS 'The channels: each (sender, source topic, listener) has one connection key for ever.';
COMMENT ON COLUMN hawser.conn_key_map.composite IS '''sender:source_topic:listener''; '':'' is refused in all three.';
COMMENT ON COLUMN hawser.conn_key_map.connection_key IS 'The channel''s key.';
COMMENT ON COLUMN hawser.conn_key_map.sender_name IS 'The sender''s name.';
COMMENT ON COLUMN hawser.conn_key_map.source_topic IS 'The sender''s source topic.';
COMMENT ON COLUMN hawser.conn_key_map.listener_name IS 'The listener that the channel was made for.';
COMMENT ON COLUMN hawser.conn_key_map.owner IS 'The listener that the channel was handed over to; NULL: the one it was made for.';
COMMENT ON COLUMN hawser.conn_key_map.retry_of IS 'A retry channel, made for ''__#retry#'' and the key of another channel: that key. It has the dead letters of that
channel that are to be handled again; no sender dials it. NULL for every other channel.';
COMMENT ON COLUMN hawser.conn_key_map.last_retry IS 'Of a retry channel: the last number given. Its messages are all of epoch 1.';

COMMENT ON TABLE hawser.topic_key IS 'A short key for each topic, as frames and stored rows carry it.';
COMMENT ON COLUMN hawser.topic_key.topic IS 'The topic.';
COMMENT ON COLUMN hawser.topic_key.k IS 'Its key.';

COMMENT ON TABLE hawser.conn_sender IS 'The source topic of each channel''s sender.';
COMMENT ON COLUMN hawser.conn_sender.connection_key IS 'The channel.';
COMMENT ON COLUMN hawser.conn_sender.sender_topic IS 'The sender''s source topic.';

COMMENT ON TABLE hawser.conn_mess_number IS 'The cursors: the last message of each channel whose handling is committed.';
COMMENT ON COLUMN hawser.conn_mess_number.connection_key IS 'The channel.';
COMMENT ON COLUMN hawser.conn_mess_number.v IS 'The last acknowledged number within the epoch.';
COMMENT ON COLUMN hawser.conn_mess_number.epoch IS 'The sender''s epoch that the number belongs to.';
COMMENT ON COLUMN hawser.conn_mess_number.attempts IS 'How often the next message''s handler was started after an unclean exit.';

COMMENT ON TABLE hawser.conn_messages IS 'Messages that wait for their listener. First in, first out by (epoch, number) within a channel. A row is one message, or a
batch of messages with successive numbers, one topic and one codec.';
COMMENT ON COLUMN hawser.conn_messages.id IS 'The order in which rows were written, over all channels.';
COMMENT ON COLUMN hawser.conn_messages.connection_key IS 'The channel.';
COMMENT ON COLUMN hawser.conn_messages.payload IS 'The payload, plain or compressed as `codec` says. Of a batch all payloads, one after another.';
COMMENT ON COLUMN hawser.conn_messages.epoch IS 'The sender''s epoch.';
COMMENT ON COLUMN hawser.conn_messages.number IS 'The message''s number within the epoch. Of a batch that of the last message, so that the row is behind a position as long
as one of its messages is.';
COMMENT ON COLUMN hawser.conn_messages.topic_key IS 'The topic that the message is for.';
COMMENT ON COLUMN hawser.conn_messages.headers IS 'The headers: [[name, value], ...]; NULL: none. Of a batch an array with such headers, or null, for each message.';
COMMENT ON COLUMN hawser.conn_messages.codec IS 'How the payload is compressed: 0 not, 1 gzip.';
COMMENT ON COLUMN hawser.conn_messages.stored_at IS 'When it was stored.';
COMMENT ON COLUMN hawser.conn_messages.key_hash IS 'The hash of topic and key of a message that was enqueued with a key: the next one of the same key follows it into the same
channel. NULL: it has no key.';
COMMENT ON COLUMN hawser.conn_messages.messages IS 'How many messages the row has.';
COMMENT ON COLUMN hawser.conn_messages.lengths IS 'The length of each payload of a batch, in bytes; empty for one message.';

COMMENT ON TABLE hawser.peers IS 'The names of peers, and of each the epoch under which a process may write for the name.';
COMMENT ON COLUMN hawser.peers.name IS 'The peer''s name.';
COMMENT ON COLUMN hawser.peers.epoch IS 'The epoch: greater each time that the name is taken.';
COMMENT ON COLUMN hawser.peers.clean IS 'The holder before ended in good order, or there was none.';
COMMENT ON COLUMN hawser.peers.started_at IS 'When the name was taken last.';
COMMENT ON COLUMN hawser.peers.token IS 'The token of the process that took the name last. If that process lost the answer, it finds its token here, and knows
that the epoch is its own. NULL: the epoch was raised without taking the name.';
COMMENT ON COLUMN hawser.peers.in_group IS 'When it registered last, the peer was a member of a group.';

COMMENT ON TABLE hawser.dead_letters IS 'Messages that could not be handled, with their errors.';
COMMENT ON COLUMN hawser.dead_letters.id IS 'The dead letter''s id.';
COMMENT ON COLUMN hawser.dead_letters.origin IS 'Where it comes from: a peer''s channel, a subscription, or the outbox.';
COMMENT ON COLUMN hawser.dead_letters.source IS 'The channel''s composite, or the subscribed function. Of the outbox `core`, or the JetStream domain.';
COMMENT ON COLUMN hawser.dead_letters.topic IS 'The topic, or the subject.';
COMMENT ON COLUMN hawser.dead_letters.payload IS 'The payload, uncompressed.';
COMMENT ON COLUMN hawser.dead_letters.headers IS 'The headers: [[name, value], ...]; NULL: none.';
COMMENT ON COLUMN hawser.dead_letters.error_code IS 'The error''s code.';
COMMENT ON COLUMN hawser.dead_letters.error_message IS 'The error''s message; a longer one is cut, and ends with "...".';
COMMENT ON COLUMN hawser.dead_letters.attempts IS 'How often the handler was started.';
COMMENT ON COLUMN hawser.dead_letters.created_at IS 'When it was given up.';
COMMENT ON COLUMN hawser.dead_letters.connection_key IS 'The channel''s key (peers only).';
COMMENT ON COLUMN hawser.dead_letters.epoch IS 'The sender''s epoch (peers only).';
COMMENT ON COLUMN hawser.dead_letters.number IS 'The message''s number (peers only).';
COMMENT ON COLUMN hawser.dead_letters.handler_id IS 'The handler that failed (subscriptions only).';
COMMENT ON COLUMN hawser.dead_letters.retry_requested IS 'The leading process will handle it again (subscriptions only).';
COMMENT ON COLUMN hawser.dead_letters.message_id IS 'What the process that gave it up knows the message by (subscriptions only).';

COMMENT ON TABLE hawser.mesh_secret IS 'The mesh secret, made at the first migration; two rows while it is rotated, the newest is used for dialling.';
COMMENT ON COLUMN hawser.mesh_secret.id IS 'Grows with each rotation.';
COMMENT ON COLUMN hawser.mesh_secret.secret IS 'The secret.';
COMMENT ON COLUMN hawser.mesh_secret.created_at IS 'When it was made.';

COMMENT ON TABLE hawser.migrations IS 'The migrations that this database has.';
COMMENT ON COLUMN hawser.migrations.id IS 'The migration''s number.';
COMMENT ON COLUMN hawser.migrations.name IS 'Its name.';
COMMENT ON COLUMN hawser.migrations.applied_at IS 'When it was applied.';
COMMENT ON COLUMN hawser.migrations.checksum IS 'SHA-256 of its SQL in hex: a migration that was edited after it was applied is refused.';

DO $do$
DECLARE
  present CONSTANT oid[] := pg_catalog.string_to_array(pg_catalog.current_setting('hawser.present', true), ',')::oid[];
  statement text;
BEGIN
  FOR statement IN
    WITH made AS (
      SELECT o.* FROM (
        SELECT n.oid, 'SCHEMA hawser' AS object, 'n'::"char" AS type, n.nspowner AS owner, n.nspacl AS acl
        FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'
        UNION ALL
        SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,
          (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner, c.relacl
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl
        FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')
      ) AS o WHERE o.oid <> ALL (coalesce(present, '{}'))
    )
    SELECT pg_catalog.format('REVOKE ALL ON %s FROM %s', m.object,
      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
    FROM made AS m
    CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(m.acl, pg_catalog.acldefault(m.type, m.owner))) AS a
    WHERE a.grantee <> m.owner
    UNION
    -- They can lack rights of the owner, too.
    SELECT pg_catalog.format('GRANT ALL ON %s TO %I', m.object, pg_catalog.pg_get_userbyid(m.owner))
    FROM made AS m WHERE m.acl IS NOT NULL
  LOOP
    EXECUTE statement;
  END LOOP;
END
$do$;

DO $do$
BEGIN
  -- What is new after what follows gets no default privileges: see the block at the end.
  PERFORM pg_catalog.set_config('hawser.present', (
    SELECT coalesce(pg_catalog.string_agg(o.oid::text, ','), '') FROM (
      SELECT n.oid, 'SCHEMA hawser' AS object, 'n'::"char" AS type, n.nspowner AS owner, n.nspacl AS acl
      FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'
      UNION ALL
      SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,
        (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner, c.relacl
      FROM pg_catalog.pg_class AS c
      WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      UNION ALL
      SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl
      FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')
    ) AS o
  ), false);
  IF to_regnamespace('hawser') IS NULL THEN
    CREATE SCHEMA hawser;
  END IF;
END
$do$;

CREATE OR REPLACE FUNCTION hawser.take_name(
  p_name text,
  p_token text,
  OUT epoch bigint,
  OUT was_clean boolean
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  v_now_ms bigint := floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;
  v_was_clean boolean;
BEGIN
  -- Exclusive: waits for the writes under way in this name and keeps out all later ones until the new epoch is there.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:fence:' || p_name, 0));

  SELECT p.clean INTO v_was_clean FROM hawser.peers AS p WHERE p.name = p_name FOR UPDATE;

  -- The clock keeps the epoch growing also where a failover or a restore lost the row's last values.
  INSERT INTO hawser.peers AS p (name, epoch, clean, started_at, token)
  VALUES (p_name, v_now_ms, false, clock_timestamp(), p_token)
  ON CONFLICT (name) DO UPDATE
    SET epoch = greatest(p.epoch + 1, excluded.epoch),
        clean = false,
        started_at = excluded.started_at,
        token = excluded.token
  RETURNING p.epoch INTO take_name.epoch;

  was_clean := coalesce(v_was_clean, true);
END
$function$;
COMMENT ON FUNCTION hawser.take_name(text, text) IS 'Takes a name whose lease lock the session holds: raises the epoch under the exclusive fence, and leaves the token.';

CREATE OR REPLACE FUNCTION hawser.connection_key(
  p_sender_name text,
  p_source_topic text,
  p_listener_name text,
  OUT connection_key integer,
  OUT owner text
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  v_composite text := p_sender_name || ':' || p_source_topic || ':' || p_listener_name;
BEGIN
  SELECT m.connection_key, coalesce(m.owner, m.listener_name)
    INTO connection_key.connection_key, connection_key.owner
    FROM hawser.conn_key_map AS m
   WHERE m.composite = v_composite;
  IF FOUND THEN
    RETURN;
  END IF;

  -- The counter's row is the lock of all who make keys; after a wait for it, the table is read again with a new snapshot.
  PERFORM FROM hawser.seq AS s WHERE s.id = 1 FOR UPDATE;
  SELECT m.connection_key, coalesce(m.owner, m.listener_name)
    INTO connection_key.connection_key, connection_key.owner
    FROM hawser.conn_key_map AS m
   WHERE m.composite = v_composite;
  IF FOUND THEN
    RETURN;
  END IF;

  UPDATE hawser.seq AS s SET v = s.v + 1 WHERE s.id = 1 RETURNING s.v INTO STRICT connection_key.connection_key;
  INSERT INTO hawser.conn_key_map (composite, connection_key)
  VALUES (v_composite, connection_key.connection_key);
  INSERT INTO hawser.conn_sender AS c (connection_key, sender_topic)
  VALUES (connection_key.connection_key, p_source_topic)
  ON CONFLICT (connection_key) DO UPDATE SET sender_topic = excluded.sender_topic;
  connection_key.owner := p_listener_name;
END
$function$;
COMMENT ON FUNCTION hawser.connection_key(text, text, text) IS 'The key of a channel, made on first use.';

CREATE OR REPLACE FUNCTION hawser.key_of_topic(
  p_topic text,
  OUT k integer
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
  SELECT t.k INTO key_of_topic.k FROM hawser.topic_key AS t WHERE t.topic = p_topic;
  IF FOUND THEN
    RETURN;
  END IF;

  -- The counter's row is the lock of all who make keys; after a wait for it, the table is read again with a new snapshot.
  PERFORM FROM hawser.seq AS s WHERE s.id = 1 FOR UPDATE;
  SELECT t.k INTO key_of_topic.k FROM hawser.topic_key AS t WHERE t.topic = p_topic;
  IF FOUND THEN
    RETURN;
  END IF;

  UPDATE hawser.seq AS s SET v = s.v + 1 WHERE s.id = 1 RETURNING s.v INTO STRICT key_of_topic.k;
  INSERT INTO hawser.topic_key (topic, k) VALUES (p_topic, key_of_topic.k);
END
$function$;
COMMENT ON FUNCTION hawser.key_of_topic(text) IS 'The key of a topic, made on first use.';

CREATE OR REPLACE FUNCTION hawser.store_messages(
  p_name text,
  p_epoch bigint,
  p_connection_key integer,
  p_first_number bigint,
  p_topic_keys integer[],
  p_lengths integer[],
  p_codecs integer[],
  p_headers jsonb,
  p_payloads bytea,
  OUT held boolean,
  OUT inserted integer
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_column
DECLARE
  v_count integer;
  v_bytes bigint;
  v_least integer;
  v_stored bigint;
  v_stored_from bigint;
  v_batch_messages integer := 1024;
  -- The next message, and where its payload begins.
  v_from integer := 1;
  v_offset integer := 1;
  -- The last message of each run with one topic and one codec.
  v_ends integer[];
  v_end integer;
  -- The rows to write: the first message, how many messages, where their payloads begin, and how long these are in all.
  v_many integer;
  v_firsts integer[] := '{}';
  v_counts integer[] := '{}';
  v_offsets integer[] := '{}';
  v_sizes integer[] := '{}';
BEGIN
  -- A snapshot from before the wait for the lock would let a late write through.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.store_messages needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;

  PERFORM pg_advisory_xact_lock_shared(hashtextextended('hawser:fence:' || p_name, 0));
  -- A statement of its own, so that it sees what was committed while the lock was waited for.
  held := EXISTS (SELECT FROM hawser.peers AS p WHERE p.name = p_name AND p.epoch = p_epoch);
  inserted := 0;
  IF NOT held THEN
    RETURN;
  END IF;

  -- A sender whose cached key is from before a failover must not write into a channel of someone else.
  IF NOT EXISTS (
    SELECT FROM hawser.conn_key_map AS m WHERE m.connection_key = p_connection_key AND m.sender_name = p_name
  ) THEN
    RAISE EXCEPTION 'channel % is not one of sender "%"', p_connection_key, p_name
      USING ERRCODE = 'foreign_key_violation', HINT = 'Look the connection key up again.';
  END IF;

  SELECT count(l), coalesce(sum(l), 0), coalesce(min(l), 0) INTO v_count, v_bytes, v_least FROM unnest(p_lengths) AS l;
  IF octet_length(p_payloads) IS DISTINCT FROM v_bytes OR v_least < 0 THEN
    RAISE EXCEPTION 'the lengths of the payloads do not add up to the % bytes given', octet_length(p_payloads)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF (v_count, v_count, v_count) IS DISTINCT FROM (cardinality(p_lengths), cardinality(p_topic_keys), cardinality(p_codecs)) THEN
    RAISE EXCEPTION 'there are % topic keys, % lengths and % codecs, which must be as many',
      cardinality(p_topic_keys), v_count, cardinality(p_codecs) USING ERRCODE = 'invalid_parameter_value';
  END IF;

  -- Hardly ever: the answer to an earlier call was lost, which has stored the first ones, or all.
  v_stored := (
    SELECT c.number FROM hawser.conn_messages AS c
     WHERE c.connection_key = p_connection_key AND c.epoch = p_epoch AND c.number >= p_first_number
     ORDER BY c.connection_key DESC, c.epoch DESC, c.number DESC LIMIT 1
  );
  IF v_stored IS NOT NULL THEN
    v_stored_from := (
      SELECT c.number - c.messages + 1 FROM hawser.conn_messages AS c
       WHERE c.connection_key = p_connection_key AND c.epoch = p_epoch AND c.number >= p_first_number
       ORDER BY c.connection_key, c.epoch, c.number LIMIT 1
    );
    IF v_stored_from <= p_first_number OR EXISTS (
      SELECT FROM hawser.conn_mess_number AS n
       WHERE n.connection_key = p_connection_key AND (n.epoch, n.v + 1) >= (p_epoch, v_stored_from)
    ) THEN
      v_from := least(v_stored - p_first_number + 2, v_count + 1);
      v_offset := 1 + coalesce((SELECT sum(l) FROM unnest(p_lengths[1 : v_from - 1]) AS l), 0);
    ELSE
      -- Some were left out, or deleted by hand: as rows of their own all find their place.
      v_batch_messages := 1;
    END IF;
  END IF;

  v_ends := ARRAY[v_count];
  IF p_topic_keys <> array_fill(p_topic_keys[1], v_ends) OR p_codecs <> array_fill(p_codecs[1], v_ends) THEN
    v_ends := ARRAY(
      SELECT n.nth
        FROM (
          SELECT u.nth, (u.topic_key, u.codec) IS DISTINCT FROM (lead(u.topic_key) OVER w, lead(u.codec) OVER w) AS is_last
            FROM unnest(p_topic_keys, p_codecs) WITH ORDINALITY AS u (topic_key, codec, nth)
          WINDOW w AS (ORDER BY u.nth)
        ) AS n
       WHERE n.is_last
       ORDER BY n.nth
    );
  END IF;
  FOREACH v_end IN ARRAY v_ends LOOP
    WHILE v_from <= v_end LOOP
      v_many := least(v_end - v_from + 1, v_batch_messages);
      LOOP
        IF v_many = 1 THEN
          v_bytes := p_lengths[v_from];
          EXIT;
        END IF;
        v_bytes := (SELECT sum(l) FROM unnest(p_lengths[v_from : v_from + v_many - 1]) AS l);
        EXIT WHEN v_bytes <= 262144;
        v_many := greatest(1, least(v_many - 1, v_many::bigint * 262144 / v_bytes));
      END LOOP;
      v_firsts := v_firsts || v_from;
      v_counts := v_counts || v_many;
      v_offsets := v_offsets || v_offset;
      v_sizes := v_sizes || v_bytes::integer;
      v_from := v_from + v_many;
      v_offset := v_offset + v_bytes;
    END LOOP;
  END LOOP;

  -- A row may be there all the same: of a call that has not ended yet, and that this one has waited for.
  WITH new AS (
    INSERT INTO hawser.conn_messages (connection_key, payload, epoch, number, topic_key, headers, codec, messages, lengths)
    SELECT p_connection_key,
           substring(p_payloads FROM r.past FOR r.size),
           p_epoch,
           p_first_number + r.first + r.count - 2,
           p_topic_keys[r.first],
           CASE
             WHEN r.count = 1 THEN nullif(p_headers -> (r.first - 1), 'null'::jsonb)
             WHEN p_headers IS NOT NULL THEN
               jsonb_path_query_array(
                 p_headers, '$[$first to $last]', jsonb_build_object('first', r.first - 1, 'last', r.first + r.count - 2)
               )
           END,
           p_codecs[r.first],
           r.count,
           CASE WHEN r.count = 1 THEN '{}' ELSE p_lengths[r.first : r.first + r.count - 1] END
      FROM unnest(v_firsts, v_counts, v_offsets, v_sizes) AS r (first, count, past, size)
     ORDER BY r.first
    ON CONFLICT (connection_key, epoch, number) DO NOTHING
    RETURNING messages
  )
  SELECT coalesce(sum(n.messages), 0) INTO inserted FROM new AS n;
  -- What an earlier call has committed may not have reached a synchronous standby yet: only a commit that writes waits for that.
  IF inserted < v_count THEN
    PERFORM pg_logical_emit_message(true, 'hawser', '');
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.store_messages(text, bigint, integer, bigint, integer[], integer[], integer[], jsonb, bytea) IS 'Stores messages of one channel, fenced by the sender''s epoch.';

CREATE OR REPLACE FUNCTION hawser.commit_cursors(
  p_name text,
  p_epoch bigint,
  p_connection_keys integer[],
  p_cursor_epochs bigint[],
  p_cursors bigint[],
  p_dead_letters jsonb,
  p_dead_payloads bytea
)
RETURNS TABLE (
  held boolean,
  connection_key integer,
  moved boolean
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_column
-- The function's settings: the tables grow from nothing to millions of rows while a plan made for the empty ones is
-- still cached, so no plan may scan them; and planning anew for each set of arrays would cost more than the rest.
DECLARE
  -- The cursors before the call, by channel in key order; read only for dead letters.
  v_old_keys integer[];
  v_old_epochs bigint[];
  v_old_numbers bigint[];
  -- What is deleted lies behind this position.
  v_after_epoch bigint;
  v_after_number bigint;
  -- What only has an effect is assigned: an assignment of a plain expression takes a fraction of a PERFORM.
  v_done boolean;
BEGIN
  -- A snapshot from before the wait for the lock would let a late write through.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.commit_cursors needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;

  -- A handler's transaction could take any time until here. From here on a session that stands still holds the fence, and
  -- keeps others out.
  v_done := set_config('idle_in_transaction_session_timeout', '8000', true) IS NULL;
  v_done := pg_advisory_xact_lock_shared(hashtextextended('hawser:fence:' || p_name, 0)) IS NULL;

  -- One channel alone, as while there is little to do, whose cursor moves: without the machinery for many, and in as few
  -- statements as can be. The first sees what was committed while the lock was waited for. The old cursor is of its
  -- snapshot: perhaps an older one, never one that is yet to come.
  IF cardinality(p_connection_keys) = 1 AND p_dead_letters IS NULL THEN
    UPDATE hawser.conn_mess_number AS c
       SET epoch = p_cursor_epochs[1], v = p_cursors[1], attempts = 0
      FROM hawser.conn_mess_number AS o, hawser.conn_key_map AS m, hawser.peers AS p
     WHERE c.connection_key = p_connection_keys[1] AND (c.epoch, c.v) < (p_cursor_epochs[1], p_cursors[1])
       AND o.connection_key = p_connection_keys[1]
       AND m.connection_key = p_connection_keys[1] AND coalesce(m.owner, m.listener_name) = p_name
       AND p.name = p_name AND p.epoch = p_epoch
    RETURNING o.epoch, o.v INTO v_after_epoch, v_after_number;
    IF FOUND THEN
      -- Not from the channel's first row on: until a vacuum the index still has all that was deleted before, which each
      -- commit of a great backlog would walk through.
      DELETE FROM hawser.conn_messages AS d
       WHERE d.connection_key = p_connection_keys[1]
         AND (d.epoch, d.number) > (v_after_epoch, v_after_number)
         AND (d.epoch, d.number) <= (p_cursor_epochs[1], p_cursors[1]);
      held := true;
      connection_key := p_connection_keys[1];
      moved := true;
      RETURN NEXT;
      RETURN;
    END IF;
  END IF;

  -- A statement of its own, so that it sees what was committed while the lock was waited for.
  held := EXISTS (SELECT FROM hawser.peers AS p WHERE p.name = p_name AND p.epoch = p_epoch);
  IF NOT held THEN
    RETURN NEXT;
    RETURN;
  END IF;

  -- Cursors are locked in key order, here as below, absent ones made, so that two calls never wait in a circle.
  IF p_dead_letters IS NOT NULL THEN
    WITH locked AS (
      INSERT INTO hawser.conn_mess_number AS c (connection_key)
      SELECT a.key
        FROM unnest(p_connection_keys) AS a (key)
        JOIN hawser.conn_key_map AS m ON m.connection_key = a.key AND coalesce(m.owner, m.listener_name) = p_name
       ORDER BY a.key
      ON CONFLICT (connection_key) DO UPDATE SET attempts = c.attempts
      RETURNING c.connection_key, c.epoch, c.v
    )
    SELECT array_agg(l.connection_key), array_agg(l.epoch), array_agg(l.v)
      INTO v_old_keys, v_old_epochs, v_old_numbers
      FROM locked AS l;

    INSERT INTO hawser.dead_letters
      (origin, source, topic, payload, headers, error_code, error_message, attempts, connection_key, epoch, number)
    SELECT 'peer', l.source, l.topic,
           substring(p_dead_payloads FROM (l.past - l.payload_bytes + 1)::integer FOR l.payload_bytes),
           nullif(l.headers, 'null'::jsonb), l.error_code, l.error_message, l.attempts, l.connection_key, l.epoch, l.number
      FROM (
        SELECT j.*, sum(j.payload_bytes) OVER (ORDER BY j.nth) AS past
          FROM ROWS FROM (jsonb_to_recordset(p_dead_letters) AS (
            connection_key integer, epoch bigint, number bigint, source text, topic text, payload_bytes integer,
            headers jsonb, error_code text, error_message text, attempts integer
          )) WITH ORDINALITY AS j (
            connection_key, epoch, number, source, topic, payload_bytes, headers, error_code, error_message, attempts,
            nth
          )
      ) AS l
      JOIN unnest(v_old_keys, v_old_epochs, v_old_numbers) AS o (key, epoch, number) ON o.key = l.connection_key
      JOIN unnest(p_connection_keys, p_cursor_epochs, p_cursors) AS n (key, epoch, number) ON n.key = l.connection_key
     WHERE (l.epoch, l.number) > (o.epoch, o.number) AND (l.epoch, l.number) <= (n.epoch, n.number)
     ORDER BY l.nth;
  END IF;

  RETURN QUERY
  WITH asked AS MATERIALIZED (
    SELECT a.key, a.epoch, a.number, coalesce(m.owner, m.listener_name) IS NOT DISTINCT FROM p_name AS owned,
           CASE WHEN (o.epoch, o.v) < (a.epoch, a.number) THEN o.epoch ELSE -1 END AS after_epoch,
           CASE WHEN (o.epoch, o.v) < (a.epoch, a.number) THEN o.v ELSE 0 END AS after_number
      FROM unnest(p_connection_keys, p_cursor_epochs, p_cursors) AS a (key, epoch, number)
      LEFT JOIN hawser.conn_key_map AS m ON m.connection_key = a.key
      LEFT JOIN hawser.conn_mess_number AS o ON o.connection_key = a.key
     ORDER BY a.key
  ), moved AS (
    INSERT INTO hawser.conn_mess_number AS c (connection_key, epoch, v)
    SELECT a.key, a.epoch, a.number FROM asked AS a WHERE a.owned
    ON CONFLICT (connection_key) DO UPDATE
      SET epoch = excluded.epoch, v = excluded.v, attempts = 0
      WHERE (c.epoch, c.v) < (excluded.epoch, excluded.v)
    RETURNING c.connection_key AS key
  ), deleted AS (
    -- What the cursor passes now; if it was there before, everything up to it. By ctid over a look-up for each channel: no
    -- other plan stays cheap for few and for many stored rows.
    DELETE FROM hawser.conn_messages AS d
     WHERE d.ctid = ANY (ARRAY(
       SELECT s.ctid
         FROM asked AS a
        CROSS JOIN LATERAL (
          SELECT r.ctid
            FROM hawser.conn_messages AS r
           WHERE r.connection_key = a.key
             AND (r.epoch, r.number) > (a.after_epoch, a.after_number) AND (r.epoch, r.number) <= (a.epoch, a.number)
          OFFSET 0
        ) AS s
        WHERE a.owned
     ))
  )
  SELECT true, a.key, CASE WHEN a.owned THEN EXISTS (SELECT FROM moved AS m WHERE m.key = a.key) END
    FROM asked AS a;
END
$function$;
COMMENT ON FUNCTION hawser.commit_cursors(text, bigint, integer[], bigint[], bigint[], jsonb, bytea) IS 'Moves cursors forward and deletes what they pass, or where a cursor is there already everything up to it; fenced by the
listener''s epoch.';

CREATE OR REPLACE FUNCTION hawser.drain_messages(
  p_connection_key integer,
  p_epoch bigint,
  p_number bigint,
  p_max_rows integer,
  p_max_bytes bigint,
  p_count_rows integer
)
RETURNS TABLE (
  epoch bigint,
  number bigint,
  topic_key integer,
  codec integer,
  headers jsonb,
  payload bytea,
  counted bigint
)
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET work_mem = 32768
AS $function$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH stored AS MATERIALIZED (
    -- Read from its pieces once, not once for each message.
    SELECT d.*, d.payload || ''::bytea AS all_payloads,
           lag(d.number) OVER (PARTITION BY d.epoch ORDER BY d.number) AS number_before
      FROM hawser.drain_rows(p_connection_key, p_epoch, p_number, p_max_rows, p_max_bytes, p_count_rows) AS d
  ), one AS (
    SELECT s.epoch, s.number - s.messages + l.nth AS number, s.topic_key, s.codec,
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
  SELECT p.epoch, p.number, p.topic_key, p.codec, p.headers, p.payload, p.counted
    FROM page AS p
   WHERE p.nth = 1 OR (p.nth <= p_max_rows AND p.bytes <= p_max_bytes)
   ORDER BY p.epoch, p.number;
END
$function$;
COMMENT ON FUNCTION hawser.drain_messages(integer, bigint, bigint, integer, bigint, integer) IS 'Reads a channel''s next stored messages after a position, in order, and counts those behind them; of one moment.';

CREATE OR REPLACE FUNCTION hawser.drain_rows(
  p_connection_key integer,
  p_epoch bigint,
  p_number bigint,
  p_max_messages integer,
  p_max_bytes bigint,
  p_count_messages integer
)
RETURNS TABLE (
  epoch bigint,
  number bigint,
  messages integer,
  lengths integer[],
  topic_key integer,
  codec integer,
  headers jsonb,
  payload bytea,
  counted bigint
)
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET plan_cache_mode = force_generic_plan
SET work_mem = 32768
AS $function$
#variable_conflict use_column
-- The function's settings: the table grows from nothing to millions of rows while the planner still takes it for empty,
-- so that every plan but the walk along the primary key must be out of the question.
DECLARE
  v_messages bigint := 0;
  v_bytes bigint := 0;
BEGIN
  counted := (
    SELECT c.counted FROM hawser.count_messages(p_connection_key, p_epoch, p_number, p_max_messages + p_count_messages) AS c
  );
  FOR epoch, number, messages, lengths, topic_key, codec, headers, payload IN
    SELECT m.epoch, m.number, m.messages, m.lengths, m.topic_key, m.codec, m.headers, m.payload
      FROM hawser.conn_messages AS m
     WHERE m.connection_key = p_connection_key AND (m.epoch, m.number) > (p_epoch, p_number)
     ORDER BY m.connection_key, m.epoch, m.number
     LIMIT p_max_messages
  LOOP
    EXIT WHEN v_messages > 0 AND (
      v_messages + messages > p_max_messages OR v_bytes + octet_length(payload) > p_max_bytes
    );
    v_messages := v_messages + messages;
    v_bytes := v_bytes + octet_length(payload);
    RETURN NEXT;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION hawser.drain_rows(integer, bigint, bigint, integer, bigint, integer) IS 'Reads a channel''s next rows after a position as they are stored, in order, and counts the messages behind it; of one
moment.';

CREATE OR REPLACE FUNCTION hawser.count_messages(
  p_connection_key integer,
  p_epoch bigint,
  p_number bigint,
  p_count_rows integer,
  OUT counted bigint
)
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $function$
-- The function's settings: see drain_rows.
DECLARE
  v_rows integer;
  v_is_all boolean;
BEGIN
  -- Few rows are enough where they are batches; where they are not, all are counted in one go.
  FOREACH v_rows IN ARRAY ARRAY[least(32, p_count_rows), p_count_rows] LOOP
    SELECT least(coalesce(sum(b.messages), 0), p_count_rows), count(*) < v_rows
      INTO counted, v_is_all
      FROM (
        -- Of a batch only what is behind the position.
        SELECT CASE WHEN c.epoch = p_epoch THEN least(c.messages, c.number - p_number) ELSE c.messages END AS messages
          FROM hawser.conn_messages AS c
         WHERE c.connection_key = p_connection_key AND (c.epoch, c.number) > (p_epoch, p_number)
         ORDER BY c.connection_key, c.epoch, c.number
         LIMIT v_rows
      ) AS b;
    EXIT WHEN v_is_all OR counted = p_count_rows;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION hawser.count_messages(integer, bigint, bigint, integer) IS 'Counts a channel''s stored messages after a position.';

CREATE OR REPLACE FUNCTION hawser.channels_with_messages(
  p_listener_name text
)
RETURNS TABLE (
  connection_key integer
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_column
-- The function's settings: see drain_messages. For each channel its first row is looked up; of an EXISTS the planner makes a
-- join that reads the whole table where a few channels have most of it.
BEGIN
  RETURN QUERY
  SELECT m.connection_key
    FROM hawser.conn_key_map AS m
    LEFT JOIN hawser.conn_mess_number AS c ON c.connection_key = m.connection_key
   WHERE coalesce(m.owner, m.listener_name) = p_listener_name
     AND coalesce(
       -- Behind the cursor first: up to it the index has what was deleted, until a vacuum.
       (
         SELECT s.connection_key
           FROM hawser.conn_messages AS s
          WHERE s.connection_key = m.connection_key AND (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.v, 0))
          ORDER BY s.connection_key, s.epoch, s.number
          LIMIT 1
       ),
       (
         SELECT s.connection_key
           FROM hawser.conn_messages AS s
          WHERE s.connection_key = m.connection_key
          ORDER BY s.connection_key, s.epoch, s.number
          LIMIT 1
       )
     ) IS NOT NULL
   ORDER BY m.connection_key;
END
$function$;
COMMENT ON FUNCTION hawser.channels_with_messages(text) IS 'Which of a listener''s channels have stored messages, those at or below the cursor included.';

CREATE OR REPLACE FUNCTION hawser.enter_directory(
  p_name text,
  p_epoch bigint,
  p_addr text,
  p_max_message_bytes bigint,
  p_durable boolean,
  p_topics text[],
  p_subscribed boolean[],
  p_only boolean,
  p_in_group boolean DEFAULT NULL,
  OUT held boolean
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
  -- A snapshot from before the wait for the locks would let a late write through.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.enter_directory needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;

  PERFORM pg_advisory_xact_lock_shared(hashtextextended('hawser:fence:' || p_name, 0));
  -- A statement of its own, so that it sees what was committed while the lock was waited for.
  held := EXISTS (SELECT FROM hawser.peers AS p WHERE p.name = p_name AND p.epoch = p_epoch);
  IF NOT held THEN
    RETURN;
  END IF;

  -- Before the directory, whose readers look here.
  UPDATE hawser.peers AS p
     SET in_group = coalesce(p_in_group, false)
   WHERE p.name = p_name AND p.in_group IS DISTINCT FROM coalesce(p_in_group, false);

  -- One writer at a time: two that take over each other's rows would wait in a circle, and NOTIFY serialises them anyway.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:topic_addr', 0));
  IF p_only THEN
    -- What is overwritten below stays: nobody is told that it went.
    DELETE FROM hawser.topic_addr AS t
     WHERE t.client_name = p_name
       AND NOT EXISTS (SELECT FROM unnest(p_topics) AS s (topic) WHERE s.topic = t.topic AND t.addr = p_addr);
  END IF;
  INSERT INTO hawser.topic_addr AS t (topic, addr, client_name, epoch, max_message_bytes, durable, subscribed)
  SELECT s.topic, p_addr, p_name, p_epoch, p_max_message_bytes, p_durable, s.subscribed
    FROM unnest(p_topics, p_subscribed) AS s (topic, subscribed)
  ON CONFLICT (topic, addr) DO UPDATE
    SET client_name = excluded.client_name,
        epoch = excluded.epoch,
        max_message_bytes = excluded.max_message_bytes,
        durable = excluded.durable,
        subscribed = excluded.subscribed,
        registered_at = now();
END
$function$;
COMMENT ON FUNCTION hawser.enter_directory(text, bigint, text, bigint, boolean, text[], boolean[], boolean, boolean) IS 'Enters a listener into the directory, under all its topics at once, fenced by its epoch. The lock of the directory is
held for this call alone, which must be a transaction of its own.';

CREATE OR REPLACE FUNCTION hawser.leave_directory(
  p_name text,
  p_epoch bigint,
  p_all boolean,
  p_keep_durable boolean,
  p_topics text[],
  OUT held boolean
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
  -- A snapshot from before the wait for the locks would let a late write through.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.leave_directory needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;

  PERFORM pg_advisory_xact_lock_shared(hashtextextended('hawser:fence:' || p_name, 0));
  -- A statement of its own, so that it sees what was committed while the lock was waited for.
  held := EXISTS (SELECT FROM hawser.peers AS p WHERE p.name = p_name AND p.epoch = p_epoch);
  IF NOT held THEN
    RETURN;
  END IF;

  -- As in enter_directory.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:topic_addr', 0));
  IF p_all THEN
    DELETE FROM hawser.topic_addr AS t WHERE t.client_name = p_name AND NOT (p_keep_durable AND t.durable);
    RETURN;
  END IF;
  DELETE FROM hawser.topic_addr AS t WHERE t.client_name = p_name AND t.topic = ANY (p_topics);
  -- After the directory: a sender that remembers the listener at this moment either waits for the deleted row and then
  -- finds none, or was waited for, and its route is deleted here.
  DELETE FROM hawser.sender_listener AS s WHERE s.client_name = p_name AND s.listener_topic = ANY (p_topics);
END
$function$;
COMMENT ON FUNCTION hawser.leave_directory(text, bigint, boolean, boolean, text[]) IS 'Takes a listener out of the directory, fenced by its epoch and locked as enter_directory.';

CREATE OR REPLACE FUNCTION hawser.clear_stored_messages(
  p_name text,
  p_source_topic text,
  OUT deleted bigint
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
  -- A snapshot from before the wait for the fence would not see what the last holder of the name stored last.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.clear_stored_messages needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;

  -- Held to the end, so that nobody takes the name in between; shared, so that two who clear at once do not take each
  -- other for its holder.
  IF NOT pg_try_advisory_xact_lock_shared(hashtextextended('hawser:lease:' || p_name, 0)) THEN
    RAISE EXCEPTION 'the peer "%" is running', p_name
      USING ERRCODE = 'object_in_use', HINT = 'Stop it first.';
  END IF;
  -- As when the name is taken: waits for the writes under way of a holder that has lost its session, and keeps out all
  -- later ones.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:fence:' || p_name, 0));
  UPDATE hawser.peers AS p
     SET epoch = greatest(p.epoch + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint),
         token = NULL
   WHERE p.name = p_name;

  DELETE FROM hawser.sender_listener AS s WHERE s.sender_key = p_name || ':' || p_source_topic;
  -- Dead letters that are retried are not the sender's: for it they were delivered.
  WITH gone AS (
    DELETE FROM hawser.conn_messages AS s
     USING hawser.conn_key_map AS m
     WHERE s.connection_key = m.connection_key
       AND m.sender_name = p_name AND m.source_topic = p_source_topic AND m.retry_of IS NULL
    RETURNING s.messages
  )
  SELECT coalesce(sum(g.messages), 0) INTO deleted FROM gone AS g;
END
$function$;
COMMENT ON FUNCTION hawser.clear_stored_messages(text, text) IS 'Deletes what a sender has stored for others, and its routes, unless a process has its name.';

CREATE OR REPLACE FUNCTION hawser.clear_addresses(
  p_name text,
  p_topic text,
  OUT deleted bigint
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
  -- Held to the end, and shared, as in clear_stored_messages.
  IF NOT pg_try_advisory_xact_lock_shared(hashtextextended('hawser:lease:' || p_name, 0)) THEN
    RAISE EXCEPTION 'the peer "%" is running', p_name
      USING ERRCODE = 'object_in_use', HINT = 'Stop it first.';
  END IF;
  -- As in enter_directory.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:topic_addr', 0));
  DELETE FROM hawser.topic_addr AS t WHERE t.topic = p_topic;
  GET DIAGNOSTICS deleted = ROW_COUNT;
END
$function$;
COMMENT ON FUNCTION hawser.clear_addresses(text, text) IS 'Takes all listeners of a topic out of the directory, for the peer whose source topic it is, unless a process has its
name. Running listeners enter themselves again.';

CREATE OR REPLACE FUNCTION hawser.reassign_channels(
  p_from text,
  p_to text,
  p_force boolean,
  p_all boolean,
  p_connection_keys integer[]
)
RETURNS TABLE (
  connection_key integer,
  composite text,
  stored bigint
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  v_keys integer[];
  v_stored bigint[];
BEGIN
  -- A snapshot from before the wait for the lock would not see what the old listener committed last.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.reassign_channels needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  IF p_from IS NULL OR p_to IS NULL THEN
    RAISE EXCEPTION 'the channels cannot be handed over: the % listener is NULL', CASE WHEN p_from IS NULL THEN 'old' ELSE 'new' END
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Name both listeners.';
  END IF;
  IF starts_with(p_to, '__#') THEN
    RAISE EXCEPTION 'the new listener "%" begins with __#, which is reserved', p_to
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Name another listener.';
  END IF;
  IF p_from = p_to THEN
    RAISE EXCEPTION 'the channels of "%" cannot be handed over to itself', p_from
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Name another listener.';
  END IF;

  -- Held to the end, so that the old listener cannot start in between; shared, so that two who reassign at once do not
  -- take each other for it.
  IF NOT p_force AND NOT pg_try_advisory_xact_lock_shared(hashtextextended('hawser:lease:' || p_from, 0)) THEN
    RAISE EXCEPTION 'the listener "%" is running', p_from
      USING ERRCODE = 'object_in_use', HINT = 'Stop it first, or force it: then it ends with name_lost.';
  END IF;

  -- Exclusive: waits for the old listener's writes under way and keeps out all later ones until its new epoch is there.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:fence:' || p_from, 0));
  -- A statement of its own, so that it sees what was committed while the lock was waited for.
  SELECT array_agg(o.connection_key), array_agg(o.stored)
    INTO v_keys, v_stored
    FROM (
      SELECT m.connection_key,
             (
               SELECT n.counted
                 FROM hawser.count_messages(m.connection_key, coalesce(c.epoch, 0), coalesce(c.v, 0), 2147483647) AS n
             ) AS stored
        FROM hawser.conn_key_map AS m
        LEFT JOIN hawser.conn_mess_number AS c ON c.connection_key = m.connection_key
       WHERE coalesce(m.owner, m.listener_name) = p_from
         AND (p_all OR m.connection_key = ANY (p_connection_keys) OR m.retry_of = ANY (p_connection_keys))
       ORDER BY m.connection_key
    ) AS o;
  IF v_keys IS NULL AND NOT p_all THEN
    RETURN;
  END IF;

  -- A name that was never taken has no row, and no process that could still write for it. The token goes, so that a process
  -- that was taking the name does not believe that this epoch is its own.
  UPDATE hawser.peers AS p
     SET epoch = greatest(p.epoch + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint),
         token = NULL
   WHERE p.name = p_from;
  UPDATE hawser.conn_key_map AS m
     SET owner = nullif(p_to, m.listener_name)
   WHERE m.connection_key = ANY (v_keys);

  -- The peer that registered under the old epoch is gone: nothing new should be stored for it. Rows of operators and
  -- durable listeners go only with everything; what stays is written all the same, so that a listener which still runs
  -- hears of it. Last, because every peer that registers waits for this lock.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:topic_addr', 0));
  DELETE FROM hawser.topic_addr AS t
   WHERE t.client_name = p_from AND (p_all OR (t.epoch > 0 AND NOT t.durable));
  UPDATE hawser.topic_addr AS t SET epoch = 0 WHERE t.client_name = p_from AND t.epoch > 0;

  RETURN QUERY
  SELECT m.connection_key, m.composite, o.stored
    FROM unnest(v_keys, v_stored) AS o (key, stored)
    JOIN hawser.conn_key_map AS m ON m.connection_key = o.key
   ORDER BY m.connection_key;
END
$function$;
COMMENT ON FUNCTION hawser.reassign_channels(text, text, boolean, boolean, integer[]) IS 'Hands channels of one listener over to another: keys, composites, cursors and stored messages stay as they are. The
old listener''s epoch is raised, so that it can commit nothing more, and it leaves the directory.';

CREATE OR REPLACE FUNCTION hawser.give_back_channels(
  p_name text,
  p_epoch bigint,
  p_connection_keys integer[]
)
RETURNS TABLE (
  held boolean,
  connection_key integer,
  composite text,
  listener text
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
  -- A snapshot from before the wait for the lock would not see what was committed last.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.give_back_channels needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;

  -- Exclusive: no write of the member is under way that has seen it as the owner, and no dead letter is retried for it.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:fence:' || p_name, 0));
  -- A statement of its own, so that it sees what was committed while the lock was waited for.
  held := EXISTS (SELECT FROM hawser.peers AS p WHERE p.name = p_name AND p.epoch = p_epoch);
  IF NOT held THEN
    RETURN NEXT;
    RETURN;
  END IF;

  RETURN QUERY
  WITH back AS (
    UPDATE hawser.conn_key_map AS m
       -- A retry channel is nobody's by itself.
       SET owner = CASE WHEN m.retry_of IS NOT NULL THEN h.name END
      FROM (
        SELECT o.connection_key, coalesce(b.listener_name, o.listener_name) AS name
          FROM hawser.conn_key_map AS o
          LEFT JOIN hawser.conn_key_map AS b ON b.connection_key = o.retry_of
         WHERE o.connection_key = ANY (p_connection_keys)
      ) AS h
      JOIN hawser.peers AS p ON p.name = h.name AND p.in_group
     WHERE m.connection_key = h.connection_key AND m.owner = p_name AND h.name <> p_name
       -- It has registered under its present epoch: it was started again since its channels were taken over.
       AND EXISTS (SELECT FROM hawser.topic_addr AS t WHERE t.client_name = h.name AND t.epoch = p.epoch)
    RETURNING m.connection_key, m.composite, h.name
  )
  SELECT true, b.connection_key, b.composite, b.name FROM back AS b ORDER BY b.connection_key;
END
$function$;
COMMENT ON FUNCTION hawser.give_back_channels(text, bigint, integer[]) IS 'Gives channels back to the members of groups that they were made for, as far as those have been started again; fenced by
the epoch of the member that took them over, which has nothing under way in them.';

CREATE OR REPLACE FUNCTION hawser.retry_dead_letters(
  p_ids bigint[]
)
RETURNS TABLE (
  id bigint,
  refused text,
  connection_key integer,
  number bigint,
  owner text,
  function text,
  enqueued boolean
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  -- The owners whose fences are held, shared.
  v_fenced text[] := '{}';
  v_owners text[];
  v_base record;
  v_retry_key integer;
BEGIN
  -- A snapshot from before the wait for a lock would not see who owns the channels now.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.retry_dead_letters needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;

  -- One at a time with all who retry, discard or expire: none finds half of what another takes.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:dead_letters', 0));

  -- A channel's owner may not change until its retry channel is there with the same one: handing channels over
  -- takes the owner's fence exclusively. After each wait the owners are read again.
  LOOP
    v_owners := ARRAY(
      SELECT DISTINCT coalesce(m.owner, m.listener_name)
        FROM hawser.dead_letters AS d
        JOIN hawser.conn_key_map AS m ON m.connection_key = d.connection_key
       WHERE d.id = ANY (p_ids) AND d.origin = 'peer'
      EXCEPT SELECT f.name FROM unnest(v_fenced) AS f (name)
       ORDER BY 1
    );
    EXIT WHEN cardinality(v_owners) = 0;
    FOR i IN 1 .. cardinality(v_owners) LOOP
      PERFORM pg_advisory_xact_lock_shared(hashtextextended('hawser:fence:' || v_owners[i], 0));
    END LOOP;
    v_fenced := v_fenced || v_owners;
  END LOOP;

  -- The retry channels that are missing. A message that failed again has come over the retry channel: it goes back there.
  FOR v_base IN
    SELECT DISTINCT m.connection_key AS key, m.sender_name, m.source_topic, coalesce(m.owner, m.listener_name) AS owner
      FROM hawser.dead_letters AS d
      JOIN hawser.conn_key_map AS m ON m.connection_key = d.connection_key
      JOIN hawser.topic_key AS t ON t.topic = d.topic
     WHERE d.id = ANY (p_ids) AND d.origin = 'peer' AND m.retry_of IS NULL
     ORDER BY m.connection_key
  LOOP
    v_retry_key := (
      SELECT k.connection_key
        FROM hawser.connection_key(v_base.sender_name, v_base.source_topic, '__#retry#' || v_base.key) AS k
    );
    -- A statement of its own: the one that made the row does not see it.
    UPDATE hawser.conn_key_map AS r SET owner = v_base.owner WHERE r.connection_key = v_retry_key AND r.owner IS NULL;
  END LOOP;

  -- One statement, so that each of them is either a dead letter or a stored message. The channels' rows stay locked until
  -- the end: numbers are committed in their order.
  RETURN QUERY
  WITH asked AS MATERIALIZED (
    SELECT d.id, r.connection_key AS retry_key, t.k AS topic_key, coalesce(r.owner, r.listener_name) AS retry_owner,
           CASE
             WHEN m.connection_key IS NULL THEN 'channel'
             WHEN t.k IS NULL THEN 'topic'
           END AS refusal
      FROM hawser.dead_letters AS d
      LEFT JOIN hawser.conn_key_map AS m ON m.connection_key = d.connection_key
      LEFT JOIN hawser.conn_key_map AS r
        ON r.composite = m.sender_name || ':' || m.source_topic || ':__#retry#' || coalesce(m.retry_of, m.connection_key)
      LEFT JOIN hawser.topic_key AS t ON t.topic = d.topic
     WHERE d.id = ANY (p_ids) AND d.origin = 'peer'
  ), gone AS (
    DELETE FROM hawser.dead_letters AS d
     USING asked AS a
     WHERE d.id = a.id AND a.refusal IS NULL
    RETURNING d.id, a.retry_key, a.topic_key, a.retry_owner, d.payload, d.headers,
              d.source || '/' || d.epoch || '/' || d.number AS place
  ), numbered AS (
    UPDATE hawser.conn_key_map AS r
       SET last_retry = r.last_retry + g.count
      FROM (SELECT retry_key, count(*) AS count FROM gone GROUP BY retry_key) AS g
     WHERE r.connection_key = g.retry_key
    RETURNING r.connection_key AS key, r.last_retry - g.count AS before
  ), back AS (
    INSERT INTO hawser.conn_messages AS s (connection_key, epoch, number, topic_key, payload, headers)
    SELECT g.retry_key, 1, n.before + row_number() OVER (PARTITION BY g.retry_key ORDER BY g.id), g.topic_key, g.payload,
           -- It keeps its id, though it has another place from now on, and is wanted whatever its age.
           (
             SELECT jsonb_agg(h.value ORDER BY h.nth)
               FROM (
                 SELECT e.value, e.nth
                   FROM jsonb_array_elements(g.headers) WITH ORDINALITY AS e (value, nth)
                  WHERE e.value ->> 0 <> 'message-expires'
                 UNION ALL
                 SELECT jsonb_build_array('message-id', g.place), 1 + coalesce(jsonb_array_length(g.headers), 0)
                  WHERE NOT EXISTS (
                          SELECT FROM jsonb_array_elements(g.headers) AS e (value)
                           WHERE e.value ->> 0 = 'message-id'
                        )
                    AND coalesce(jsonb_array_length(g.headers), 0) < 256
               ) AS h
           )
      FROM gone AS g
      JOIN numbered AS n ON n.key = g.retry_key
     ORDER BY g.id
  )
  SELECT a.id, a.refusal, g.retry_key,
         n.before + row_number() OVER (PARTITION BY g.retry_key ORDER BY g.id), g.retry_owner, NULL::text, NULL::boolean
    FROM asked AS a
    LEFT JOIN gone AS g ON g.id = a.id
    LEFT JOIN numbered AS n ON n.key = g.retry_key
   WHERE a.refusal IS NOT NULL OR g.id IS NOT NULL
   ORDER BY a.id;

  -- Those of subscriptions stay until the process that leads has handled them.
  RETURN QUERY
  SELECT r.id, CASE WHEN NOT r.requested THEN 'handler' END, NULL::integer, NULL::bigint, NULL::text, r.source, NULL::boolean
    FROM hawser.request_retries(p_ids) AS r;

  RETURN QUERY
  SELECT e.id, NULL::text, NULL::integer, NULL::bigint, NULL::text, NULL::text, true
    FROM hawser.retry_enqueued(p_ids) AS e;
END
$function$;
COMMENT ON FUNCTION hawser.retry_dead_letters(bigint[]) IS 'Makes dead letters of peers'' channels stored messages again, for the present owner of their channel.';

CREATE OR REPLACE FUNCTION hawser.discard_dead_letters(
  p_ids bigint[]
)
RETURNS TABLE (
  id bigint
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
  -- One at a time with all who retry, discard or expire: none finds half of what another takes.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:dead_letters', 0));
  RETURN QUERY
  DELETE FROM hawser.dead_letters AS d WHERE d.id = ANY (p_ids) RETURNING d.id;
END
$function$;
COMMENT ON FUNCTION hawser.discard_dead_letters(bigint[]) IS 'Deletes dead letters.';

CREATE OR REPLACE FUNCTION hawser.expire_dead_letters(
  p_days integer,
  p_max_rows integer,
  OUT deleted integer
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
  -- Not waited for: its holder does the same work, or another peer waits for it. What is left goes the next time.
  IF NOT pg_try_advisory_xact_lock(hashtextextended('hawser:dead_letters', 0)) THEN
    RETURN;
  END IF;
  DELETE FROM hawser.dead_letters AS d
   WHERE d.id = ANY (ARRAY(
     SELECT o.id
       FROM hawser.dead_letters AS o
      WHERE o.created_at < clock_timestamp() - make_interval(days => p_days)
      ORDER BY o.created_at
      LIMIT p_max_rows
   ));
  GET DIAGNOSTICS deleted = ROW_COUNT;
END
$function$;
COMMENT ON FUNCTION hawser.expire_dead_letters(integer, integer) IS 'Deletes the oldest of the dead letters that are older than some days, unless another is at work on dead letters.';

DO $do$
DECLARE
  present CONSTANT oid[] := pg_catalog.string_to_array(pg_catalog.current_setting('hawser.present', true), ',')::oid[];
  statement text;
BEGIN
  FOR statement IN
    WITH made AS (
      SELECT o.* FROM (
        SELECT n.oid, 'SCHEMA hawser' AS object, 'n'::"char" AS type, n.nspowner AS owner, n.nspacl AS acl
        FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'
        UNION ALL
        SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,
          (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner, c.relacl
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl
        FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')
      ) AS o WHERE o.oid <> ALL (coalesce(present, '{}'))
    )
    SELECT pg_catalog.format('REVOKE ALL ON %s FROM %s', m.object,
      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
    FROM made AS m
    CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(m.acl, pg_catalog.acldefault(m.type, m.owner))) AS a
    WHERE a.grantee <> m.owner
    UNION
    -- They can lack rights of the owner, too.
    SELECT pg_catalog.format('GRANT ALL ON %s TO %I', m.object, pg_catalog.pg_get_userbyid(m.owner))
    FROM made AS m WHERE m.acl IS NOT NULL
  LOOP
    EXECUTE statement;
  END LOOP;
END
$do$;

DO $do$
BEGIN
  -- What is new after what follows gets no default privileges: see the block at the end.
  PERFORM pg_catalog.set_config('hawser.present', (
    SELECT coalesce(pg_catalog.string_agg(o.oid::text, ','), '') FROM (
      SELECT n.oid, 'SCHEMA hawser' AS object, 'n'::"char" AS type, n.nspowner AS owner, n.nspacl AS acl
      FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'
      UNION ALL
      SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,
        (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner, c.relacl
      FROM pg_catalog.pg_class AS c
      WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      UNION ALL
      SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl
      FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')
    ) AS o
  ), false);
  IF to_regnamespace('hawser') IS NULL THEN
    CREATE SCHEMA hawser;
  END IF;
END
$do$;

CREATE OR REPLACE FUNCTION hawser.error_codes()
RETURNS TABLE (
  code text,
  wire_code integer,
  sqlstate text,
  exit_status integer,
  retryable boolean,
  summary text,
  remedy text
)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
VALUES
  ('not_running', 1, '55000', 64, false, 'The peer is not running.', 'Call run() first, and send only before stop().'),
  ('already_running', 2, '55006', 64, false, 'The peer is running, and this is possible only while it is not.', 'Call stop() first.'),
  ('self_topic', 3, '22023', 64, false, 'The topic is the peer''s own source topic.', 'Send or subscribe to another topic.'),
  ('internal_topic', 4, '22023', 64, false, 'Topics that begin with __# are reserved.', 'Choose another topic.'),
  ('no_address', 5, '02000', 68, true, 'No listener of the topic has ever been met.', 'Start a listener of the topic, or check the topic''s name.'),
  ('bind_failed', 6, '58000', 71, false, 'The listen address could not be bound.', 'Choose a free address of this machine; port 0 takes a free port.'),
  ('store_failed', 7, '58030', 74, true, 'Postgres refused, or could not be reached.', 'Read the cause; check the connection, the grants and the space on disk.'),
  ('invalid_argument', 8, '22023', 64, false, 'An argument breaks a rule.', 'The message names the argument, its value and the rule.'),
  ('clear_while_running', 9, '55006', 64, false, 'Stored messages and addresses can be cleared only while the peer is not running.', 'Call stop() first.'),
  ('startup_failed', 10, '58000', 69, true, 'The peer could not start.', 'Read the cause; nothing is left behind, so run() may be tried again.'),
  ('busy', 11, '53400', 75, true, 'The send queue for the listener is full.', 'Await earlier sends before sending more, or raise maxSendQueueMessages or maxSendQueueBytes.'),
  ('name_in_use', 12, '55006', 73, true, 'Another process holds the peer''s name.', 'Stop the other process or choose another name; each running peer needs a name of its own.'),
  ('name_lost', 13, '55006', 73, false, 'Another process took over the peer''s name while this one had no contact with Postgres, or its channels were handed over to another peer.', 'End this process; what it had confirmed is safe, and its successor continues.'),
  ('fenced', 14, '55006', 73, false, 'The epoch is older than the one in the catalog.', 'End this process: another one has the name.'),
  ('wrong_peer', 15, '08004', 76, true, 'The address now belongs to another peer, or this peer does not own the channel.', 'Read the catalog again and dial the address found there.'),
  ('unauthenticated', 16, '28000', 77, false, 'The other side did not prove that it knows the mesh secret.', 'Check that both sides use the same database, and that nothing else dials the port.'),
  ('protocol_violation', 17, '08P01', 76, false, 'A frame breaks the protocol: unknown, out of turn, or beyond a limit.', 'The message names the frame and the rule; check the version of the other side.'),
  ('unsupported_version', 18, '0A000', 76, false, 'The two sides have no protocol version in common.', 'Upgrade the older side.'),
  ('handshake_timeout', 19, '08006', 75, true, 'The handshake was not finished in time.', 'Check the network between the two; nothing else should dial the port.'),
  ('connection_lost', 20, '08006', 75, true, 'The connection to the other peer ended.', 'Do nothing: the peer dials again, and unconfirmed messages are stored.'),
  ('plaintext_refused', 21, '28000', 77, false, 'Without TLS only loopback addresses are dialled and accepted.', 'Set tls, use a loopback address, or set allowPlaintext if the network is trusted.'),
  ('schema_too_new', 22, '55000', 78, false, 'The database''s schema is newer than this program knows.', 'Upgrade the program.'),
  ('not_supported', 23, '0A000', 69, false, 'This version cannot do that.', 'The message says what is missing.'),
  ('handler_failed', 24, 'P0001', 70, true, 'The message''s handler threw, took longer than handlerTimeoutMs, or ended the transaction that it was given.', 'Read the cause; after maxAttempts the message is a dead letter.'),
  ('unsubscribed', 25, '02000', 68, false, 'The listener does not subscribe to the message''s topic any more.', 'Subscribe again and retry the dead letter, or discard it.'),
  ('aborted', 26, '57014', 75, false, 'The caller''s signal ended the wait. The message itself may still arrive.', 'Do nothing, if this was intended.'),
  ('dev_server_failed', 27, '58000', 69, true, 'An embedded server could not be fetched or started.', 'Read the cause, or point HAWSER_DATABASE_URL and HAWSER_NATS_URL at running servers.'),
  ('internal', 28, 'XX000', 70, false, 'A defect of Hawser.', 'Please report it with the message and its cause.'),
  ('handler_crashed', 29, 'P0001', 70, false, 'The process, or the session of a transactional handler, ended during the message''s handler, maxAttempts times: the message is a dead letter.', 'Find the cause of the crash, fix it, then retry the dead letter.'),
  ('schema_missing', 30, '3F000', 78, false, 'The database has no schema hawser, or an older one than this program needs, and the role may not make it.', 'Run `hawser init` once as a role that owns the schema, or that has CREATE on the database.'),
  ('tls_failed', 31, '28000', 77, false, 'TLS between two peers could not be established: a certificate is wrong, or is missing.', 'The message says whose certificate and what is wrong with it; connections are tried again automatically.'),
  ('tls_mismatch', 32, '08004', 76, false, 'One peer speaks TLS and the other does not.', 'Give the option tls to all peers of the mesh; until then their at-least-once messages go through Postgres.'),
  ('rotation_refused', 33, '55000', 73, false, 'The mesh secret is not ready for this step of its rotation.', 'Rotate first, then retire the older secret; at most two are valid at a time.'),
  ('output_failed', 34, '58030', 74, false, 'What a command prints could not be written, or what it reads could not be read.', 'Read the cause; for a file check the space on disk and the permissions.'),
  ('gateway_unavailable', 35, '08001', 69, true, 'Postgres could not reach the gateway, or the gateway refused it.', 'Start `hawser serve` for this database, and check that Postgres can reach its address; nothing was sent.'),
  ('outcome_unknown', 36, '08006', 75, false, 'The connection broke after the call had been sent: it may have been carried out or not.', 'Find out whether it was, or repeat it if repeating does no harm.'),
  ('nats_not_configured', 37, '55000', 78, false, 'No NATS server is defined in this database.', 'CREATE SERVER ... FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (...), or SELECT hawser.set_nats_server(''{...}'').'),
  ('nats_unavailable', 38, '08003', 69, true, 'There is no connection to the NATS server; nothing was sent.', 'Start the NATS server, or name another one: SELECT hawser.set_nats_server(''{...}''), or ALTER SERVER. Hawser keeps dialling.'),
  ('nats_unauthorized', 39, '28000', 77, false, 'The NATS server refused the credentials, or its certificate or ours was refused.', 'Correct what was refused, in the options of the NATS server or on the server. Hawser keeps dialling.'),
  ('nats_timeout', 40, 'NA001', 75, true, 'NATS did not answer in time.', 'Use a longer timeout, or check the service that should have answered.'),
  ('no_responders', 41, 'NA002', 69, true, 'No responder answers requests to this subject.', 'Start the responder, or check the subject.'),
  ('no_stream', 42, 'NA003', 69, false, 'No JetStream stream takes messages of this subject.', 'Make a stream whose subjects include it, check the domain, or publish by a function without _stream or _ack in its name.'),
  ('jetstream_unavailable', 43, 'NA004', 69, true, 'The server or the domain has no JetStream, or it does not answer.', 'Turn JetStream on, check the domain, or use functions that do not need it.'),
  ('payload_too_large', 44, 'NA005', 65, false, 'The message is larger than its receiver allows: the NATS server, or the other peer of a request.', 'Send less, put it into the object store, or raise the limit: max_payload of the NATS server, maxMessageBytes of the peer.'),
  ('nats_permission_denied', 45, '42501', 77, false, 'The NATS server does not permit the user of this connection to do that.', 'Grant the permission in the NATS server''s configuration.'),
  ('nats_failed', 46, 'NA000', 70, false, 'NATS refused the operation.', 'The message has the server''s text and its error code.'),
  ('file_missing', 47, '58P01', 66, false, 'The object store has no such file.', 'Check store, name and domain; nats_get_file_list lists the files.'),
  ('null_argument', 48, '22004', 64, false, 'An argument is NULL where a value is needed.', 'The message names the argument; give it a value.'),
  ('not_text', 49, '22021', 65, false, 'A value is not text: it is not UTF-8, or holds NUL.', 'Read it with the _binary function.'),
  ('not_json', 50, '22P02', 65, false, 'A value is not JSON, or jsonb cannot hold it.', 'Read it with the _text or _binary function.'),
  ('gateway_busy', 51, '53300', 75, true, 'The call got no turn within half of its time limit, because too many others are under way; nothing was sent.', 'Try again, or raise the option capacity of the server.'),
  ('gateway_limit', 52, '54000', 65, false, 'A request or an answer is larger than the gateway allows.', 'Split it, or raise the limit of `hawser serve` that the message names.'),
  ('server_uncommitted', 53, '25001', 64, false, 'The options of the server were changed in this transaction, and the gateway sees that only after COMMIT.', 'COMMIT first, then reload.'),
  ('native_extension', 54, '42710', 78, false, 'The native extension is installed in this database, and its functions have the same names.', 'Use another database, or DROP EXTENSION first.'),
  ('dblink_shared', 55, '42939', 78, false, 'dblink is in a schema that others may use, and with it they could take over the gateway''s connection of their session.', 'Move it: ALTER EXTENSION dblink SET SCHEMA hawser_dblink, or accept the risk with --shared-dblink.'),
  ('secret_file', 56, '58030', 78, true, 'A file that the options of the server name cannot be read, or is not allowed.', 'Put a file that keeps the rule below a --secrets-dir of `hawser serve`, or name another one in the option.'),
  ('gateway_protocol', 57, '08P01', 76, false, 'A call does not have the form that the generated functions give it.', 'Run `hawser init`, so that the functions are those of this version.'),
  ('name_occupied', 58, '42710', 78, false, 'A name that the installation needs belongs to something else in the database, or something that is to be removed is still in use.', 'The message names it and says what to rename or drop.'),
  ('replica', 59, '25006', 69, false, 'This Postgres is a replica, or the transaction is read-only: subscriptions are changed on the primary.', 'Do it on the primary; the replica then has it, too.'),
  ('function_signature', 60, '42883', 64, false, 'The function that is to be subscribed, or to answer, has arguments or a result that are not accepted, or is no plain function.', 'Give it one of the signatures that the message lists.'),
  ('not_permitted', 61, '42501', 77, false, 'The role may not do that in this database.', 'The message names the missing privilege, and the role that can grant it.'),
  ('executor_login', 63, '28000', 77, true, 'The login that runs subscribed functions is missing, cannot connect, reaches another database, or may do more than it should.', 'Run `hawser init` as a role that may make roles, or name a login with --executor-url.'),
  ('session_lost', 64, '57P01', 70, false, 'The database session ended twice while the function ran for this message alone.', 'Repair the function, then run `hawser dead retry`.'),
  ('unreadable_headers', 65, 'NA006', 65, false, 'A NATS message has headers that cannot be read.', 'The message says why; repair the program that publishes it, or answers with it.'),
  ('subscription_limit', 66, '54000', 65, false, 'A role has as many subscriptions as one may have.', 'Unsubscribe what is not needed, subscribe to fewer subjects with wildcards, or raise the option max_role_subscriptions of the server.'),
  ('transaction_pooler', 67, '0A000', 78, false, 'A transaction pooler stands before Postgres, where a session is needed.', 'Name the server of Postgres itself; the SQL functions may still be called through the pooler.'),
  ('key_exists', 68, '23505', 65, false, 'The key of a key-value bucket that was to be created has a value.', 'Read it, and write the new value by its revision; or overwrite it with put.'),
  ('wrong_revision', 69, 'NA007', 65, false, 'The key of a key-value bucket has another revision than the one that was to be replaced.', 'Another writer was faster: read value and revision again with nats_kv_history, and decide again.'),
  ('request_timeout', 70, '57014', 75, true, 'A request was not answered in time; it may have been carried out or not.', 'Give it more time with timeoutMs, or find out why the listener is slow.'),
  ('listener_lost', 71, '08006', 75, true, 'The connection to the listener ended before it had answered a request; it may have been carried out or not.', 'Request again if carrying it out twice does no harm; with idempotent: true that is done for you.'),
  ('unreachable', 72, '08001', 69, true, 'No listener of the topic takes requests now; nothing was carried out.', 'Start a listener of the topic with a handler, or try again when one is back.'),
  ('rejected', 73, 'P0001', 65, false, 'The handler has rejected the message for good: it threw a Reject.', 'Read the reason; correct the message, or the handler, before it is sent or tried again.'),
  ('expired', 74, '57014', 75, false, 'The time to live of the message had passed before a handler began with it.', 'Do nothing if it has lost its meaning; else send it again, with a longer ttlMs.'),
  ('invalid_schema', 80, '22023', 78, false, 'The topic or a rule in the schema of a typed message cannot be used.', 'The message names the schema, the option and the reason; repair the .proto file.'),
  ('invalid_message', 81, '22P02', 65, false, 'A typed message that came cannot be decoded, or breaks a rule of its schema.', 'The message names the field, its value and the rule; repair the program that published it.')
$function$;
COMMENT ON FUNCTION hawser.error_codes() IS 'Every error of Hawser.';

CREATE OR REPLACE FUNCTION hawser.error_sqlstate(p_code text)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
SELECT CASE p_code
  WHEN 'not_running' THEN '55000'
  WHEN 'already_running' THEN '55006'
  WHEN 'self_topic' THEN '22023'
  WHEN 'internal_topic' THEN '22023'
  WHEN 'no_address' THEN '02000'
  WHEN 'bind_failed' THEN '58000'
  WHEN 'store_failed' THEN '58030'
  WHEN 'invalid_argument' THEN '22023'
  WHEN 'clear_while_running' THEN '55006'
  WHEN 'startup_failed' THEN '58000'
  WHEN 'busy' THEN '53400'
  WHEN 'name_in_use' THEN '55006'
  WHEN 'name_lost' THEN '55006'
  WHEN 'fenced' THEN '55006'
  WHEN 'wrong_peer' THEN '08004'
  WHEN 'unauthenticated' THEN '28000'
  WHEN 'protocol_violation' THEN '08P01'
  WHEN 'unsupported_version' THEN '0A000'
  WHEN 'handshake_timeout' THEN '08006'
  WHEN 'connection_lost' THEN '08006'
  WHEN 'plaintext_refused' THEN '28000'
  WHEN 'schema_too_new' THEN '55000'
  WHEN 'not_supported' THEN '0A000'
  WHEN 'handler_failed' THEN 'P0001'
  WHEN 'unsubscribed' THEN '02000'
  WHEN 'aborted' THEN '57014'
  WHEN 'dev_server_failed' THEN '58000'
  WHEN 'internal' THEN 'XX000'
  WHEN 'handler_crashed' THEN 'P0001'
  WHEN 'schema_missing' THEN '3F000'
  WHEN 'tls_failed' THEN '28000'
  WHEN 'tls_mismatch' THEN '08004'
  WHEN 'rotation_refused' THEN '55000'
  WHEN 'output_failed' THEN '58030'
  WHEN 'gateway_unavailable' THEN '08001'
  WHEN 'outcome_unknown' THEN '08006'
  WHEN 'nats_not_configured' THEN '55000'
  WHEN 'nats_unavailable' THEN '08003'
  WHEN 'nats_unauthorized' THEN '28000'
  WHEN 'nats_timeout' THEN 'NA001'
  WHEN 'no_responders' THEN 'NA002'
  WHEN 'no_stream' THEN 'NA003'
  WHEN 'jetstream_unavailable' THEN 'NA004'
  WHEN 'payload_too_large' THEN 'NA005'
  WHEN 'nats_permission_denied' THEN '42501'
  WHEN 'nats_failed' THEN 'NA000'
  WHEN 'file_missing' THEN '58P01'
  WHEN 'null_argument' THEN '22004'
  WHEN 'not_text' THEN '22021'
  WHEN 'not_json' THEN '22P02'
  WHEN 'gateway_busy' THEN '53300'
  WHEN 'gateway_limit' THEN '54000'
  WHEN 'server_uncommitted' THEN '25001'
  WHEN 'native_extension' THEN '42710'
  WHEN 'dblink_shared' THEN '42939'
  WHEN 'secret_file' THEN '58030'
  WHEN 'gateway_protocol' THEN '08P01'
  WHEN 'name_occupied' THEN '42710'
  WHEN 'replica' THEN '25006'
  WHEN 'function_signature' THEN '42883'
  WHEN 'not_permitted' THEN '42501'
  WHEN 'executor_login' THEN '28000'
  WHEN 'session_lost' THEN '57P01'
  WHEN 'unreadable_headers' THEN 'NA006'
  WHEN 'subscription_limit' THEN '54000'
  WHEN 'transaction_pooler' THEN '0A000'
  WHEN 'key_exists' THEN '23505'
  WHEN 'wrong_revision' THEN 'NA007'
  WHEN 'request_timeout' THEN '57014'
  WHEN 'listener_lost' THEN '08006'
  WHEN 'unreachable' THEN '08001'
  WHEN 'rejected' THEN 'P0001'
  WHEN 'expired' THEN '57014'
  WHEN 'invalid_schema' THEN '22023'
  WHEN 'invalid_message' THEN '22P02'
END
$function$;
COMMENT ON FUNCTION hawser.error_sqlstate(text) IS 'The SQLSTATE of an error code; NULL for an unknown one.';

DO $do$
DECLARE
  present CONSTANT oid[] := pg_catalog.string_to_array(pg_catalog.current_setting('hawser.present', true), ',')::oid[];
  statement text;
BEGIN
  FOR statement IN
    WITH made AS (
      SELECT o.* FROM (
        SELECT n.oid, 'SCHEMA hawser' AS object, 'n'::"char" AS type, n.nspowner AS owner, n.nspacl AS acl
        FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'
        UNION ALL
        SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,
          (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner, c.relacl
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl
        FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')
      ) AS o WHERE o.oid <> ALL (coalesce(present, '{}'))
    )
    SELECT pg_catalog.format('REVOKE ALL ON %s FROM %s', m.object,
      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
    FROM made AS m
    CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(m.acl, pg_catalog.acldefault(m.type, m.owner))) AS a
    WHERE a.grantee <> m.owner
    UNION
    -- They can lack rights of the owner, too.
    SELECT pg_catalog.format('GRANT ALL ON %s TO %I', m.object, pg_catalog.pg_get_userbyid(m.owner))
    FROM made AS m WHERE m.acl IS NOT NULL
  LOOP
    EXECUTE statement;
  END LOOP;
END
$do$;

DO $do$
BEGIN
  -- What is new after what follows gets no default privileges: see the block at the end.
  PERFORM pg_catalog.set_config('hawser.present', (
    SELECT coalesce(pg_catalog.string_agg(o.oid::text, ','), '') FROM (
      SELECT n.oid, 'SCHEMA hawser' AS object, 'n'::"char" AS type, n.nspowner AS owner, n.nspacl AS acl
      FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'
      UNION ALL
      SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,
        (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner, c.relacl
      FROM pg_catalog.pg_class AS c
      WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      UNION ALL
      SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl
      FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')
    ) AS o
  ), false);
  IF to_regnamespace('hawser') IS NULL THEN
    CREATE SCHEMA hawser;
  END IF;
END
$do$;

CREATE OR REPLACE FUNCTION hawser.nats_option_integer(
  value jsonb
)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  parts text[];
  number numeric;
BEGIN
  IF jsonb_typeof(value) = 'number' THEN
    number := value::numeric;
    IF number <> trunc(number) THEN
      RETURN 'null';
    END IF;
  ELSE
    parts := CASE jsonb_typeof(value) WHEN 'string' THEN regexp_match(value #>> '{}', E'^[\\u0009-\\u000d\\u0020]*([+-]?)0*([0-9]+)[\\u0009-\\u000d\\u0020]*$') END;
    IF parts IS NULL THEN
      RETURN 'null';
    END IF;
    -- No text of digits is too long: beyond 15 of them the number only counts as far outside every range.
    number := CASE WHEN char_length(parts[2]) > 15 THEN 9007199254740991 ELSE parts[2]::numeric END;
    IF parts[1] = '-' THEN
      number := -number;
    END IF;
  END IF;
  RETURN to_jsonb(trunc(greatest(least(number, 9007199254740991), -9007199254740991)));
END
$function$;
COMMENT ON FUNCTION hawser.nats_option_integer(jsonb) IS 'The value of an integer option as a JSON number, or JSON null if it is not a whole number.';

CREATE OR REPLACE FUNCTION hawser.nats_option_boolean(
  value jsonb
)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  spelling text := value #>> '{}';
BEGIN
  IF jsonb_typeof(value) = 'boolean' THEN
    RETURN value;
  ELSIF jsonb_typeof(value) <> 'string' THEN
    RETURN 'null';
  ELSIF spelling ~ E'^[\\u0009-\\u000d\\u0020]*(?:[tT](?:[rR](?:[uU](?:[eE])?)?)?|[yY](?:[eE](?:[sS])?)?|[oO][nN]|1)[\\u0009-\\u000d\\u0020]*$' THEN
    RETURN 'true';
  ELSIF spelling ~ E'^[\\u0009-\\u000d\\u0020]*(?:[fF](?:[aA](?:[lL](?:[sS](?:[eE])?)?)?)?|[nN](?:[oO])?|[oO][fF](?:[fF])?|0)[\\u0009-\\u000d\\u0020]*$' THEN
    RETURN 'false';
  END IF;
  RETURN 'null';
END
$function$;
COMMENT ON FUNCTION hawser.nats_option_boolean(jsonb) IS 'The value of a boolean option as a JSON boolean, or JSON null if it is not one. Spellings as Postgres takes them.';

CREATE OR REPLACE FUNCTION hawser.nats_option_text(
  value jsonb
)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  RETURN CASE jsonb_typeof(value) WHEN 'string' THEN value ELSE 'null' END;
END
$function$;
COMMENT ON FUNCTION hawser.nats_option_text(jsonb) IS 'The value of a text option as it is, or JSON null if it is not a JSON string.';

CREATE OR REPLACE FUNCTION hawser.nats_option_quoted(
  value text
)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  RETURN to_json(CASE WHEN char_length(value) > 60 THEN left(value, 60) || '...' ELSE value END)::text;
END
$function$;
COMMENT ON FUNCTION hawser.nats_option_quoted(text) IS 'A text for a message: as JSON quotes it, cut to 60 characters.';

CREATE OR REPLACE FUNCTION hawser.nats_option_shown(
  value jsonb
)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  CASE jsonb_typeof(value)
    WHEN 'string' THEN
      -- Someone may have written user and password into an address.
      IF strpos(value #>> '{}', '@') > 0 THEN
        RETURN 'Its value is not shown.';
      END IF;
      RETURN 'Its value is ' || hawser.nats_option_quoted(value #>> '{}') || '.';
    WHEN 'number' THEN
      -- What JavaScript and Postgres make of a number's last digits may differ beyond this.
      IF abs(value::numeric) > 9007199254740991 THEN
        RETURN 'Its value has more than 15 digits.';
      ELSIF value::numeric <> trunc(value::numeric) THEN
        RETURN 'Its value is a fraction.';
      END IF;
      RETURN 'Its value is ' || trunc(value::numeric) || '.';
    WHEN 'boolean' THEN
      RETURN 'Its value is ' || value::text || '.';
    ELSE
      RETURN 'Its value is null, a list or an object.';
  END CASE;
END
$function$;
COMMENT ON FUNCTION hawser.nats_option_shown(jsonb) IS 'The detail of a violation that shows a value. Only for options whose values are no secrets.';

CREATE OR REPLACE FUNCTION hawser.nats_server_options_typed(
  options jsonb
)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  integers CONSTANT text[] := ARRAY[
    'port',
    'capacity',
    'replicas',
    'max_role_subscriptions',
    'responder_timeout_ms'
  ];
  booleans CONSTANT text[] := ARRAY[
    'tls_insecure'
  ];
  texts CONSTANT text[] := ARRAY[
    'host',
    'tls_ca_path',
    'tls_cert_path',
    'tls_key_path',
    'domain',
    'creds_path',
    'username',
    'password_path',
    'password',
    'nkey_seed_path',
    'nkey_seed',
    'token_path',
    'token',
    'notify_subject',
    'patroni_url'
  ];
BEGIN
  RETURN (
    SELECT coalesce(jsonb_object_agg(name, typed), '{}')
    FROM jsonb_each(options) AS option (name, value),
      LATERAL (SELECT CASE
        WHEN name = ANY (integers) THEN hawser.nats_option_integer(value)
        WHEN name = ANY (booleans) THEN hawser.nats_option_boolean(value)
        WHEN name = ANY (texts) THEN hawser.nats_option_text(value)
      END AS typed) AS coerced
    WHERE typed IS NOT NULL
  );
END
$function$;
COMMENT ON FUNCTION hawser.nats_server_options_typed(jsonb) IS 'The known options in their own types, with JSON null where a value has another type. Checks nothing else.';

CREATE OR REPLACE FUNCTION hawser.nats_option_suggestion(
  name text,
  known text[]
)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  -- Only A to Z are lowered: what lies beyond, JavaScript lowers differently.
  mistyped CONSTANT text[] := string_to_array(
    translate(name, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz'), NULL);
  mistyped_length CONSTANT integer := char_length(name);
  candidate text;
  letters text[];
  letter_count integer;
  before_last integer[];
  last integer[];
  row_now integer[];
  steps integer;
  best text;
  best_distance integer;
BEGIN
  IF mistyped_length > 63 THEN
    RETURN NULL;
  END IF;
  FOREACH candidate IN ARRAY known LOOP
    letters := string_to_array(candidate, NULL);
    letter_count := char_length(candidate);
    -- last[j + 1] is the distance from what was read of the mistyped name to the first j letters.
    before_last := NULL;
    last := ARRAY(SELECT generate_series(0, letter_count));
    FOR i IN 1 .. mistyped_length LOOP
      row_now := ARRAY[i];
      FOR j IN 1 .. letter_count LOOP
        steps := least(
          last[j + 1] + 1,
          row_now[j] + 1,
          last[j] + CASE WHEN mistyped[i] = letters[j] THEN 0 ELSE 1 END);
        IF i > 1 AND j > 1 AND mistyped[i] = letters[j - 1] AND mistyped[i - 1] = letters[j] THEN
          steps := least(steps, before_last[j - 1] + 1);
        END IF;
        row_now[j + 1] := steps;
      END LOOP;
      before_last := last;
      last := row_now;
    END LOOP;
    IF last[letter_count + 1] <= greatest(1, letter_count * 2 / 5)
      AND (best_distance IS NULL OR last[letter_count + 1] < best_distance)
    THEN
      best := candidate;
      best_distance := last[letter_count + 1];
    END IF;
  END LOOP;
  RETURN best;
END
$function$;
COMMENT ON FUNCTION hawser.nats_option_suggestion(text, text[]) IS 'The known name that a mistyped one probably meant: the one with the fewest changed, missing, added or swapped characters, at most two fifths of its length; null if none is close.';

CREATE OR REPLACE FUNCTION hawser.nats_server_options_violation(
  options jsonb,
  part text DEFAULT 'whole',
  OUT option_name text,
  OUT sqlstate text,
  OUT message text,
  OUT detail text,
  OUT hint text
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  known CONSTANT text[] := ARRAY[
    'host',
    'port',
    'capacity',
    'tls_ca_path',
    'tls_cert_path',
    'tls_key_path',
    'tls_insecure',
    'domain',
    'creds_path',
    'username',
    'password_path',
    'password',
    'nkey_seed_path',
    'nkey_seed',
    'token_path',
    'token',
    'notify_subject',
    'patroni_url',
    'replicas',
    'max_role_subscriptions',
    'responder_timeout_ms'
  ];
  in_user_mapping CONSTANT text[] := ARRAY[
    'creds_path',
    'username',
    'password_path',
    'password',
    'nkey_seed_path',
    'nkey_seed',
    'token_path',
    'token'
  ];
  -- Their values are never shown.
  hidden CONSTANT text[] := ARRAY[
    'tls_ca_path',
    'tls_cert_path',
    'tls_key_path',
    'creds_path',
    'username',
    'password_path',
    'password',
    'nkey_seed_path',
    'nkey_seed',
    'token_path',
    'token'
  ];
  allowed text[];
  typed jsonb;
  violated text[];
BEGIN
  allowed := CASE part
    WHEN 'whole' THEN known
    WHEN 'server' THEN known
    WHEN 'user_mapping' THEN in_user_mapping
    WHEN 'none' THEN '{}'
  END;
  IF allowed IS NULL THEN
    RAISE EXCEPTION 'the part must be whole, server, user_mapping or none' USING ERRCODE = '22023';
  END IF;
  IF jsonb_typeof(options) IS DISTINCT FROM 'object' THEN
    sqlstate := 'HV024';
    message := 'the options must be a JSON object';
    detail := 'The options are: ' || array_to_string(known, ', ') || '.';
    hint := 'Write them as {"name": value, ...}.';
    RETURN;
  END IF;

  SELECT name INTO option_name
  FROM jsonb_object_keys(options) AS name
  WHERE name <> ALL (allowed)
  ORDER BY name COLLATE "C"
  LIMIT 1;
  IF option_name IS NOT NULL THEN
    sqlstate := 'HV00D';
    IF part = 'none' THEN
      message := 'option ' || hawser.nats_option_quoted(option_name) || ' is not allowed here';
      detail := 'Only the foreign server and its user mappings have options.';
      hint := 'Use CREATE SERVER or ALTER SERVER.';
    ELSIF option_name = ANY (known) THEN
      message := 'option ' || hawser.nats_option_quoted(option_name) || ' is not allowed in a user mapping';
      detail := 'The options are: ' || array_to_string(allowed, ', ') || '.';
      hint := 'Use ALTER SERVER: it belongs to the server.';
    ELSE
      message := 'unknown option ' || hawser.nats_option_quoted(option_name);
      detail := 'The options are: ' || array_to_string(allowed, ', ') || '.';
      hint := coalesce(
        'Did you mean "' || hawser.nats_option_suggestion(option_name, allowed) || '"?',
        'Use one of the options, or drop it.');
    END IF;
    RETURN;
  END IF;

  typed := hawser.nats_server_options_typed(options);
  -- The option, the SQLSTATE, the message and the hint; behind them the options that a rule over several looks at.
  -- A condition is null, which is not true, where its option is not set.
  violated := CASE
    WHEN typed -> 'host' = 'null' THEN
      ARRAY['host', 'HV024', 'option "host" must be text', 'Give the bare names or addresses, such as host ''nats.example.com'', host ''::1'' or host ''n1,n2:4223,[::1]:4224''; option port is for those without their own.']
    WHEN typed -> 'port' = 'null' THEN
      ARRAY['port', 'HV024', 'option "port" must be an integer from 1 to 65535', 'Give the port in decimal digits, such as port ''4222''.']
    WHEN typed -> 'capacity' = 'null' THEN
      ARRAY['capacity', 'HV024', 'option "capacity" must be an integer from 1 to 1048576', 'Give the number of commands in decimal digits, such as capacity ''128''.']
    WHEN typed -> 'tls_ca_path' = 'null' THEN
      ARRAY['tls_ca_path', 'HV024', 'option "tls_ca_path" must be text', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-ca.pem''.']
    WHEN typed -> 'tls_cert_path' = 'null' THEN
      ARRAY['tls_cert_path', 'HV024', 'option "tls_cert_path" must be text', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-cert.pem''.']
    WHEN typed -> 'tls_key_path' = 'null' THEN
      ARRAY['tls_key_path', 'HV024', 'option "tls_key_path" must be text', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-key.pem''.']
    WHEN typed -> 'tls_insecure' = 'null' THEN
      ARRAY['tls_insecure', 'HV024', 'option "tls_insecure" must be a boolean', 'Write tls_insecure ''true'' or tls_insecure ''false''.']
    WHEN typed -> 'domain' = 'null' THEN
      ARRAY['domain', 'HV024', 'option "domain" must be text', 'Give the domain as the NATS server''s configuration names it, such as domain ''hub''.']
    WHEN typed -> 'creds_path' = 'null' THEN
      ARRAY['creds_path', 'HV024', 'option "creds_path" must be text', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats.creds''.']
    WHEN typed -> 'username' = 'null' THEN
      ARRAY['username', 'HV024', 'option "username" must be text', 'Give the user name as text; username '''' is allowed.']
    WHEN typed -> 'password_path' = 'null' THEN
      ARRAY['password_path', 'HV024', 'option "password_path" must be text', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-password''.']
    WHEN typed -> 'password' = 'null' THEN
      ARRAY['password', 'HV024', 'option "password" must be text', 'Give the password as text, or name its file in password_path.']
    WHEN typed -> 'nkey_seed_path' = 'null' THEN
      ARRAY['nkey_seed_path', 'HV024', 'option "nkey_seed_path" must be text', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-nkey''; the seed itself goes into nkey_seed.']
    WHEN typed -> 'nkey_seed' = 'null' THEN
      ARRAY['nkey_seed', 'HV024', 'option "nkey_seed" must be text', 'Give the whole seed as nk or nsc printed it, without spaces; it begins with SU.']
    WHEN typed -> 'token_path' = 'null' THEN
      ARRAY['token_path', 'HV024', 'option "token_path" must be text', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-token''; the token itself goes into token.']
    WHEN typed -> 'token' = 'null' THEN
      ARRAY['token', 'HV024', 'option "token" must be text', 'Give the token as text, or name its file in token_path.']
    WHEN typed -> 'notify_subject' = 'null' THEN
      ARRAY['notify_subject', 'HV024', 'option "notify_subject" must be text', 'Give a complete subject without wildcards, such as notify_subject ''postgres.role''.']
    WHEN typed -> 'patroni_url' = 'null' THEN
      ARRAY['patroni_url', 'HV024', 'option "patroni_url" must be text', 'Give the whole address, such as patroni_url ''http://localhost:8008/patroni''.']
    WHEN typed -> 'replicas' = 'null' THEN
      ARRAY['replicas', 'HV024', 'option "replicas" must be an integer from 1 to 5', 'Give the number of servers in decimal digits, such as replicas ''3''; more than 1 takes a cluster with JetStream.']
    WHEN typed -> 'max_role_subscriptions' = 'null' THEN
      ARRAY['max_role_subscriptions', 'HV024', 'option "max_role_subscriptions" must be an integer from 1 to 1000000', 'Give the number of subscriptions in decimal digits, such as max_role_subscriptions ''1000''.']
    WHEN typed -> 'responder_timeout_ms' = 'null' THEN
      ARRAY['responder_timeout_ms', 'HV024', 'option "responder_timeout_ms" must be an integer from 1 to 86400000', 'Give the milliseconds in decimal digits, such as responder_timeout_ms ''5000''.']
    WHEN part IN ('whole', 'server') AND typed ? 'tls_cert_path' AND NOT (typed ? 'tls_key_path') THEN
      ARRAY['tls_key_path', 'HV002', 'option "tls_key_path" is missing: tls_cert_path needs it', 'Add tls_key_path, or drop tls_cert_path.', 'tls_cert_path', 'tls_key_path']
    WHEN part IN ('whole', 'server') AND typed ? 'tls_key_path' AND NOT (typed ? 'tls_cert_path') THEN
      ARRAY['tls_cert_path', 'HV002', 'option "tls_cert_path" is missing: tls_key_path needs it', 'Add tls_cert_path, or drop tls_key_path.', 'tls_cert_path', 'tls_key_path']
    WHEN part IN ('whole', 'server') AND typed ? 'tls_ca_path' AND typed ? 'tls_insecure' AND coalesce(typed -> 'tls_insecure' = 'true'::jsonb, true) THEN
      ARRAY['tls_insecure', 'HV024', 'option "tls_insecure" may not be true beside option "tls_ca_path"', 'Keep tls_ca_path to check the server''s certificate, or tls_insecure ''true'' to accept any certificate; drop the other.', 'tls_ca_path', 'tls_insecure']
    WHEN part IN ('whole', 'server') AND (typed ? 'tls_cert_path' OR typed ? 'tls_key_path') AND NOT (typed ? 'tls_ca_path') AND (NOT (typed ? 'tls_insecure') OR NOT (coalesce(typed -> 'tls_insecure' = 'true'::jsonb, true))) THEN
      ARRAY['tls_ca_path', 'HV002', 'option "tls_ca_path" is missing: a client certificate is used only where TLS is on', 'Add tls_ca_path with the CA file, or, for development, tls_insecure ''true''.', 'tls_ca_path', 'tls_cert_path', 'tls_key_path', 'tls_insecure']
    WHEN part IN ('whole', 'server') AND (typed ? 'password' OR typed ? 'password_path') AND NOT (typed ? 'username') THEN
      ARRAY['username', 'HV002', 'option "username" is missing: a password needs a user name beside it', 'Add the user name, or username '''' where the password is an access token.', 'username', 'password_path', 'password']
    WHEN part = 'whole' AND typed ? 'username' AND NOT (typed ? 'password') AND NOT (typed ? 'password_path') THEN
      ARRAY['password', 'HV002', 'option "password" is missing: a user name needs password or password_path', 'Add password_path or password, best in CREATE USER MAPPING for the role of hawser serve, or drop username.', 'username', 'password_path', 'password']
    WHEN char_length(typed ->> 'host') < 1 THEN
      ARRAY['host', 'HV024', 'option "host" must not be empty', 'Give the bare names or addresses, such as host ''nats.example.com'', host ''::1'' or host ''n1,n2:4223,[::1]:4224''; option port is for those without their own.']
    WHEN char_length(typed ->> 'host') > 2048 THEN
      ARRAY['host', 'HV024', 'option "host" must have at most 2048 characters', 'Give the bare names or addresses, such as host ''nats.example.com'', host ''::1'' or host ''n1,n2:4223,[::1]:4224''; option port is for those without their own.']
    WHEN typed ->> 'host' !~ E'^(?:(?:[0-9A-Za-z_-]+(?:\\.[0-9A-Za-z_-]+)*\\.?|\\[[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[0-9A-Za-z._-]+)?\\])(?::(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}))?|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[0-9A-Za-z._-]+)?)(?:,(?:(?:[0-9A-Za-z_-]+(?:\\.[0-9A-Za-z_-]+)*\\.?|\\[[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[0-9A-Za-z._-]+)?\\])(?::(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}))?|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[0-9A-Za-z._-]+)?))*$' THEN
      ARRAY['host', 'HV024', 'option "host" must be host names or IP addresses, separated by commas without spaces, each with :port if it has its own (an IPv6 address then in brackets), without scheme', 'Give the bare names or addresses, such as host ''nats.example.com'', host ''::1'' or host ''n1,n2:4223,[::1]:4224''; option port is for those without their own.']
    WHEN (typed ->> 'port')::numeric < 1 THEN
      ARRAY['port', 'HV024', 'option "port" must be an integer from 1 to 65535', 'Give the port in decimal digits, such as port ''4222''.']
    WHEN (typed ->> 'port')::numeric > 65535 THEN
      ARRAY['port', 'HV024', 'option "port" must be an integer from 1 to 65535', 'Give the port in decimal digits, such as port ''4222''.']
    WHEN (typed ->> 'capacity')::numeric < 1 THEN
      ARRAY['capacity', 'HV024', 'option "capacity" must be an integer from 1 to 1048576', 'Give the number of commands in decimal digits, such as capacity ''128''.']
    WHEN (typed ->> 'capacity')::numeric > 1048576 THEN
      ARRAY['capacity', 'HV024', 'option "capacity" must be an integer from 1 to 1048576', 'Give the number of commands in decimal digits, such as capacity ''128''.']
    WHEN char_length(typed ->> 'tls_ca_path') < 1 THEN
      ARRAY['tls_ca_path', 'HV024', 'option "tls_ca_path" must not be empty', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-ca.pem''.']
    WHEN char_length(typed ->> 'tls_ca_path') > 4095 THEN
      ARRAY['tls_ca_path', 'HV024', 'option "tls_ca_path" must have at most 4095 characters', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-ca.pem''.']
    WHEN typed ->> 'tls_ca_path' !~ E'^/[^\\u0001-\\u001f\\u007f]*$' THEN
      ARRAY['tls_ca_path', 'HV024', 'option "tls_ca_path" must be an absolute path', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-ca.pem''.']
    WHEN char_length(typed ->> 'tls_cert_path') < 1 THEN
      ARRAY['tls_cert_path', 'HV024', 'option "tls_cert_path" must not be empty', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-cert.pem''.']
    WHEN char_length(typed ->> 'tls_cert_path') > 4095 THEN
      ARRAY['tls_cert_path', 'HV024', 'option "tls_cert_path" must have at most 4095 characters', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-cert.pem''.']
    WHEN typed ->> 'tls_cert_path' !~ E'^/[^\\u0001-\\u001f\\u007f]*$' THEN
      ARRAY['tls_cert_path', 'HV024', 'option "tls_cert_path" must be an absolute path', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-cert.pem''.']
    WHEN char_length(typed ->> 'tls_key_path') < 1 THEN
      ARRAY['tls_key_path', 'HV024', 'option "tls_key_path" must not be empty', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-key.pem''.']
    WHEN char_length(typed ->> 'tls_key_path') > 4095 THEN
      ARRAY['tls_key_path', 'HV024', 'option "tls_key_path" must have at most 4095 characters', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-key.pem''.']
    WHEN typed ->> 'tls_key_path' !~ E'^/[^\\u0001-\\u001f\\u007f]*$' THEN
      ARRAY['tls_key_path', 'HV024', 'option "tls_key_path" must be an absolute path', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-key.pem''.']
    WHEN char_length(typed ->> 'domain') < 1 THEN
      ARRAY['domain', 'HV024', 'option "domain" must not be empty', 'Give the domain as the NATS server''s configuration names it, such as domain ''hub''.']
    WHEN char_length(typed ->> 'domain') > 255 THEN
      ARRAY['domain', 'HV024', 'option "domain" must have at most 255 characters', 'Give the domain as the NATS server''s configuration names it, such as domain ''hub''.']
    WHEN typed ->> 'domain' !~ E'^[^.*>\\u0001-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff]+$' THEN
      ARRAY['domain', 'HV024', 'option "domain" must be a JetStream domain: no ''.'', ''*'' or ''>'', no white space', 'Give the domain as the NATS server''s configuration names it, such as domain ''hub''.']
    WHEN char_length(typed ->> 'creds_path') < 1 THEN
      ARRAY['creds_path', 'HV024', 'option "creds_path" must not be empty', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats.creds''.']
    WHEN char_length(typed ->> 'creds_path') > 4095 THEN
      ARRAY['creds_path', 'HV024', 'option "creds_path" must have at most 4095 characters', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats.creds''.']
    WHEN typed ->> 'creds_path' !~ E'^/[^\\u0001-\\u001f\\u007f]*$' THEN
      ARRAY['creds_path', 'HV024', 'option "creds_path" must be an absolute path', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats.creds''.']
    WHEN char_length(typed ->> 'username') > 1024 THEN
      ARRAY['username', 'HV024', 'option "username" must have at most 1024 characters', 'Give the user name as text; username '''' is allowed.']
    WHEN char_length(typed ->> 'password_path') < 1 THEN
      ARRAY['password_path', 'HV024', 'option "password_path" must not be empty', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-password''.']
    WHEN char_length(typed ->> 'password_path') > 4095 THEN
      ARRAY['password_path', 'HV024', 'option "password_path" must have at most 4095 characters', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-password''.']
    WHEN typed ->> 'password_path' !~ E'^/[^\\u0001-\\u001f\\u007f]*$' THEN
      ARRAY['password_path', 'HV024', 'option "password_path" must be an absolute path', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-password''.']
    WHEN char_length(typed ->> 'password') < 1 THEN
      ARRAY['password', 'HV024', 'option "password" must not be empty', 'Give the password as text, or name its file in password_path.']
    WHEN char_length(typed ->> 'password') > 16384 THEN
      ARRAY['password', 'HV024', 'option "password" must have at most 16384 characters', 'Give the password as text, or name its file in password_path.']
    WHEN char_length(typed ->> 'nkey_seed_path') < 1 THEN
      ARRAY['nkey_seed_path', 'HV024', 'option "nkey_seed_path" must not be empty', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-nkey''; the seed itself goes into nkey_seed.']
    WHEN char_length(typed ->> 'nkey_seed_path') > 4095 THEN
      ARRAY['nkey_seed_path', 'HV024', 'option "nkey_seed_path" must have at most 4095 characters', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-nkey''; the seed itself goes into nkey_seed.']
    WHEN typed ->> 'nkey_seed_path' !~ E'^/[^\\u0001-\\u001f\\u007f]*$' THEN
      ARRAY['nkey_seed_path', 'HV024', 'option "nkey_seed_path" must be an absolute path', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-nkey''; the seed itself goes into nkey_seed.']
    WHEN char_length(typed ->> 'nkey_seed') < 1 THEN
      ARRAY['nkey_seed', 'HV024', 'option "nkey_seed" must not be empty', 'Give the whole seed as nk or nsc printed it, without spaces; it begins with SU.']
    WHEN char_length(typed ->> 'nkey_seed') > 255 THEN
      ARRAY['nkey_seed', 'HV024', 'option "nkey_seed" must have at most 255 characters', 'Give the whole seed as nk or nsc printed it, without spaces; it begins with SU.']
    WHEN typed ->> 'nkey_seed' !~ '^S[A-Z2-7]{57}$' THEN
      ARRAY['nkey_seed', 'HV024', 'option "nkey_seed" must be an NKey seed: S and 57 more characters out of A to Z and 2 to 7', 'Give the whole seed as nk or nsc printed it, without spaces; it begins with SU.']
    WHEN char_length(typed ->> 'token_path') < 1 THEN
      ARRAY['token_path', 'HV024', 'option "token_path" must not be empty', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-token''; the token itself goes into token.']
    WHEN char_length(typed ->> 'token_path') > 4095 THEN
      ARRAY['token_path', 'HV024', 'option "token_path" must have at most 4095 characters', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-token''; the token itself goes into token.']
    WHEN typed ->> 'token_path' !~ E'^/[^\\u0001-\\u001f\\u007f]*$' THEN
      ARRAY['token_path', 'HV024', 'option "token_path" must be an absolute path', 'Give a path below a --secrets-dir directory of hawser serve, such as ''/run/secrets/nats-token''; the token itself goes into token.']
    WHEN char_length(typed ->> 'token') < 1 THEN
      ARRAY['token', 'HV024', 'option "token" must not be empty', 'Give the token as text, or name its file in token_path.']
    WHEN char_length(typed ->> 'token') > 16384 THEN
      ARRAY['token', 'HV024', 'option "token" must have at most 16384 characters', 'Give the token as text, or name its file in token_path.']
    WHEN char_length(typed ->> 'notify_subject') < 1 THEN
      ARRAY['notify_subject', 'HV024', 'option "notify_subject" must not be empty', 'Give a complete subject without wildcards, such as notify_subject ''postgres.role''.']
    WHEN char_length(typed ->> 'notify_subject') > 255 THEN
      ARRAY['notify_subject', 'HV024', 'option "notify_subject" must have at most 255 characters', 'Give a complete subject without wildcards, such as notify_subject ''postgres.role''.']
    WHEN typed ->> 'notify_subject' !~ E'^[^.*>\\u0001-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff]+(?:\\.[^.*>\\u0001-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff]+)*$' THEN
      ARRAY['notify_subject', 'HV024', 'option "notify_subject" must be words joined by ''.'', without ''*'', ''>'', white space and control characters', 'Give a complete subject without wildcards, such as notify_subject ''postgres.role''.']
    WHEN char_length(typed ->> 'patroni_url') < 1 THEN
      ARRAY['patroni_url', 'HV024', 'option "patroni_url" must not be empty', 'Give the whole address, such as patroni_url ''http://localhost:8008/patroni''.']
    WHEN char_length(typed ->> 'patroni_url') > 2048 THEN
      ARRAY['patroni_url', 'HV024', 'option "patroni_url" must have at most 2048 characters', 'Give the whole address, such as patroni_url ''http://localhost:8008/patroni''.']
    WHEN typed ->> 'patroni_url' !~ E'^https?://(?:[0-9A-Za-z._-]+|\\[[0-9A-Fa-f:.]+\\])(?::[0-9]{1,5})?(?:[/?][^\\u0001-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff]*)?$' THEN
      ARRAY['patroni_url', 'HV024', 'option "patroni_url" must be an http or https address without user and password', 'Give the whole address, such as patroni_url ''http://localhost:8008/patroni''.']
    WHEN (typed ->> 'replicas')::numeric < 1 THEN
      ARRAY['replicas', 'HV024', 'option "replicas" must be an integer from 1 to 5', 'Give the number of servers in decimal digits, such as replicas ''3''; more than 1 takes a cluster with JetStream.']
    WHEN (typed ->> 'replicas')::numeric > 5 THEN
      ARRAY['replicas', 'HV024', 'option "replicas" must be an integer from 1 to 5', 'Give the number of servers in decimal digits, such as replicas ''3''; more than 1 takes a cluster with JetStream.']
    WHEN (typed ->> 'max_role_subscriptions')::numeric < 1 THEN
      ARRAY['max_role_subscriptions', 'HV024', 'option "max_role_subscriptions" must be an integer from 1 to 1000000', 'Give the number of subscriptions in decimal digits, such as max_role_subscriptions ''1000''.']
    WHEN (typed ->> 'max_role_subscriptions')::numeric > 1000000 THEN
      ARRAY['max_role_subscriptions', 'HV024', 'option "max_role_subscriptions" must be an integer from 1 to 1000000', 'Give the number of subscriptions in decimal digits, such as max_role_subscriptions ''1000''.']
    WHEN (typed ->> 'responder_timeout_ms')::numeric < 1 THEN
      ARRAY['responder_timeout_ms', 'HV024', 'option "responder_timeout_ms" must be an integer from 1 to 86400000', 'Give the milliseconds in decimal digits, such as responder_timeout_ms ''5000''.']
    WHEN (typed ->> 'responder_timeout_ms')::numeric > 86400000 THEN
      ARRAY['responder_timeout_ms', 'HV024', 'option "responder_timeout_ms" must be an integer from 1 to 86400000', 'Give the milliseconds in decimal digits, such as responder_timeout_ms ''5000''.']
  END;
  IF violated IS NULL THEN
    RETURN;
  END IF;
  option_name := violated[1];
  sqlstate := violated[2];
  message := violated[3];
  hint := violated[4];
  detail := CASE
    WHEN cardinality(violated) > 4 THEN 'Given: ' || coalesce(
      (SELECT string_agg(name, ', ' ORDER BY position)
       FROM unnest(violated[5:]) WITH ORDINALITY AS rule (name, position)
       WHERE options ? name),
      'none') || '.'
    WHEN option_name = ANY (hidden) THEN 'Its value is not shown.'
    ELSE hawser.nats_option_shown(options -> option_name)
  END;
END
$function$;
COMMENT ON FUNCTION hawser.nats_server_options_violation(jsonb, text) IS 'The first violation of a set of options, all null if there is none. The part is what is known of the set: ''whole'' (server and user mapping together), ''server'', ''user_mapping'', or ''none'' where no option is allowed.';

CREATE OR REPLACE FUNCTION hawser.nats_server_options_check(
  options jsonb,
  part text DEFAULT 'whole'
)
RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  violation record;
BEGIN
  SELECT * INTO violation FROM hawser.nats_server_options_violation(options, part);
  IF violation.sqlstate IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = violation.sqlstate,
      MESSAGE = violation.message,
      DETAIL = violation.detail,
      HINT = violation.hint;
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.nats_server_options_check(jsonb, text) IS 'Raises the first violation of a set of options; see nats_server_options_violation.';

CREATE OR REPLACE FUNCTION hawser.nats_options_jsonb(
  options text[]
)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  RETURN (
    SELECT coalesce(jsonb_object_agg(option_name, option_value), '{}')
    FROM pg_options_to_table(options)
  );
END
$function$;
COMMENT ON FUNCTION hawser.nats_options_jsonb(text[]) IS 'Options as the catalogs keep them, name=value each (srvoptions, umoptions), as a JSON object of strings.';

CREATE OR REPLACE FUNCTION hawser.nats_server_options(
  options jsonb
)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  PERFORM hawser.nats_server_options_check(options, 'whole');
  RETURN '{
  "host": "127.0.0.1",
  "port": 4222,
  "capacity": 128,
  "tls_insecure": false,
  "notify_subject": "pgnats.postgresql.replication.status",
  "replicas": 1,
  "max_role_subscriptions": 1000,
  "responder_timeout_ms": 5000
}'::jsonb || hawser.nats_server_options_typed(options);
END
$function$;
COMMENT ON FUNCTION hawser.nats_server_options(jsonb) IS 'The options of server and user mapping put together, checked, in their own types and with the defaults. Raises the first violation.';

CREATE OR REPLACE FUNCTION hawser.nats_auth_mode(
  options jsonb
)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  RETURN CASE
    WHEN options ->> 'creds_path' IS NOT NULL THEN 'creds_path'
    WHEN options ->> 'nkey_seed_path' IS NOT NULL THEN 'nkey_seed_path'
    WHEN options ->> 'nkey_seed' IS NOT NULL THEN 'nkey_seed'
    WHEN options ->> 'token_path' IS NOT NULL THEN 'token_path'
    WHEN options ->> 'token' IS NOT NULL THEN 'token'
    WHEN options ->> 'username' IS NOT NULL AND options ->> 'password_path' IS NOT NULL THEN 'user_password_path'
    WHEN options ->> 'username' IS NOT NULL AND options ->> 'password' IS NOT NULL THEN 'user_password'
    ELSE 'none'
  END;
END
$function$;
COMMENT ON FUNCTION hawser.nats_auth_mode(jsonb) IS 'How these options authenticate: the first mode whose options are all set.';

DO $do$
DECLARE
  present CONSTANT oid[] := pg_catalog.string_to_array(pg_catalog.current_setting('hawser.present', true), ',')::oid[];
  statement text;
BEGIN
  FOR statement IN
    WITH made AS (
      SELECT o.* FROM (
        SELECT n.oid, 'SCHEMA hawser' AS object, 'n'::"char" AS type, n.nspowner AS owner, n.nspacl AS acl
        FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'
        UNION ALL
        SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,
          (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner, c.relacl
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl
        FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')
      ) AS o WHERE o.oid <> ALL (coalesce(present, '{}'))
    )
    SELECT pg_catalog.format('REVOKE ALL ON %s FROM %s', m.object,
      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
    FROM made AS m
    CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(m.acl, pg_catalog.acldefault(m.type, m.owner))) AS a
    WHERE a.grantee <> m.owner
    UNION
    -- They can lack rights of the owner, too.
    SELECT pg_catalog.format('GRANT ALL ON %s TO %I', m.object, pg_catalog.pg_get_userbyid(m.owner))
    FROM made AS m WHERE m.acl IS NOT NULL
  LOOP
    EXECUTE statement;
  END LOOP;
END
$do$;

DO $do$
BEGIN
  -- What is new after what follows gets no default privileges: see the block at the end.
  PERFORM pg_catalog.set_config('hawser.present', (
    SELECT coalesce(pg_catalog.string_agg(o.oid::text, ','), '') FROM (
      SELECT n.oid, 'SCHEMA hawser' AS object, 'n'::"char" AS type, n.nspowner AS owner, n.nspacl AS acl
      FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'
      UNION ALL
      SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,
        (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner, c.relacl
      FROM pg_catalog.pg_class AS c
      WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      UNION ALL
      SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl
      FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')
    ) AS o
  ), false);
  IF to_regnamespace('hawser') IS NULL THEN
    CREATE SCHEMA hawser;
  END IF;
END
$do$;

CREATE OR REPLACE FUNCTION hawser.bind_handler(
  p_kind text,
  p_subject text,
  p_function bigint,
  p_path text[],
  OUT bound boolean
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
SET quote_all_identifiers = off
AS $function$
DECLARE
  caller CONSTANT oid := (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = current_user);
  called CONSTANT text := CASE p_kind WHEN 'subscription' THEN 'nats_subscribe' WHEN 'stream' THEN 'nats_subscribe_stream' ELSE 'litmus_pgnats_register_responder' END;
  -- Types of arguments and, of a responder, of the result.
  accepted CONSTANT text[] := CASE p_kind
    WHEN 'responder' THEN ARRAY['bytea', 'text, text, text']
    ELSE ARRAY['bytea', 'bytea, text', 'bytea, text, jsonb']
  END;
  target record;
  context text;
  present record;
  stem text;
  looked_at name;
  settle text;
  -- Of its name and of that of its token's type.
  random CONSTANT text := left(replace(gen_random_uuid()::text, '-', ''), 16);
  v_wrapper text;
  wrapper_oid oid;
  token CONSTANT bytea := decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');
  proof CONSTANT text := format('sha256(p_token) = %L::bytea', sha256(token));
  path CONSTANT text := concat_ws(', ', (
    SELECT string_agg(quote_ident(s.name), ', ' ORDER BY s.nth)
    FROM unnest(p_path) WITH ORDINALITY AS s (name, nth) WHERE s.name !~ '^pg_(temp|toast_temp)_'
  ), 'pg_temp');
BEGIN
  bound := false;
  IF p_subject IS NULL OR p_function IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = format('%s: %s is NULL, and a value is needed', called, CASE WHEN p_subject IS NOT NULL THEN 'fn_oid' WHEN p_kind = 'stream' THEN 'name' ELSE 'subject' END);
  END IF;
  IF pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('replica'),
      MESSAGE = format('%s: %s', called, CASE WHEN pg_is_in_recovery() THEN 'this server is a replica' ELSE 'the transaction is read-only' END),
      HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'replica');
  END IF;

  SELECT p.oid, n.nspname AS schema, p.proname AS name, oidvectortypes(p.proargtypes) AS types, p.prokind AS kind, p.proretset AS set,
         p.pronamespace AS namespace, format_type(p.prorettype, NULL) AS result, format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)) AS called
  INTO target
  FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE p.oid = p_function;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('function_signature'),
      MESSAGE = format('%s: there is no function with the oid %s', called, p_function);
  END IF;
  IF target.schema ~ '^pg_temp_' THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('function_signature'),
      MESSAGE = format('%s: the function %s is a temporary one, and gone when this session ends', called, target.called),
      HINT = 'Make it in a schema that stays.';
  END IF;
  IF target.kind <> 'f' OR target.set OR NOT target.types = ANY (accepted)
    OR (p_kind = 'responder' AND target.result <> CASE target.types WHEN 'bytea' THEN 'bytea' ELSE 'text' END)
  THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('function_signature'),
      MESSAGE = format('%s: %s %s cannot be called for messages of NATS', called,
        CASE WHEN target.kind = 'p' THEN 'the procedure' WHEN target.kind = 'a' THEN 'the aggregate' WHEN target.kind = 'w' THEN 'the window function'
          WHEN target.set THEN 'the set-returning function' ELSE 'the function' END,
        target.called || CASE WHEN p_kind = 'responder' AND target.kind <> 'p' THEN ' RETURNS ' || target.result ELSE '' END),
      HINT = format('Give it one of these signatures: %s.', CASE p_kind
        WHEN 'responder' THEN '(payload bytea) RETURNS bytea, (payload text, subject text, reply_to text) RETURNS text'
        ELSE '(payload bytea), (payload bytea, subject text), (payload bytea, subject text, headers jsonb)' END);
  END IF;
  IF NOT has_function_privilege(target.oid, 'EXECUTE') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('not_permitted'),
      MESSAGE = format('%s: "%s" may not execute the function %s', called, current_user, target.called),
      HINT = format('GRANT EXECUTE ON FUNCTION %s TO %I', target.called, current_user);
  END IF;
  IF NOT has_schema_privilege(target.namespace, 'USAGE') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('not_permitted'),
      MESSAGE = format('%s: "%s" may not use the schema %I of the function %s', called, current_user, target.schema, target.called),
      HINT = format('GRANT USAGE ON SCHEMA %I TO %I', target.schema, current_user);
  END IF;
  IF NOT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = 'hawser_run') OR NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = 'hawser_executor') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('not_supported'),
      MESSAGE = format('%s: the schema hawser_run, or the role hawser_executor, is missing in this database', called),
      HINT = 'Run `hawser init` as a role that may make them; it says what is missing.';
  END IF;

  FOR present IN SELECT h.* FROM hawser.lock_handlers(p_kind, p_subject) AS h LOOP
    IF present.run_as = current_user
      AND (present.function_schema, present.function_name, present.argument_types) = (target.schema, target.name, target.types)
    THEN
      RETURN;
    END IF;
    IF p_kind = 'stream' THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('invalid_argument'),
        MESSAGE = format('%s: there is a subscription %L already, with the function %I.%I(%s) and the role "%s"', called, p_subject, present.function_schema, present.function_name, present.argument_types, present.run_as),
        HINT = format('Choose another name, or end that one: SELECT nats_unsubscribe_stream(%L)', p_subject);
    END IF;
    IF p_kind = 'responder' AND NOT pg_has_role(present.run_as, 'USAGE') THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('not_permitted'),
        MESSAGE = format('%s: requests to "%s" are answered by a function that "%s" has registered, and "%s" is not in that role', called, p_subject, present.run_as, current_user),
        HINT = format('Have "%s" unregister it first.', present.run_as);
    END IF;
  END LOOP;

  -- What CASCADE has left of this role's wrappers, and those whose function was dropped while they were being made. Another
  -- session of it may be at that, too. Where there are very many, those are looked at whose random begins as the new one's.
  looked_at := 'token_' || left(random, (
    SELECT CASE WHEN count(*) < 200 THEN 0 WHEN count(*) < 3000 THEN 1 ELSE 2 END FROM pg_type AS t
    WHERE t.typnamespace = 'hawser_run'::regnamespace AND t.typname >= 'token_' AND t.typname < 'token_g'));
  BEGIN
    FOR stem IN
      SELECT t.typname FROM pg_type AS t
      WHERE t.typnamespace = 'hawser_run'::regnamespace AND t.typname >= looked_at AND t.typname < looked_at || 'g'
        AND t.typowner = caller AND t.typtype = 'e' AND t.typname ~ '^token_[0-9a-f]{16}$'
        -- Looked up for each type, because of OFFSET: any other plan reads the catalogs from end to end.
        AND NOT EXISTS (
          SELECT FROM pg_depend AS u JOIN pg_proc AS w ON w.oid = u.objid
          WHERE u.refclassid = 'pg_type'::regclass AND u.refobjid = t.oid AND u.classid = 'pg_proc'::regclass
            AND w.pronamespace = 'hawser_run'::regnamespace AND w.pronargs > 0 AND w.proargtypes[0] = t.oid
            AND NOT EXISTS (
              SELECT FROM pg_depend AS d
              WHERE d.classid = 'pg_proc'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
                AND NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = d.refobjid))
          OFFSET 0)
    LOOP
      EXECUTE format('DROP TYPE hawser_run.%I CASCADE', stem);
    END LOOP;
  EXCEPTION
    WHEN internal_error OR undefined_object THEN NULL;
  END;

  -- Deferred constraints and triggers are run within the wrapper, as its owner: at COMMIT they would be run as the login of
  -- the executor, which may do nothing. One of a name that others have given to theirs, too, could not be called.
  SELECT p.proname INTO settle FROM pg_proc AS p
  -- By its name, as it is made below: there is an index of names.
  WHERE p.pronamespace = 'hawser_run'::regnamespace AND p.proname >= 'settle ' AND p.proname < 'settle!'
    AND p.proowner = caller AND p.pronargs = 0 AND NOT p.prosecdef
    AND p.prosrc = 'BEGIN SET CONSTRAINTS ALL IMMEDIATE; END' AND p.proconfig IS NULL
    AND NOT EXISTS (SELECT FROM pg_proc AS o WHERE o.pronamespace = p.pronamespace AND o.proname = p.proname AND o.oid <> p.oid)
  ORDER BY p.oid LIMIT 1;
  IF settle IS NULL THEN
    settle := 'settle ' || random;
    EXECUTE format($$CREATE FUNCTION hawser_run.%I() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET CONSTRAINTS ALL IMMEDIATE; END'$$, settle);
    EXECUTE format('REVOKE ALL ON FUNCTION hawser_run.%I() FROM PUBLIC; GRANT EXECUTE ON FUNCTION hawser_run.%1$I() TO %2$I', settle, current_user);
  END IF;

  -- A name that tells what it is where Postgres refuses to drop the function, and that nobody else has.
  stem := left(format('%s.%s %s %s', target.schema, target.name, CASE p_kind WHEN 'responder' THEN 'answers' ELSE 'on' END, p_subject), 46);
  WHILE octet_length(stem) > 46 LOOP
    stem := left(stem, -1);
  END LOOP;
  v_wrapper := stem || ' ' || random;

  -- Others may make functions in the schema, too. With a type of its own, which nobody else may use, none of theirs is ever
  -- called in place of the wrapper, nor makes it ambiguous. It is passed as NULL, for which nothing is evaluated: a domain
  -- could be given constraints by its owner, which would run as the caller.
  EXECUTE format('CREATE TYPE hawser_run.token_%1$s AS ENUM (); REVOKE ALL ON TYPE hawser_run.token_%1$s FROM PUBLIC', random);

  -- Each message is announced by its id, from which what the function publishes into streams has its own: p_ids.
  -- What is deferred belongs to none of them: with the id of the last one it would be taken for what that one publishes when
  -- they are tried one by one.
  --
  -- Bound by oid: while the wrapper is there the function cannot be dropped, and nothing else can take its place. Without
  -- the token nothing runs. Over unnest() also where there is one payload: the planner computes calls with constants, of
  -- functions said to be immutable, before it looks at any condition.
  IF p_kind <> 'responder' THEN
    EXECUTE format($$
      CREATE FUNCTION hawser_run.%I(p_type hawser_run.token_%s, p_token bytea, p_payloads bytea, p_offsets integer[], p_lengths integer[], p_subjects text[], p_headers text[], p_ids text[])
      RETURNS bigint LANGUAGE sql SECURITY DEFINER PARALLEL UNSAFE SET search_path = %s
      BEGIN ATOMIC
        SELECT set_config('hawser.message', m.id, true), %I.%I(substring(p_payloads FROM m.at FOR m.length)%s)
        FROM unnest(p_offsets, p_lengths, p_subjects, p_headers, p_ids) AS m (at, length, subject, headers, id) WHERE %s;
        SELECT set_config('hawser.message', '', true), hawser_run.%I() WHERE %s;
        SELECT CASE WHEN %s THEN cardinality(p_lengths)::bigint ELSE 0 END;
      END$$,
      v_wrapper, random, path, target.schema, target.name,
      CASE target.types WHEN 'bytea' THEN '' WHEN 'bytea, text' THEN ', m.subject' ELSE ', m.subject, m.headers::jsonb' END,
      proof, settle, proof, proof);
  ELSE
    EXECUTE format($$
      CREATE FUNCTION hawser_run.%I(p_type hawser_run.token_%s, p_token bytea, p_payload bytea, p_subject text, p_reply text)
      RETURNS bytea LANGUAGE sql SECURITY DEFINER PARALLEL UNSAFE SET search_path = %s
      BEGIN ATOMIC
        WITH answer AS MATERIALIZED (SELECT %s AS payload FROM unnest(ARRAY[p_payload]) AS m (payload) WHERE %s),
        settled AS MATERIALIZED (SELECT hawser_run.%I() FROM answer)
        SELECT a.payload FROM answer AS a, settled;
      END$$,
      v_wrapper, random, path,
      CASE target.types
        WHEN 'bytea' THEN format('%I.%I(m.payload)', target.schema, target.name)
        ELSE format('convert_to(%I.%I(convert_from(m.payload, ''UTF8''), p_subject, p_reply), ''UTF8'')', target.schema, target.name)
      END, proof, settle);
  END IF;
  wrapper_oid := (SELECT w.oid FROM pg_proc AS w WHERE w.pronamespace = 'hawser_run'::regnamespace AND w.proname = v_wrapper AND w.proowner = caller);
  -- It calls the function that was named, the one that settles, and nothing else that anybody has made.
  IF ARRAY(
    SELECT DISTINCT d.refobjid FROM pg_depend AS d
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = wrapper_oid AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
    ORDER BY d.refobjid
  ) <> ARRAY(
    SELECT p.oid FROM pg_proc AS p
    WHERE p.oid = target.oid
      OR p.pronamespace = 'hawser_run'::regnamespace AND p.proname = settle AND p.proowner = caller AND p.pronargs = 0
    ORDER BY p.oid
  ) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('function_signature'),
      MESSAGE = format('%s: a call with the arguments (%s) does not reach %s', called, target.types, target.called),
      HINT = 'Another function of the same name comes before it; rename one of them.';
  END IF;
  EXECUTE format('REVOKE ALL ON FUNCTION %1$s FROM PUBLIC; GRANT EXECUTE ON FUNCTION %1$s TO hawser_executor; COMMENT ON FUNCTION %1$s IS %2$L',
    wrapper_oid::regprocedure, format('%s for "%s", made by %s. Dropped together with the function only by CASCADE.', target.called, p_subject, called));

  IF p_kind = 'responder' THEN
    GET DIAGNOSTICS context = PG_CONTEXT;
    FOR present IN SELECT h.* FROM hawser.lock_handlers(p_kind, p_subject) AS h LOOP
      -- It would be gone when it returns, and nothing of it committed.
      IF strpos(context, present.wrapper) > 0 THEN
        RAISE EXCEPTION USING
          ERRCODE = hawser.error_sqlstate('not_supported'),
          MESSAGE = format('%s: the function that "%s" reaches is running, and cannot replace itself', called, p_subject),
          HINT = 'Have another session do it.';
      END IF;
      EXECUTE format('DROP TYPE %s CASCADE', present.token_type);
    END LOOP;
  END IF;
  PERFORM hawser.add_handler(p_kind, p_subject, target.schema, target.name, target.types, v_wrapper, token);
  bound := true;
END
$function$;
COMMENT ON FUNCTION hawser.bind_handler(text, text, bigint, text[]) IS 'Binds a function to a subject, so that it is called for each message or answers the requests. Makes its wrapper,
which runs with the rights of the caller.';

CREATE OR REPLACE FUNCTION hawser.unbind_handler(
  p_kind text,
  p_subject text,
  p_function bigint,
  OUT unbound integer
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
SET quote_all_identifiers = off
AS $function$
DECLARE
  called CONSTANT text := CASE p_kind WHEN 'subscription' THEN 'nats_unsubscribe' WHEN 'stream' THEN 'nats_unsubscribe_stream' ELSE 'litmus_pgnats_unregister_responder' END;
  present record;
  others text;
  context text;
BEGIN
  unbound := 0;
  IF p_subject IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = format('%s: %s is NULL, and a value is needed', called, CASE p_kind WHEN 'stream' THEN 'name' ELSE 'subject' END);
  END IF;
  IF pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('replica'),
      MESSAGE = format('%s: %s', called, CASE WHEN pg_is_in_recovery() THEN 'this server is a replica' ELSE 'the transaction is read-only' END),
      HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'replica');
  END IF;
  GET DIAGNOSTICS context = PG_CONTEXT;
  FOR present IN
    SELECT h.* FROM hawser.lock_handlers(p_kind, p_subject) AS h
    WHERE p_function IS NULL OR EXISTS (
      SELECT FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
      WHERE p.oid = p_function AND (n.nspname, p.proname, oidvectortypes(p.proargtypes)) = (h.function_schema, h.function_name, h.argument_types))
  LOOP
    IF pg_has_role(present.run_as, 'USAGE') THEN
      -- It would be gone when it returns, and nothing of it committed.
      IF strpos(context, present.wrapper) > 0 THEN
        RAISE EXCEPTION USING
          ERRCODE = hawser.error_sqlstate('not_supported'),
          MESSAGE = format('%s: the function that "%s" reaches is running, and cannot end itself', called, p_subject),
          HINT = 'Have another session do it.';
      END IF;
      EXECUTE format('DROP TYPE %s CASCADE', present.token_type);
      unbound := unbound + 1;
    ELSE
      others := present.run_as;
    END IF;
  END LOOP;
  IF unbound = 0 AND others IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('not_permitted'),
      MESSAGE = format('%s: what "%s" reaches was made by "%s", and "%s" is not in that role', called, p_subject, others, current_user),
      HINT = format('Have "%s" do it.', others);
  END IF;
  PERFORM hawser.prune_handlers();
END
$function$;
COMMENT ON FUNCTION hawser.unbind_handler(text, text, bigint) IS 'Ends what hawser.bind_handler has begun.';

CREATE OR REPLACE FUNCTION hawser.lock_handlers(
  p_kind text,
  p_subject text
)
RETURNS TABLE (
  wrapper text,
  token_type text,
  run_as text,
  function_schema text,
  function_name text,
  argument_types text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
AS $function$
#variable_conflict use_column
BEGIN
  -- A snapshot from before the wait would miss what the others have changed.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_transaction_state',
      MESSAGE = format('what NATS reaches is changed in READ COMMITTED, not %s', current_setting('transaction_isolation')),
      HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED';
  END IF;
  -- One subject of a responder excludes others of other roles, which must not come in at the same time: those that may
  -- overlap begin with the same word, or one of them with a wildcard.
  IF p_kind = 'responder' AND left(p_subject, 1) IN ('*', '>') THEN
    PERFORM pg_advisory_xact_lock(hashtextextended('hawser:handlers:responder', 0));
  ELSIF p_kind = 'responder' THEN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('hawser:handlers:responder', 0)),
            pg_advisory_xact_lock(hashtextextended('hawser:handlers:responder:' || split_part(p_subject, '.', 1) || '.', 0));
  END IF;
  -- Of the subject, not of the table: what one transaction leaves open holds up nobody but those who change the same.
  PERFORM pg_advisory_xact_lock(hashtextextended('hawser:handlers:' || p_kind || ':' || p_subject, 0));
  -- Another statement, which sees what was committed while the first one waited. By the type of its own, which nobody
  -- else may use: others may have functions of the same name. The function by its oid: it may have another name by now.
  RETURN QUERY
  SELECT h.wrapper, format('hawser_run.%I', t.typname), r.rolname::text, coalesce(f.schema, h.function_schema), coalesce(f.name, h.function_name),
         coalesce(f.types, h.argument_types)
  FROM hawser.nats_handlers AS h
  JOIN pg_type AS t ON t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(h.wrapper, 16)
  JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proname = h.wrapper AND w.proargtypes[0] = t.oid
    AND w.pronargs = CASE h.kind WHEN 'responder' THEN 5 ELSE 8 END
    -- Not one whose function was dropped while it was being made.
    AND NOT EXISTS (
      SELECT FROM pg_depend AS d
      WHERE d.classid = 'pg_proc'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
        AND NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = d.refobjid))
  JOIN pg_roles AS r ON r.oid = w.proowner
  LEFT JOIN LATERAL (
    SELECT n.nspname::text AS schema, p.proname::text AS name, oidvectortypes(p.proargtypes) AS types
    FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.refobjid AND p.pronargs > 0 JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
    ORDER BY p.oid LIMIT 1
  ) AS f ON true
  WHERE h.kind = p_kind AND h.subject = p_subject
  ORDER BY h.id;
END
$function$;
COMMENT ON FUNCTION hawser.lock_handlers(text, text) IS 'The bindings of a subject. Other changes of them wait until the end of the transaction.';

CREATE OR REPLACE FUNCTION hawser.subjects_overlap(
  p_one text,
  p_other text,
  OUT overlap boolean
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  a CONSTANT text[] := string_to_array(p_one, '.');
  b CONSTANT text[] := string_to_array(p_other, '.');
BEGIN
  overlap := false;
  FOR at IN 1..least(cardinality(a), cardinality(b)) LOOP
    -- '>' stands for at least one word, and both have one here.
    overlap := '>' IN (a[at], b[at]);
    IF overlap OR (a[at] <> b[at] AND '*' NOT IN (a[at], b[at])) THEN
      RETURN;
    END IF;
  END LOOP;
  overlap := cardinality(a) = cardinality(b);
END
$function$;
COMMENT ON FUNCTION hawser.subjects_overlap(text, text) IS 'Whether a message can have a subject that both patterns match. Both are subjects that can be subscribed to.';

CREATE OR REPLACE FUNCTION hawser.add_handler(
  p_kind text,
  p_subject text,
  p_function_schema text,
  p_function_name text,
  p_argument_types text,
  p_wrapper text,
  p_token bytea,
  OUT id bigint
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
AS $function$
#variable_conflict use_column
DECLARE
  rule text;
  other text;
  owner oid;
  overlapping text;
  most integer;
BEGIN
  IF p_subject = '_INBOX.hawser' OR starts_with(p_subject, '_INBOX.hawser' || '.') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('the subject %L cannot be subscribed to', left(p_subject, 300)),
      DETAIL = format('Below "%s" are the answers to requests that SQL functions make, those of all roles: each is for the session that asked.', '_INBOX.hawser'),
      HINT = 'nats_request_text and its kin return the answer.';
  END IF;
  -- A call by hand is refused what bind_handler refuses: under the same lock, and in the same isolation level.
  PERFORM FROM hawser.lock_handlers(p_kind, p_subject);
  SELECT w.proowner INTO owner FROM pg_type AS t JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proargtypes[0] = t.oid
  WHERE t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(p_wrapper, 16) AND t.typowner = w.proowner
    AND w.proname = p_wrapper AND w.pronargs = CASE p_kind WHEN 'responder' THEN 5 ELSE 8 END
    AND EXISTS (SELECT FROM hawser.wrapper_version(p_wrapper, pg_get_userbyid(w.proowner)) AS v WHERE v.version IS NOT NULL)
    -- It calls the function that it is entered for: names are shown, and nobody's are of more than that has.
    AND EXISTS (
      SELECT FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.refobjid JOIN pg_namespace AS n ON n.oid = p.pronamespace
      WHERE d.classid = 'pg_proc'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
        AND (n.nspname, p.proname, oidvectortypes(p.proargtypes)) = (p_function_schema, p_function_name, p_argument_types));
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('hawser.add_handler: there is no wrapper %I of that function in the schema hawser_run', left(p_wrapper, 63));
  END IF;
  IF p_kind = 'responder' THEN
    SELECT h.run_as INTO other FROM hawser.lock_handlers(p_kind, p_subject) AS h LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('not_permitted'),
        MESSAGE = format('hawser.add_handler: requests to "%s" are answered by a function that "%s" has registered', p_subject, other),
        HINT = format('Have "%s" unregister it first.', other);
    END IF;
    SELECT h.subject, pg_get_userbyid(t.typowner) INTO overlapping, other
    FROM hawser.nats_handlers AS h
    JOIN pg_type AS t ON t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(h.wrapper, 16)
    WHERE h.kind = 'responder' AND h.subject <> p_subject AND hawser.subjects_overlap(h.subject, p_subject)
      AND NOT pg_has_role(owner, t.typowner, 'USAGE')
    ORDER BY h.id LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('not_permitted'),
        MESSAGE = format('a responder for "%s" would also get requests to "%s", which a function answers that "%s" has registered, and "%s" is not in that role', p_subject, overlapping, other, pg_get_userbyid(owner)),
        HINT = format('Choose subjects that no request can have in common, or have "%s" unregister it first.', other);
    END IF;
    -- Those whose wrapper is gone, or under another name for now: it would be there again beside this one.
    DELETE FROM hawser.nats_handlers AS h WHERE h.kind = p_kind AND h.subject = p_subject;
  END IF;
  IF p_kind = 'stream' THEN
    IF EXISTS (SELECT FROM hawser.lock_handlers(p_kind, p_subject)) THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('invalid_argument'),
        MESSAGE = format('hawser.add_handler: there is a subscription %L already', p_subject);
    END IF;
    DELETE FROM hawser.nats_handlers AS h WHERE h.kind = p_kind AND h.subject = p_subject;
  END IF;
  IF p_kind <> 'responder' THEN
    most := coalesce(
      (SELECT (s.options ->> 'max_role_subscriptions')::integer FROM hawser.nats_server AS s),
      (hawser.nats_server_options('{}') ->> 'max_role_subscriptions')::integer);
    -- All roles together hardly ever have as many, and to count them needs no type of theirs.
    PERFORM FROM hawser.nats_handlers AS h
    JOIN pg_type AS t ON (SELECT count(*) FROM hawser.nats_handlers AS a WHERE a.kind <> 'responder') >= most
     AND t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(h.wrapper, 16)
    WHERE h.kind <> 'responder' AND t.typowner = owner
    OFFSET most - 1 LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('subscription_limit'),
        MESSAGE = format('"%s" has %s subscriptions, as many as a role may have', pg_get_userbyid(owner), most),
        HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'subscription_limit');
    END IF;
  END IF;
  INSERT INTO hawser.nats_handlers AS h (kind, subject, function_schema, function_name, argument_types, wrapper, token)
  VALUES (p_kind, p_subject, p_function_schema, p_function_name, p_argument_types, p_wrapper, p_token)
  RETURNING h.id INTO id;
EXCEPTION
  WHEN check_violation THEN
    GET STACKED DIAGNOSTICS rule = CONSTRAINT_NAME;
    IF rule !~ 'subject' THEN
      RAISE;
    END IF;
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = CASE p_kind
        WHEN 'stream' THEN format('nats_subscribe_stream: name is %L, and must be 1 to 100 letters of ASCII, digits, ''_'' and ''-''', left(p_subject, 100))
        ELSE format('the subject %L cannot be subscribed to', left(p_subject, 300))
      END,
      DETAIL = CASE p_kind WHEN 'stream' THEN 'It is a name of its own, and no subject.' ELSE 'It is of 1 to 255 bytes: words joined by ''.'', without white space; ''*'' stands for a word, and ''>'' at the end for all the rest.' END,
      HINT = CASE p_kind WHEN 'stream' THEN 'Such as ''billing''.' ELSE 'Such as ''orders.*'' or ''orders.>''.' END;
END
$function$;
COMMENT ON FUNCTION hawser.add_handler(text, text, text, text, text, text, bytea) IS 'Enters a wrapper.';

CREATE OR REPLACE FUNCTION hawser.prune_handlers(
  OUT pruned integer
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  -- Who has taken one out and leaves the transaction open keeps nobody waiting.
  DELETE FROM hawser.nats_handlers AS d WHERE d.id IN (
    SELECT h.id FROM hawser.nats_handlers AS h
    WHERE NOT EXISTS (
      SELECT FROM pg_type AS t JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proargtypes[0] = t.oid
      WHERE t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(h.wrapper, 16)
        AND w.proname = h.wrapper AND w.pronargs = CASE h.kind WHEN 'responder' THEN 5 ELSE 8 END
        -- Not one whose function was dropped while it was being made.
        AND NOT EXISTS (
          SELECT FROM pg_depend AS d
          WHERE d.classid = 'pg_proc'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
            AND NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = d.refobjid)))
    FOR UPDATE OF h SKIP LOCKED);
  GET DIAGNOSTICS pruned = ROW_COUNT;
  DELETE FROM hawser.stream_subscriptions AS d WHERE d.handler_id IN (
    SELECT s.handler_id FROM hawser.stream_subscriptions AS s
    WHERE NOT EXISTS (SELECT FROM hawser.nats_handlers AS h WHERE h.id = s.handler_id)
    FOR UPDATE OF s SKIP LOCKED);
END
$function$;
COMMENT ON FUNCTION hawser.prune_handlers() IS 'Takes out those whose wrapper is gone.';

CREATE OR REPLACE FUNCTION hawser.request_retries(
  p_ids bigint[]
)
RETURNS TABLE (
  id bigint,
  requested boolean,
  source text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH asked AS (
    SELECT d.id, d.source, EXISTS (
      SELECT FROM hawser.nats_handlers AS h
      JOIN pg_type AS t ON t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(h.wrapper, 16)
      JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proname = h.wrapper AND w.proargtypes[0] = t.oid
      WHERE h.id = d.handler_id
    ) AS known
    FROM hawser.dead_letters AS d
    WHERE d.id = ANY (p_ids) AND d.origin = 'subscription'
  ), marked AS (
    UPDATE hawser.dead_letters AS d SET retry_requested = true
    FROM asked AS a WHERE d.id = a.id AND a.known
    RETURNING d.id
  )
  SELECT a.id, a.known, a.source FROM asked AS a LEFT JOIN marked AS m ON m.id = a.id
  -- What was discarded, or handled, meanwhile is there no more.
  WHERE NOT a.known OR m.id IS NOT NULL
  ORDER BY a.id;
  IF EXISTS (SELECT FROM hawser.dead_letters AS d WHERE d.id = ANY (p_ids) AND d.retry_requested) THEN
    PERFORM pg_notify('hawser_nats_handlers', '{}');
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.request_retries(bigint[]) IS 'Asks for dead letters of subscriptions to be handled again, by the process that leads.';

CREATE OR REPLACE FUNCTION hawser.wrapper_version(
  p_wrapper text,
  p_run_as text,
  OUT version text
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  -- Another one after each CREATE OR REPLACE, ALTER FUNCTION and ALTER TYPE. Of all functions that have its name and its type:
  -- one that is as it should be does not hide another, which may be the one that a call reaches. What it returns is what is
  -- read; how its arguments are passed is what a call evaluates before it is there.
  SELECT string_agg(concat_ws(':', w.oid, w.xmin, w.proowner, t.oid, t.xmin), ' ' ORDER BY w.oid) INTO version
  FROM pg_type AS t JOIN pg_proc AS w ON w.pronamespace = t.typnamespace AND w.proargtypes[0] = t.oid
  WHERE t.typnamespace = to_regnamespace('hawser_run') AND t.typname = 'token_' || right(p_wrapper, 16)
    AND w.proname = p_wrapper
  HAVING bool_and(
    t.typtype = 'e' AND w.prokind = 'f' AND w.prosecdef AND pg_get_userbyid(w.proowner) = p_run_as
    AND NOT w.proretset AND w.pronargdefaults = 0 AND w.provariadic = 0 AND w.proallargtypes IS NULL
    AND w.prolang IN (SELECT l.oid FROM pg_language AS l WHERE l.lanname IN ('sql', 'plpgsql'))
    AND CASE w.pronargs
      WHEN 8 THEN w.prorettype = 'bigint'::regtype
        AND (w.proargtypes::oid[])[1:] = '{bytea,bytea,integer[],integer[],text[],text[],text[]}'::regtype[]::oid[]
      WHEN 5 THEN w.prorettype = 'bytea'::regtype
        AND (w.proargtypes::oid[])[1:] = '{bytea,bytea,text,text}'::regtype[]::oid[]
      ELSE false
    END
    -- The function that it calls was dropped while it was being made.
    AND NOT EXISTS (
      SELECT FROM pg_depend AS d
      WHERE d.classid = 'pg_proc'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass
        AND NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = d.refobjid)));
END
$function$;
COMMENT ON FUNCTION hawser.wrapper_version(text, text) IS 'What a wrapper is right now. It is asked before and after a call, in one transaction, and the answers must be equal. A
wrapper that was replaced by one that runs as its caller is not called; if it was replaced in between, the call is not
committed.';

CREATE OR REPLACE FUNCTION hawser.fence_batch(
  p_epoch bigint,
  OUT held boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  -- A process that takes over raises the epoch there first, and here when this lock is free: batches that begin in between would
  -- keep it waiting.
  held := EXISTS (SELECT FROM hawser.bridge_lead AS l WHERE l.epoch = p_epoch);
  IF held THEN
    PERFORM FROM hawser.bridge_fence AS f WHERE f.epoch = p_epoch FOR SHARE;
    held := FOUND;
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.fence_batch(bigint) IS 'Whether batches of an epoch may be committed; if so, they may until the transaction ends.';

CREATE OR REPLACE FUNCTION hawser.finish_retry(
  p_id bigint,
  p_token bytea,
  OUT finished boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  DELETE FROM hawser.dead_letters AS d USING hawser.nats_handlers AS h
  WHERE d.id = p_id AND d.origin = 'subscription' AND d.retry_requested AND h.id = d.handler_id AND h.token = p_token;
  finished := FOUND;
END
$function$;
COMMENT ON FUNCTION hawser.finish_retry(bigint, bytea) IS 'Deletes a dead letter whose function has been called again, in the transaction of that call. The caller proves with the
token of the binding that it may. No row: it does not exist, or is not to be handled again.';

CREATE OR REPLACE FUNCTION hawser.set_nats_server(
  p_options jsonb,
  OUT defined boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  IF p_options IS NOT NULL THEN
    PERFORM hawser.nats_server_options_check(p_options, 'whole');
    -- A foreign server that is there counts as seen: only what is done to it from now on replaces this.
    UPDATE hawser.nats_server AS s
    SET
      options = p_options,
      server_name = NULL,
      seen_server_name = f.server_name,
      seen_options = f.options,
      changed_at = now()
    FROM (SELECT) AS one LEFT JOIN LATERAL (SELECT * FROM hawser.nats_foreign_servers() LIMIT 1) AS f ON true
    WHERE s.id = 1;
  ELSE
    -- What a foreign server says counts again.
    UPDATE hawser.nats_server AS s
    SET options = NULL, server_name = NULL, seen_server_name = NULL, seen_options = NULL, changed_at = now()
    WHERE s.id = 1;
    PERFORM hawser.follow_nats_server();
  END IF;
  SELECT s.options IS NOT NULL INTO STRICT defined FROM hawser.nats_server AS s WHERE s.id = 1;
END
$function$;
COMMENT ON FUNCTION hawser.set_nats_server(jsonb) IS 'Sets the options of the NATS server, in the place of a foreign server. Secrets in them are readable by the owner and by
hawser_bridge only.';

CREATE OR REPLACE FUNCTION hawser.follow_nats_server(
  OUT changed boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  present record;
  servers text[];
BEGIN
  SELECT array_agg(f.server_name) INTO servers FROM hawser.nats_foreign_servers() AS f;
  IF array_length(servers, 1) > 1 THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('a database has one NATS server, and here %s are defined: %s', array_length(servers, 1), array_to_string(servers, ', ')),
      HINT = format('DROP SERVER %I CASCADE, or alter the one that is there.', servers[array_upper(servers, 1)]);
  END IF;
  SELECT f.server_name, f.options INTO present FROM hawser.nats_foreign_servers() AS f;
  UPDATE hawser.nats_server AS s
  SET
    seen_server_name = present.server_name,
    seen_options = present.options,
    -- What hawser.set_nats_server has set outlives the end of a foreign server that it had replaced.
    options = CASE WHEN present.server_name IS NULL AND s.server_name IS NULL THEN s.options ELSE present.options END,
    server_name = present.server_name,
    changed_at = now()
  WHERE s.id = 1
    AND (s.seen_server_name, s.seen_options) IS DISTINCT FROM (present.server_name, present.options);
  changed := FOUND;
END
$function$;
COMMENT ON FUNCTION hawser.follow_nats_server() IS 'Takes over what has changed in the foreign server since it was last seen.';

CREATE OR REPLACE FUNCTION hawser.nats_foreign_servers()
RETURNS TABLE (
  server_name text,
  options jsonb,
  mapping jsonb,
  uncommitted boolean
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  own CONSTANT bigint := pg_current_xact_id_if_assigned()::text::bigint;
  server record;
  since bigint;
BEGIN
  -- A wrapper is ours by its validator, whatever it is called.
  FOR server IN
    SELECT
      s.srvname,
      s.xmin::text::bigint AS written_by,
      (SELECT coalesce(jsonb_object_agg(o.option_name, o.option_value), '{}') FROM pg_options_to_table(s.srvoptions) AS o) AS options,
      (
        SELECT jsonb_object_agg(o.option_name, o.option_value)
        FROM pg_user_mappings AS m, pg_options_to_table(m.umoptions) AS o
        WHERE m.srvid = s.oid AND m.usename = current_user
      ) AS mapping
    FROM pg_foreign_server AS s
    JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
    WHERE w.fdwvalidator = to_regprocedure('hawser_fdw.nats_fdw_validator(text[], oid)')
    ORDER BY s.oid
  LOOP
    server_name := server.srvname;
    options := server.options;
    mapping := server.mapping;
    uncommitted := false;
    -- A row that can be seen and whose transaction is in progress was written by this transaction or a subtransaction of
    -- it. Those have numbers from its own on; the row tells only the last 32 bits.
    since := (server.written_by - own) & 4294967295;
    IF since < 2147483648 THEN
      BEGIN
        uncommitted := coalesce(pg_xact_status((own + since)::text::xid8) = 'in progress', false);
      EXCEPTION
        -- A number that is not given yet: the row is older than Postgres can tell by it.
        WHEN invalid_parameter_value THEN NULL;
      END;
    END IF;
    RETURN NEXT;
  END LOOP;
END
$function$;
COMMENT ON FUNCTION hawser.nats_foreign_servers() IS 'The foreign servers that define a NATS server; more than one is a mistake.';

CREATE OR REPLACE FUNCTION hawser.refuse_uncommitted_server(
  OUT committed boolean
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  -- What this transaction wrote has the time of its start, whichever way it went.
  IF EXISTS (SELECT FROM hawser.nats_foreign_servers() AS f WHERE f.uncommitted)
    OR EXISTS (SELECT FROM hawser.nats_server AS s WHERE s.changed_at = now())
    -- One that is gone, and the gateway has not followed: that was this transaction, if it has written anything.
    OR (
      pg_current_xact_id_if_assigned() IS NOT NULL
      AND EXISTS (
        SELECT FROM hawser.nats_server AS s
        WHERE s.seen_server_name IS NOT NULL AND NOT EXISTS (SELECT FROM hawser.nats_foreign_servers())
      )
    )
  THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('server_uncommitted'),
      MESSAGE = 'the NATS server was defined or altered in this transaction, and the gateway cannot see that before COMMIT',
      HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'server_uncommitted');
  END IF;
  committed := true;
END
$function$;
COMMENT ON FUNCTION hawser.refuse_uncommitted_server() IS 'Refuses to go on if the definition of the NATS server was changed in this very transaction.';

CREATE OR REPLACE FUNCTION hawser.gateway_conninfo(
  OUT conninfo text
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  version CONSTANT integer := current_setting('server_version_num')::integer;
  place record;
BEGIN
  WITH addresses AS (
    -- Several gateways may share one: those behind the name of a service.
    SELECT DISTINCT ON (g.host, g.port) g.host, g.port, g.sslmode, g.root_certificate, g.started_at, known.is_stale
    FROM hawser.gateways AS g, LATERAL (
      -- On a standby nothing is written, and what it has may be old.
      SELECT g.owner <> '' AND NOT pg_is_in_recovery()
        AND g.seen_at < now() - 15000 * interval '1 ms' AS is_stale
    ) AS known
    ORDER BY g.host, g.port, known.is_stale, g.started_at DESC
  ), first_one AS (
    SELECT a.sslmode, a.root_certificate FROM addresses AS a ORDER BY a.is_stale, a.started_at DESC, a.host, a.port LIMIT 1
  )
  SELECT
    string_agg(a.host, ',' ORDER BY a.is_stale, a.started_at DESC, a.host, a.port) AS hosts,
    string_agg(a.port::text, ',' ORDER BY a.is_stale, a.started_at DESC, a.host, a.port) AS ports,
    min(a.sslmode) AS sslmode,
    min(a.root_certificate) AS root_certificate
  INTO place
  FROM addresses AS a, first_one AS f
  -- libpq takes one of each for all: those that differ are left out.
  WHERE a.sslmode = f.sslmode AND a.root_certificate IS NOT DISTINCT FROM f.root_certificate;
  IF place.hosts IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('gateway_unavailable'),
      MESSAGE = 'no gateway is entered for this database: none runs',
      HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'gateway_unavailable');
  END IF;
  -- dblink takes the first 63 bytes for the name of a foreign server before it takes the whole for a connection string:
  -- a role that could foretell them could make a server of that name, and have every session connect there. So they hold
  -- the password, and the order matters.
  SELECT string_agg(
    format('%s=''%s''', option.name, replace(replace(option.value, E'\\', E'\\\\'), '''', E'\\''')),
    ' ' ORDER BY option.position)
  INTO STRICT conninfo
  FROM (
    VALUES
      (1, 'password', (SELECT s.password FROM hawser.gateway_secret AS s)),
      (2, 'user', (SELECT s.user_name FROM hawser.gateway_secret AS s)),
      (3, 'host', place.hosts),
      (4, 'port', place.ports),
      (5, 'dbname', current_database()::text),
      (6, 'sslmode', place.sslmode),
      (7, 'sslrootcert', place.root_certificate),
      (8, 'gssencmode', 'disable'),
      -- Whatever the environment of the server says.
      (9, 'target_session_attrs', 'any'),
      (10, 'options', ''),
      (11, 'connect_timeout', 3::text),
      (12, 'keepalives_idle', 15::text),
      (13, 'keepalives_interval', 15::text),
      (14, 'keepalives_count', 3::text),
      (15, 'tcp_user_timeout', 30000::text),
      -- libpq refuses an option that it does not know.
      (16, 'require_auth', CASE WHEN version >= 160000 THEN 'scram-sha-256' END),
      -- Who ends TLS in between cannot pass the login on; and Postgres 14 and 15 say the password to nobody.
      (17, 'channel_binding', CASE WHEN place.sslmode <> 'disable' THEN 'require' END)
  ) AS option (position, name, value)
  WHERE option.value IS NOT NULL;
END
$function$;
COMMENT ON FUNCTION hawser.gateway_conninfo() IS 'How Postgres connects to the gateway, for libpq.';

CREATE OR REPLACE FUNCTION hawser.stream_start(
  p_called text,
  p_start text,
  OUT start text
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  start := coalesce(p_start, 'all');
  IF start = 'new' THEN
    start := to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
  ELSIF start ~ '^[0-9]+$' THEN
    IF start ~ '^0+$' OR start::numeric > 9007199254740991 THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('invalid_argument'),
        MESSAGE = format('%s: start is %s, and a sequence number is between 1 and 9007199254740991', p_called, left(start, 60)),
        HINT = 'The first message of a stream has 1; ''all'' begins with the first that is there.';
    END IF;
    start := start::bigint::text;
  ELSIF start <> 'all' THEN
    BEGIN
      start := to_char(start::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
    EXCEPTION
      WHEN data_exception THEN
        start := NULL;
    END;
    IF start IS NULL OR start !~ '^[12][0-9]{3}-' THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('invalid_argument'),
        MESSAGE = format('%s: start is %L, and must be ''new'', ''all'', a sequence number, or a time', p_called, left(p_start, 60)),
        HINT = 'A time is one as Postgres takes it, such as ''2026-01-31 12:00:00+00''.';
    END IF;
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.stream_start(text, text) IS 'Where a subscription begins, in one spelling: `all`, a sequence number, or a time; `new` is the present time.';

CREATE OR REPLACE FUNCTION hawser.add_stream(
  p_name text,
  p_stream text,
  p_filters text[],
  p_start text,
  p_key_token integer,
  p_domain text,
  OUT added boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  v_handler bigint;
  v_present record;
  v_rule text;
  -- Of one dimension, whatever was given.
  v_filters CONSTANT text[] := ARRAY(SELECT f.filter FROM unnest(p_filters) AS f (filter));
  v_wrong text;
  v_start CONSTANT text := (SELECT s.start FROM hawser.stream_start('nats_subscribe_stream', p_start) AS s);
BEGIN
  added := false;
  IF p_stream IS NULL OR array_position(v_filters, NULL) IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = format('nats_subscribe_stream: %s is NULL, and a value is needed', CASE WHEN p_stream IS NULL THEN 'stream' ELSE 'an element of filter' END);
  END IF;
  SELECT f.filter INTO v_wrong FROM unnest(v_filters) AS f (filter)
   WHERE f.filter !~ E'^(?:[^.>[:space:]][^.[:space:]]*\\.)*(?:[^.>[:space:]][^.[:space:]]*|>)$' LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('nats_subscribe_stream: filter has %L, and must have words joined by ''.'', of which each may be ''*'', and the last ''>''', left(v_wrong, 100)),
      HINT = 'Give subjects as NATS has them, or leave filter out for all messages.';
  END IF;
  SELECT h.id INTO v_handler FROM hawser.nats_handlers AS h WHERE h.kind = 'stream' AND h.subject = p_name ORDER BY h.id DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('hawser.add_stream: there is no handler %L of the kind stream', left(p_name, 100));
  END IF;
  SELECT s.* INTO v_present FROM hawser.stream_subscriptions AS s WHERE s.handler_id = v_handler ORDER BY s.turn DESC LIMIT 1;
  IF FOUND THEN
    IF (v_present.stream, v_present.filters) IS DISTINCT FROM (p_stream, v_filters)
      OR (v_present.key_token, v_present.domain) IS DISTINCT FROM (p_key_token, p_domain)
    THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('invalid_argument'),
        MESSAGE = format('nats_subscribe_stream: there is a subscription %L already, with another stream, filter, key_token or domain', p_name),
        HINT = format('Choose another name, or end that one: SELECT nats_unsubscribe_stream(%L)', p_name);
    END IF;
    RETURN;
  END IF;
  INSERT INTO hawser.stream_subscriptions (handler_id, name, stream, domain, filters, key_token, consumer, start)
  VALUES (v_handler, p_name, p_stream, p_domain, v_filters, p_key_token,
          format('hawser_%s_%s', p_name, left(replace(gen_random_uuid()::text, '-', ''), 8)), v_start);
  added := true;
EXCEPTION
  WHEN check_violation THEN
    GET STACKED DIAGNOSTICS v_rule = CONSTRAINT_NAME;
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = CASE
        WHEN v_rule ~ '_name_' THEN format('nats_subscribe_stream: name is %L, and must be 1 to 100 letters of ASCII, digits, ''_'' and ''-''', left(p_name, 100))
        WHEN v_rule ~ '_stream_(bytes|pattern)' THEN format('nats_subscribe_stream: stream is %L, which is no name of a stream', left(p_stream, 100))
        WHEN v_rule ~ '_domain_' THEN format('nats_subscribe_stream: domain is %L, which is no JetStream domain', left(p_domain, 100))
        WHEN v_rule ~ '_key_token_' THEN format('nats_subscribe_stream: key_token is %s, and must be from 1 to 64', p_key_token)
        ELSE format('nats_subscribe_stream: filter is %L, and must be up to 100 subjects', left(p_filters::text, 100))
      END,
      HINT = CASE
        WHEN v_rule ~ '_stream_(bytes|pattern)' THEN E'It has no ''.'', ''*'', ''>'', ''/'' or ''\\'' and no white space, and at most 255 bytes.'
        WHEN v_rule ~ '_key_token_' THEN 'The first word of the subject has 1.'
        ELSE 'Give one that obeys the rule.'
      END;
END
$function$;
COMMENT ON FUNCTION hawser.add_stream(text, text, text[], text, integer, text) IS 'Enters what a handler of the kind `stream` takes messages from.';

CREATE OR REPLACE FUNCTION hawser.request_seek(
  p_name text,
  p_start text,
  OUT requested boolean
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  v_start CONSTANT text := (SELECT s.start FROM hawser.stream_start('nats_seek_stream', p_start) AS s);
  v_present record;
BEGIN
  requested := false;
  IF p_name IS NULL OR p_start IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = format('nats_seek_stream: %s is NULL, and a value is needed', CASE WHEN p_name IS NULL THEN 'name' ELSE 'start' END);
  END IF;
  IF pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('replica'),
      MESSAGE = format('nats_seek_stream: %s', CASE WHEN pg_is_in_recovery() THEN 'this server is a replica' ELSE 'the transaction is read-only' END),
      HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'replica');
  END IF;
  FOR v_present IN SELECT h.* FROM hawser.lock_handlers('stream', p_name) AS h LOOP
    IF NOT pg_has_role(v_present.run_as, 'USAGE') THEN
      RAISE EXCEPTION USING
        ERRCODE = hawser.error_sqlstate('not_permitted'),
        MESSAGE = format('nats_seek_stream: the subscription %L was made by "%s", and "%s" is not in that role', p_name, v_present.run_as, current_user),
        HINT = format('Have "%s" do it.', v_present.run_as);
    END IF;
    -- Only the owner of the wrapper may write there: by that the other function knows that this may be done.
    EXECUTE format('COMMENT ON TYPE %s IS %L', v_present.token_type, gen_random_uuid()::text || ' ' || v_start);
    requested := (SELECT s.sought FROM hawser.apply_seek(p_name) AS s);
    RETURN;
  END LOOP;
  RAISE EXCEPTION USING
    ERRCODE = hawser.error_sqlstate('invalid_argument'),
    MESSAGE = format('nats_seek_stream: there is no subscription %L to a stream', left(p_name, 100)),
    HINT = 'SELECT name FROM hawser.stream_status shows which there are.';
END
$function$;
COMMENT ON FUNCTION hawser.request_seek(text, text) IS 'Has a subscription go on somewhere else, if its function is the caller''s.';

CREATE OR REPLACE FUNCTION hawser.apply_seek(
  p_name text,
  OUT sought boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  v_present record;
  v_asked text;
BEGIN
  sought := false;
  FOR v_present IN SELECT h.* FROM hawser.lock_handlers('stream', p_name) AS h LOOP
    v_asked := obj_description(to_regtype(v_present.token_type), 'pg_type');
    CONTINUE WHEN v_asked IS NULL OR v_asked !~ '^[-0-9a-f]{36} (all|[0-9]{1,16}|[12][0-9]{3}-[-0-9T:.]+Z)$';
    UPDATE hawser.stream_subscriptions AS s
       SET turn = s.turn + 1, generation = s.generation + 1 + floor(random() * 1048576)::bigint, seek = left(v_asked, 36),
           start = substr(v_asked, 38), stream_created = NULL, position = NULL, done = '{}', last_done = NULL, last_done_at = NULL,
           nothing_until = 0, lag = NULL, missing = 0, missing_reason = NULL, missing_from = NULL, missing_to = NULL, missing_at = NULL,
           paused = false, problem = NULL, written_at = clock_timestamp()
      FROM hawser.nats_handlers AS h
     WHERE h.kind = 'stream' AND h.subject = p_name AND h.wrapper = v_present.wrapper AND s.handler_id = h.id
       AND s.seek IS DISTINCT FROM left(v_asked, 36);
    sought := sought OR FOUND;
  END LOOP;
  IF sought THEN
    PERFORM pg_notify('hawser_nats_handlers', '{}');
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.apply_seek(text) IS 'Does what the comment of the wrapper''s type asks for, once: only its owner can have written that.';

CREATE OR REPLACE FUNCTION hawser.stream_position(
  p_handler bigint,
  p_generation bigint,
  OUT done_to bigint,
  OUT done int8multirange,
  OUT turn bigint
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  SELECT s.position, s.done, s.turn INTO done_to, done, turn FROM hawser.stream_subscriptions AS s
  WHERE s.handler_id = p_handler AND s.generation = p_generation AND NOT s.paused
  ORDER BY s.turn DESC LIMIT 1;
END
$function$;
COMMENT ON FUNCTION hawser.stream_position(bigint, bigint) IS 'How far a subscription has come, for the transaction of a batch.';

CREATE OR REPLACE FUNCTION hawser.advance_stream(
  p_handler bigint,
  p_token bytea,
  p_generation bigint,
  p_done int8multirange,
  p_last_done bigint,
  p_last_done_at bigint,
  p_lag bigint,
  p_missing bigint,
  OUT state text,
  OUT turn bigint
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  v_present record;
  v_done int8multirange;
  v_position bigint;
BEGIN
  state := 'moved';
  SELECT s.turn, s.position, s.done, s.generation, s.paused INTO v_present
    FROM hawser.stream_subscriptions AS s JOIN hawser.nats_handlers AS h ON h.id = s.handler_id
   WHERE s.handler_id = p_handler AND h.token = p_token
   ORDER BY s.turn DESC LIMIT 1 FOR UPDATE OF s;
  IF NOT FOUND OR v_present.generation <> p_generation OR v_present.paused OR v_present.position IS NULL THEN
    RETURN;
  END IF;
  v_done := v_present.done + int8multirange(int8range(NULL, v_present.position + 1));
  IF p_done <@ v_done THEN
    state := 'done';
    RETURN;
  END IF;
  -- Some of them were committed by another transaction, which this one has waited for.
  IF p_done && v_done THEN
    RETURN;
  END IF;
  v_done := v_done + p_done;
  v_position := (SELECT upper(r.one) - 1 FROM unnest(v_done) AS r (one) WHERE lower_inf(r.one));
  UPDATE hawser.stream_subscriptions AS s
     SET turn = s.turn + 1, position = v_position, done = v_done - int8multirange(int8range(NULL, v_position + 1)),
         last_done = greatest(s.last_done, p_last_done),
         last_done_at = CASE WHEN s.last_done > p_last_done THEN s.last_done_at ELSE p_last_done_at END,
         lag = p_lag, problem = NULL, written_at = clock_timestamp(), missing = s.missing + p_missing,
         missing_reason = CASE WHEN p_missing > 0 THEN 'deleted' ELSE s.missing_reason END,
         missing_from = CASE WHEN p_missing > 0 THEN lower(p_done) ELSE s.missing_from END,
         missing_to = CASE WHEN p_missing > 0 THEN p_last_done - 1 ELSE s.missing_to END,
         missing_at = CASE WHEN p_missing > 0 THEN clock_timestamp() ELSE s.missing_at END
   WHERE s.handler_id = p_handler AND s.turn = v_present.turn;
  turn := v_present.turn + 1;
  state := 'advanced';
END
$function$;
COMMENT ON FUNCTION hawser.advance_stream(bigint, bytea, bigint, int8multirange, bigint, bigint, bigint, bigint) IS 'Writes in the transaction of a batch that its messages are done. The caller proves with the token of the binding that it
may.';

CREATE OR REPLACE VIEW hawser.stream_status WITH (security_barrier) AS
SELECT
  v.name::text AS name,
  v.stream::text AS stream,
  v.domain::text AS domain,
  v.function::text AS function,
  v.filters::text[] AS filters,
  v.start::text AS start,
  v.key_token::integer AS key_token,
  v.done_to::bigint AS done_to,
  v.lag::bigint AS lag,
  v.problem::text AS problem,
  v.paused::boolean AS paused,
  v.missing::bigint AS missing,
  v.missing_reason::text AS missing_reason,
  v.missing_from::bigint AS missing_from,
  v.missing_to::bigint AS missing_to,
  v.missing_at::timestamptz AS missing_at,
  v.written_at::timestamptz AS written_at
FROM (
SELECT s.name, s.stream, s.domain, format('%I.%I(%s)', h.function_schema, h.function_name, h.argument_types) AS function, s.filters,
       s.start, s.key_token, s.position AS done_to, s.lag, s.problem, s.paused, s.missing, s.missing_reason, s.missing_from, s.missing_to,
       s.missing_at, s.written_at
  FROM hawser.stream_subscriptions AS s
  JOIN hawser.nats_handlers AS h ON h.id = s.handler_id
 -- A subscription is there as long as the type of its wrapper is.
 WHERE EXISTS (
   SELECT FROM pg_catalog.pg_type AS t
    WHERE t.typnamespace = pg_catalog.to_regnamespace('hawser_run')
      AND t.typname = 'token_' || pg_catalog.right(h.wrapper, 16))
) AS v;
COMMENT ON VIEW hawser.stream_status IS 'The subscriptions to streams, for operators: how far each has come, and what is missing.';
COMMENT ON COLUMN hawser.stream_status.name IS 'The name of the subscription.';
COMMENT ON COLUMN hawser.stream_status.stream IS 'The stream.';
COMMENT ON COLUMN hawser.stream_status.domain IS 'The JetStream domain; NULL: that of the server.';
COMMENT ON COLUMN hawser.stream_status.function IS 'The function.';
COMMENT ON COLUMN hawser.stream_status.filters IS 'The subjects; empty: all of the stream.';
COMMENT ON COLUMN hawser.stream_status.start IS 'Where it began, or was last sent to by nats_seek_stream: `all`, a sequence number, or a time.';
COMMENT ON COLUMN hawser.stream_status.key_token IS 'The word of the subject by which messages run side by side; NULL: all run in order.';
COMMENT ON COLUMN hawser.stream_status.done_to IS 'All messages up to this sequence number are done; NULL: it has not begun.';
COMMENT ON COLUMN hawser.stream_status.lag IS 'How many messages of the stream are not done; NULL: not known.';
COMMENT ON COLUMN hawser.stream_status.problem IS 'What keeps it from going on; NULL: nothing.';
COMMENT ON COLUMN hawser.stream_status.paused IS 'It goes on only after nats_seek_stream.';
COMMENT ON COLUMN hawser.stream_status.missing IS 'How many messages were gone from the stream before they could be taken, since the last nats_seek_stream. With a filter:
at most, because those of other subjects cannot be told from them.';
COMMENT ON COLUMN hawser.stream_status.missing_reason IS 'Why the last ones were: `cut_short` by a limit of the stream or a purge, `deleted` singly, `acknowledged` in a stream that
deletes what is, `recreated` with the stream, so that it is not known how many.';
COMMENT ON COLUMN hawser.stream_status.missing_from IS 'The first of those.';
COMMENT ON COLUMN hawser.stream_status.missing_to IS 'The last of those.';
COMMENT ON COLUMN hawser.stream_status.missing_at IS 'When that was noticed.';
COMMENT ON COLUMN hawser.stream_status.written_at IS 'When the row was written last.';

DO $do$
DECLARE
  present CONSTANT oid[] := pg_catalog.string_to_array(pg_catalog.current_setting('hawser.present', true), ',')::oid[];
  statement text;
BEGIN
  FOR statement IN
    WITH made AS (
      SELECT o.* FROM (
        SELECT n.oid, 'SCHEMA hawser' AS object, 'n'::"char" AS type, n.nspowner AS owner, n.nspacl AS acl
        FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'
        UNION ALL
        SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,
          (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner, c.relacl
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl
        FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')
      ) AS o WHERE o.oid <> ALL (coalesce(present, '{}'))
    )
    SELECT pg_catalog.format('REVOKE ALL ON %s FROM %s', m.object,
      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
    FROM made AS m
    CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(m.acl, pg_catalog.acldefault(m.type, m.owner))) AS a
    WHERE a.grantee <> m.owner
    UNION
    -- They can lack rights of the owner, too.
    SELECT pg_catalog.format('GRANT ALL ON %s TO %I', m.object, pg_catalog.pg_get_userbyid(m.owner))
    FROM made AS m WHERE m.acl IS NOT NULL
  LOOP
    EXECUTE statement;
  END LOOP;
END
$do$;

DO $do$
BEGIN
  -- What is new after what follows gets no default privileges: see the block at the end.
  PERFORM pg_catalog.set_config('hawser.present', (
    SELECT coalesce(pg_catalog.string_agg(o.oid::text, ','), '') FROM (
      SELECT n.oid, 'SCHEMA hawser' AS object, 'n'::"char" AS type, n.nspowner AS owner, n.nspacl AS acl
      FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'
      UNION ALL
      SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,
        (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner, c.relacl
      FROM pg_catalog.pg_class AS c
      WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      UNION ALL
      SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl
      FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')
    ) AS o
  ), false);
  IF to_regnamespace('hawser') IS NULL THEN
    CREATE SCHEMA hawser;
  END IF;
END
$do$;

CREATE OR REPLACE FUNCTION hawser.enqueue_nats(
  p_subject text,
  p_payloads bytea[],
  p_headers jsonb,
  p_key text,
  p_message_id text,
  p_to_stream boolean,
  p_domain text,
  p_deliver_at timestamptz,
  OUT id bigint
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  v_cluster bigint;
BEGIN
  -- As present_cluster() does, in place: calling it takes twice the time.
  IF has_function_privilege('pg_catalog.pg_control_system()'::regprocedure, 'EXECUTE') THEN
    v_cluster := (pg_control_system()).system_identifier;
  END IF;
  IF p_headers IS NOT NULL THEN
    PERFORM hawser.check_headers(p_headers);
  END IF;
  IF p_deliver_at > clock_timestamp() THEN
    id := hawser.enqueue_later(
      'nats', p_subject, p_payloads, p_headers, p_key, p_message_id, p_to_stream, p_domain, p_deliver_at, NULL
    );
    IF id IS NULL THEN
      RETURN;
    END IF;
  ELSE
    IF p_key IS NOT NULL THEN
      PERFORM FROM hawser.outbox_keys AS k
       WHERE k.bucket = (hashtextextended(p_subject || ' ' || p_key, 0) & 4095)::integer
         FOR UPDATE;
    END IF;

    -- One array that is read from its beginning: its order is that of the ids. A sequence that was never set has no last value.
    INSERT INTO hawser.outbox (slot, destination, payload, headers, key, message_id, to_stream, domain, cluster)
    SELECT (coalesce(pg_sequence_last_value('hawser.outbox_state_slot_seq'), 1) - 1) % 3, p_subject, p.payload,
           nullif(p_headers, '{}'), p_key, coalesce(p_message_id, gen_random_uuid()::text), p_to_stream, p_domain, v_cluster
      FROM unnest(p_payloads) AS p (payload);
    IF NOT FOUND THEN
      RETURN;
    END IF;
    id := currval('hawser.outbox_id_seq');
  END IF;

  -- Behind the insert, by which the transaction has an id: the relay's last look before it sleeps sees that it is open. A
  -- sequence shows its present value, whatever the snapshot.
  IF pg_sequence_last_value('hawser.outbox_state_asleep_seq') = 2 THEN
    PERFORM pg_notify('hawser_outbox', '');
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.enqueue_nats(text, bytea[], jsonb, text, text, boolean, text, timestamptz) IS 'Writes messages into the outbox, in the caller''s transaction. For the SQL functions, which check the arguments.';

CREATE OR REPLACE FUNCTION hawser.enqueue_later(
  p_kind text,
  p_destination text,
  p_payloads bytea[],
  p_headers jsonb,
  p_key text,
  p_message_id text,
  p_to_stream boolean,
  p_domain text,
  p_deliver_at timestamptz,
  p_listener text,
  OUT id bigint
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
  IF p_deliver_at > clock_timestamp() + interval '3660 days' THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('the argument deliver_at is %s, and must be within 3660 days', p_deliver_at),
      HINT = 'Give an earlier moment, or keep the message in a table of yours until then.';
  END IF;
  INSERT INTO hawser.outbox_later (id, kind, deliver_at, destination, payload, headers, key, message_id, to_stream, domain, listener)
  SELECT nextval('hawser.outbox_id_seq'), p_kind, p_deliver_at, p_destination, n.payload, nullif(p_headers, '{}'), p_key,
         coalesce(p_message_id, gen_random_uuid()::text), p_to_stream, p_domain, p_listener
    FROM (SELECT p.payload FROM unnest(p_payloads) WITH ORDINALITY AS p (payload, nth) ORDER BY p.nth) AS n;
  IF FOUND THEN
    id := currval('hawser.outbox_id_seq');
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.enqueue_later(text, text, bytea[], jsonb, text, text, boolean, text, timestamptz, text) IS 'Writes messages that are due at a later time, in the caller''s transaction. For the functions that enqueue.';

CREATE OR REPLACE FUNCTION hawser.bring_due(
  p_kind text,
  p_from timestamptz,
  OUT brought integer,
  OUT due_from timestamptz,
  OUT due_in_ms bigint
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  v_next timestamptz;
BEGIN
  -- Those that somebody is about to cancel are left: waiting for them would hold up the others.
  IF p_kind = 'nats' THEN
    WITH due AS (
      SELECT l.id FROM hawser.outbox_later AS l
       WHERE l.kind = p_kind AND l.deliver_at >= p_from AND l.deliver_at <= v_now
       ORDER BY l.deliver_at, l.id
       LIMIT 1000
         FOR UPDATE SKIP LOCKED
    ), gone AS (
      DELETE FROM hawser.outbox_later AS l USING due AS d WHERE l.id = d.id RETURNING l.*
    )
    INSERT INTO hawser.outbox (slot, destination, payload, headers, key, message_id, to_stream, domain, cluster, first_enqueued_at)
    SELECT (s.last_value - 1) % 3, g.destination, g.payload, g.headers, g.key, g.message_id, g.to_stream,
           g.domain, c.cluster,
           g.deliver_at
      FROM gone AS g, hawser.outbox_state_slot_seq AS s, hawser.present_cluster() AS c (cluster)
     ORDER BY g.deliver_at, g.id;
    GET DIAGNOSTICS brought = ROW_COUNT;
  ELSE
    WITH due AS (
      SELECT l.id FROM hawser.outbox_later AS l
       WHERE l.kind = p_kind AND l.deliver_at >= p_from AND l.deliver_at <= v_now
       ORDER BY l.deliver_at, l.id
       LIMIT 1000
         FOR UPDATE SKIP LOCKED
    ), gone AS (
      DELETE FROM hawser.outbox_later AS l USING due AS d WHERE l.id = d.id RETURNING l.*
    )
    INSERT INTO hawser.peer_outbox (slot, topic, payload, headers, key, listener, cluster)
    SELECT (s.last_value - 1) % 3, g.destination, g.payload, g.headers, g.key, g.listener, c.cluster
      FROM gone AS g, hawser.peer_outbox_state_slot_seq AS s, hawser.present_cluster() AS c (cluster)
     ORDER BY g.deliver_at, g.id;
    GET DIAGNOSTICS brought = ROW_COUNT;
  END IF;

  SELECT min(l.deliver_at) INTO due_from FROM hawser.outbox_later AS l WHERE l.kind = p_kind AND l.deliver_at >= p_from;
  due_in_ms := CASE
    WHEN brought = 1000 THEN 0
    ELSE ceil(extract(epoch FROM due_from - clock_timestamp()) * 1000)
  END;
  IF due_from <= v_now AND brought < 1000 THEN
    SELECT min(l.deliver_at) INTO v_next FROM hawser.outbox_later AS l WHERE l.kind = p_kind AND l.deliver_at > v_now;
    due_in_ms := least(50, ceil(extract(epoch FROM v_next - clock_timestamp()) * 1000));
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.bring_due(text, timestamptz) IS 'Brings the messages of a kind that are due into its outbox. For the turns of relays, which have their fence first.';

CREATE OR REPLACE FUNCTION hawser.least_due(
  p_kind text,
  p_from pg_snapshot,
  OUT due_from timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
  IF p_from IS NULL THEN
    -- In a copy of another cluster's database they may have ids of transactions that are still to come here, and every look
    -- would find them. 2 is older than everything.
    UPDATE hawser.outbox_later AS l SET xid = '2' WHERE l.kind = p_kind AND l.xid > pg_current_xact_id();
    SELECT min(l.deliver_at) INTO due_from FROM hawser.outbox_later AS l WHERE l.kind = p_kind;
  ELSE
    SELECT min(l.deliver_at) INTO due_from FROM hawser.outbox_later AS l
     WHERE l.kind = p_kind
       AND (l.xid >= pg_snapshot_xmax(p_from) OR l.xid = ANY (ARRAY(SELECT pg_snapshot_xip(p_from))));
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.least_due(text, pg_snapshot) IS 'When the first message of a kind is due, of those that an earlier snapshot does not see. For the turns of relays.';

CREATE OR REPLACE FUNCTION hawser.outbox_cancel(
  id bigint,
  OUT cancelled boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
  IF outbox_cancel.id IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'hawser.outbox_cancel: the argument id is NULL, and needs a value',
      HINT = 'Give the number that the function returned which has enqueued the message.';
  END IF;
  DELETE FROM hawser.outbox_later AS l WHERE l.id = outbox_cancel.id;
  cancelled := FOUND;
END
$function$;
COMMENT ON FUNCTION hawser.outbox_cancel(bigint) IS 'Takes back a message with deliver_at, in the present transaction. Returns false if it was due already, or cancelled, or if
there is none with this number.';

CREATE OR REPLACE FUNCTION hawser.outbox_replay(
  since timestamptz,
  subject text DEFAULT NULL,
  until timestamptz DEFAULT NULL,
  core boolean DEFAULT NULL,
  OUT replayed bigint
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
  SELECT p.replayed INTO replayed FROM hawser.replay_page(since, subject, until, core, 0, NULL, NULL) AS p;
END
$function$;
COMMENT ON FUNCTION hawser.outbox_replay(timestamptz, text, timestamptz, boolean) IS 'Publishes messages again that the outbox still has, as far as their streams do not have them. Returns how many it has
written into the outbox for that.';

CREATE OR REPLACE FUNCTION hawser.replay_page(
  p_since timestamptz,
  p_subject text,
  p_until timestamptz,
  p_core boolean,
  p_after bigint,
  p_upto bigint,
  p_max_messages integer,
  OUT replayed bigint,
  OUT last_id bigint,
  OUT upto bigint,
  OUT enqueued_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  v_cluster CONSTANT bigint := hawser.present_cluster();
  v_refusal record;
  v_pattern text;
BEGIN
  SELECT r.* INTO v_refusal FROM (
    VALUES
      (p_since IS NULL, 'null_argument', 'the argument since is NULL, and needs a value',
        'Give the time from which on the messages were enqueued.'),
      (p_until <= p_since, 'invalid_argument', format('until, %s, is not behind since, %s', p_until, p_since),
        'Give a later time, or leave until out.'),
      (p_subject !~ E'^(?:[^.*>\\s]+|\\*)(?:\\.(?:[^.*>\\s]+|\\*))*(?:\\.>)?$' AND p_subject <> '>', 'invalid_argument',
        format('the argument subject is %s, and must be words joined by ''.'', of which each may be ''*'', and the last ''>''',
          to_json(left(p_subject, 60))),
        'Give a subject as NATS has them, or leave it out for all.')
  ) AS r (is_wrong, code, message, hint) WHERE r.is_wrong LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate(v_refusal.code),
      MESSAGE = 'hawser.outbox_replay: ' || v_refusal.message,
      HINT = v_refusal.hint;
  END IF;
  -- Every special character of a pattern is escaped, then the wildcards get their meaning.
  v_pattern := '^' || regexp_replace(
    regexp_replace(regexp_replace(p_subject, E'([][\\\\^$.|?*+(){}])', E'\\\\\\1', 'g'), E'\\\\\\*', '[^.]+', 'g'), '>$', '.+'
  ) || '$';
  upto := coalesce(p_upto, (SELECT s.last_value FROM hawser.outbox_id_seq AS s));

  WITH page AS (
    SELECT o.* FROM hawser.outbox AS o WHERE o.id > p_after AND o.id <= upto ORDER BY o.id LIMIT p_max_messages
  ), put AS (
    INSERT INTO hawser.outbox
      (slot, destination, payload, headers, key, message_id, to_stream, domain, cluster, first_enqueued_at, copy_of)
    SELECT (s.last_value - 1) % 3, p.destination, p.payload, p.headers, p.key, p.message_id, p.to_stream,
           p.domain, v_cluster, coalesce(p.first_enqueued_at, p.enqueued_at), coalesce(p.copy_of, p.id)
      FROM page AS p, hawser.outbox_state_slot_seq AS s
     WHERE p.enqueued_at >= p_since
       AND (p_until IS NULL OR p.enqueued_at < p_until)
       AND (p_subject IS NULL OR p.destination ~ v_pattern)
       AND (p.to_stream OR p_core)
       -- Copies of an earlier replay, where the first one is written again as well.
       AND NOT EXISTS (
         SELECT FROM hawser.outbox AS f
          WHERE f.id = p.copy_of AND f.enqueued_at >= p_since AND (p_until IS NULL OR f.enqueued_at < p_until)
       )
       -- Those that NATS has refused, and nobody has decided about.
       AND NOT EXISTS (
         SELECT FROM hawser.dead_letters AS d
          WHERE d.message_id = p.message_id AND d.origin = 'outbox' AND d.topic = p.destination
       )
     ORDER BY p.id
    RETURNING 1
  )
  SELECT (SELECT count(*) FROM put), max(p.id), (SELECT l.enqueued_at FROM page AS l ORDER BY l.id DESC LIMIT 1)
    INTO replayed, last_id, enqueued_at FROM page AS p;
  IF replayed > 0 AND (SELECT a.last_value FROM hawser.outbox_state_asleep_seq AS a) = 2 THEN
    PERFORM pg_notify('hawser_outbox', '');
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.replay_page(timestamptz, text, timestamptz, boolean, bigint, bigint, integer) IS 'The same, page by page, in the order of the numbers.';

CREATE OR REPLACE FUNCTION hawser.check_headers(
  p_headers jsonb,
  OUT checked boolean
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  v_name text;
  v_value jsonb;
  v_fault text;
BEGIN
  checked := true;
  IF p_headers IS NULL THEN
    RETURN;
  END IF;
  IF jsonb_typeof(p_headers) <> 'object' THEN
    v_fault := 'headers must be a JSON object, and this is ' || jsonb_typeof(p_headers);
  ELSE
    FOR v_name, v_value IN
      SELECT h.key, v.value
        FROM jsonb_each(p_headers) AS h,
             jsonb_array_elements(CASE jsonb_typeof(h.value) WHEN 'array' THEN h.value ELSE jsonb_build_array(h.value) END) AS v
    LOOP
      v_fault := CASE
        WHEN v_name !~ '^[!-9;-~]+$' THEN
          format('headers: the name %s must be printable ASCII, without spaces and colons, and not empty', to_json(v_name))
        WHEN lower(v_name) = 'nats-msg-id' THEN
          format('headers: %s is set by Hawser; give message_id instead', to_json(v_name))
        WHEN jsonb_typeof(v_value) <> 'string' THEN
          format('headers: %s must be a string or an array of strings, and has %s', to_json(v_name), jsonb_typeof(v_value))
        WHEN v_value #>> '{}' ~ E'[\r\n]' THEN
          format('headers: the value of %s must not have CR or LF', to_json(v_name))
      END;
      EXIT WHEN v_fault IS NOT NULL;
    END LOOP;
  END IF;
  IF v_fault IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = v_fault || '.',
      HINT = 'Give an object of strings, or of arrays of strings.';
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.check_headers(jsonb) IS 'Refuses headers that NATS cannot have.';

CREATE OR REPLACE FUNCTION hawser.present_cluster(
  OUT cluster bigint
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  -- Some services keep it to themselves.
  IF has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') THEN
    SELECT c.system_identifier INTO cluster FROM pg_control_system() AS c;
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.present_cluster() IS 'The cluster, by its system identifier. NULL where that may not be read.';

CREATE OR REPLACE FUNCTION hawser.take_outbox(
  p_owner text,
  p_after text,
  OUT turn bigint,
  OUT done_from pg_snapshot,
  OUT done_to pg_snapshot,
  OUT done_after bigint,
  OUT skipped bigint[],
  OUT can_notify boolean,
  OUT was_given_back boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  v_cluster CONSTANT bigint := hawser.present_cluster();
  v_old record;
BEGIN
  SELECT t.* INTO v_old FROM hawser.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  IF NOT FOUND THEN
    -- A dump that was made while old turns were removed has none. What it has kept is new.
    SELECT 1 AS turn, '' AS owner, '3:3:'::pg_snapshot AS done_from, NULL::pg_snapshot AS done_to, 0 AS done_after,
           '{}'::bigint[] AS skipped, NULL::bigint AS cluster
      INTO v_old;
  END IF;
  IF p_after <> v_old.owner THEN
    RETURN;
  END IF;
  turn := v_old.turn + 1;
  done_from := v_old.done_from;
  done_to := v_old.done_to;
  done_after := v_old.done_after;
  skipped := v_old.skipped;
  was_given_back := v_old.owner = '';
  IF v_cluster IS NOT NULL AND v_old.cluster IS DISTINCT FROM v_cluster THEN
    -- A copy of the database: transactions of the other cluster have ids here that mean nothing. What they have left undone
    -- becomes part of this transaction. What was written since, here or in a third cluster, is new anyway. 2 is older than
    -- everything.
    UPDATE hawser.outbox AS o
       SET cluster = v_cluster,
           xid = CASE
             WHEN o.cluster = v_old.cluster AND (
               pg_visible_in_snapshot(o.xid, v_old.done_from) OR o.id = ANY (v_old.skipped)
               OR (v_old.done_to IS NOT NULL AND pg_visible_in_snapshot(o.xid, v_old.done_to) AND o.id <= v_old.done_after)
             ) THEN '2'::xid8
             ELSE pg_current_xact_id()
           END
     WHERE o.cluster IS DISTINCT FROM v_cluster;
    done_from := '3:3:';
    done_to := NULL;
    done_after := 0;
    skipped := '{}';
  END IF;
  -- Fails if another relay has had this turn meanwhile.
  INSERT INTO hawser.outbox_turns (turn, owner, done_from, done_to, done_after, skipped, cluster)
  VALUES (turn, p_owner, done_from, done_to, done_after, skipped, v_cluster);
  can_notify := current_setting('max_prepared_transactions') = '0';
  PERFORM setval('hawser.outbox_state_asleep_seq', 1);
END
$function$;
COMMENT ON FUNCTION hawser.take_outbox(text, text) IS 'Makes a relay the one that works: from now on no turn of another one is saved.';

CREATE OR REPLACE FUNCTION hawser.run_outbox_turn(
  p_owner text,
  p_turn bigint,
  p_done_from pg_snapshot,
  p_done_to pg_snapshot,
  p_done_after bigint,
  p_skipped bigint[],
  p_must_save boolean,
  p_dead jsonb,
  p_asleep boolean,
  p_read_from pg_snapshot,
  p_read_to pg_snapshot,
  p_read_after bigint,
  p_max_messages integer,
  p_max_bytes bigint,
  p_due_from timestamptz,
  p_later_from pg_snapshot
)
RETURNS TABLE (
  state text,
  done_to pg_snapshot,
  has_more boolean,
  id bigint,
  destination text,
  payload bytea,
  headers jsonb,
  key text,
  message_id text,
  to_stream boolean,
  domain text,
  enqueued_at timestamptz,
  first_enqueued_at timestamptz,
  copy_of bigint,
  brought integer,
  due_from timestamptz,
  due_in_ms bigint
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $function$
#variable_conflict use_column
DECLARE
  v_latest record;
  v_xmax CONSTANT xid8 := pg_snapshot_xmax(p_read_from);
  v_xip CONSTANT xid8[] := ARRAY(SELECT pg_snapshot_xip(p_read_from));
  v_to pg_snapshot := p_read_to;
  v_messages refcursor;
  v_message record;
  v_count integer := 0;
  v_bytes bigint := 0;
  v_has_more boolean := false;
  -- How many messages are new, counted up to sorted_messages. NULL: a page of a set that was begun.
  v_new bigint;
  v_saves boolean := p_must_save OR p_due_from IS NOT NULL;
  v_due record;
  v_found timestamptz;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.run_outbox_turn needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  SELECT t.turn, t.owner, t.cluster INTO STRICT v_latest FROM hawser.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  IF v_latest.owner <> p_owner OR v_latest.turn NOT IN (p_turn, p_turn - 1) THEN
    state := 'lost';
    RETURN NEXT;
    RETURN;
  END IF;
  IF v_latest.turn = p_turn THEN
    state := 'repeated';
    RETURN NEXT;
    RETURN;
  END IF;

  IF v_saves THEN
    -- Fails if another relay has had this turn meanwhile. First, so that it also fences what is brought in.
    INSERT INTO hawser.outbox_turns (turn, owner, done_from, done_to, done_after, skipped, cluster)
    VALUES (p_turn, p_owner, p_done_from, p_done_to, p_done_after, p_skipped, v_latest.cluster);
  END IF;
  SELECT b.brought, b.due_from, b.due_in_ms INTO v_due FROM hawser.bring_due('nats', p_due_from) AS b
   WHERE p_due_from IS NOT NULL;
  IF p_asleep IS NOT NULL THEN
    PERFORM setval('hawser.outbox_state_asleep_seq', CASE WHEN p_asleep THEN 2 ELSE 1 END);
  END IF;
  IF p_read_from IS NOT NULL THEN
    IF p_read_to IS NULL THEN
      -- A statement of its own, behind the setval: of those who have not seen that, it sees or lists all.
      SELECT pg_current_snapshot() INTO v_to;
      SELECT l.due_from INTO v_found FROM hawser.least_due('nats', p_later_from) AS l;
      SELECT count(*) INTO v_new FROM (
        SELECT FROM hawser.outbox AS o WHERE o.xid >= v_xmax
        UNION ALL
        SELECT FROM hawser.outbox AS o WHERE o.xid = ANY (v_xip)
        LIMIT 100000
      ) AS n;
    END IF;
    IF v_new < 100000 THEN
      -- By xids: in the order of ids, all that was ever enqueued would be passed.
      OPEN v_messages FOR
        SELECT n.* FROM (
                 SELECT o.* FROM hawser.outbox AS o WHERE o.xid >= v_xmax
                 UNION ALL
                 SELECT o.* FROM hawser.outbox AS o WHERE o.xid = ANY (v_xip)
               ) AS n
         WHERE pg_visible_in_snapshot(n.xid, v_to) AND n.id > p_read_after
         ORDER BY n.id LIMIT p_max_messages + 1;
    ELSE
      -- By ids: each page that sorted the whole set would cost as much as the first, which may be too much already.
      OPEN v_messages FOR
        SELECT n.* FROM (SELECT o.* FROM hawser.outbox AS o WHERE o.id > p_read_after ORDER BY o.id OFFSET 0) AS n
         WHERE (n.xid >= v_xmax OR n.xid = ANY (v_xip)) AND pg_visible_in_snapshot(n.xid, v_to)
         LIMIT p_max_messages + 1;
    END IF;
    LOOP
      FETCH v_messages INTO v_message;
      EXIT WHEN NOT FOUND;
      v_bytes := v_bytes + octet_length(v_message.payload) + coalesce(octet_length(v_message.headers::text), 0);
      v_has_more := v_count > 0 AND (v_count = p_max_messages OR v_bytes > p_max_bytes);
      EXIT WHEN v_has_more;
      v_count := v_count + 1;
      id := v_message.id;
      destination := v_message.destination;
      payload := v_message.payload;
      headers := v_message.headers;
      key := v_message.key;
      message_id := v_message.message_id;
      to_stream := v_message.to_stream;
      domain := v_message.domain;
      enqueued_at := v_message.enqueued_at;
      first_enqueued_at := v_message.first_enqueued_at;
      copy_of := v_message.copy_of;
      RETURN NEXT;
    END LOOP;
    CLOSE v_messages;
  END IF;

  id := NULL;
  payload := NULL;
  IF p_dead IS NOT NULL THEN
    INSERT INTO hawser.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts, message_id)
    SELECT DISTINCT ON (o.destination, o.message_id, o.payload)
           'outbox', CASE WHEN o.to_stream THEN coalesce(o.domain, '') ELSE 'core' END, o.destination, o.payload, (
             SELECT jsonb_agg(jsonb_build_array(h.key, v.value))
               FROM jsonb_each(o.headers) AS h,
                    jsonb_array_elements(CASE jsonb_typeof(h.value) WHEN 'array' THEN h.value ELSE jsonb_build_array(h.value) END) AS v
           ), d.code, d.message, d.attempts, o.message_id
      FROM jsonb_to_recordset(p_dead) AS d (id bigint, code text, message text, attempts integer)
      JOIN hawser.outbox AS o ON o.id = d.id
     -- What was written into the outbox again is one dead letter with the first one.
     WHERE NOT EXISTS (
       SELECT FROM hawser.dead_letters AS k
        WHERE k.message_id = o.message_id AND k.origin = 'outbox' AND k.topic = o.destination AND k.payload = o.payload
     )
     ORDER BY o.destination, o.message_id, o.payload, o.id;
  END IF;
  IF v_count > 0 AND NOT v_saves THEN
    INSERT INTO hawser.outbox_turns (turn, owner, done_from, done_to, done_after, skipped, cluster)
    VALUES (p_turn, p_owner, p_done_from, p_done_to, p_done_after, p_skipped, v_latest.cluster);
    v_saves := true;
  END IF;
  -- The commit of what is saved puts everything on disk that was read.
  state := CASE WHEN v_saves THEN 'saved' ELSE 'read' END;
  brought := v_due.brought;
  due_from := least(v_due.due_from, v_found);
  due_in_ms := least(v_due.due_in_ms, ceil(extract(epoch FROM v_found - clock_timestamp()) * 1000));
  done_to := v_to;
  has_more := v_has_more;
  RETURN NEXT;
END
$function$;
COMMENT ON FUNCTION hawser.run_outbox_turn(text, bigint, pg_snapshot, pg_snapshot, bigint, bigint[], boolean, jsonb, boolean, pg_snapshot, pg_snapshot, bigint, integer, bigint, timestamptz, pg_snapshot) IS 'A turn of the relay: saves the position, writes dead letters, and reads messages.';

CREATE OR REPLACE FUNCTION hawser.retry_enqueued(
  p_ids bigint[]
)
RETURNS TABLE (
  id bigint
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  v_cluster CONSTANT bigint := hawser.present_cluster();
BEGIN
  RETURN QUERY
  WITH gone AS (
    DELETE FROM hawser.dead_letters AS d WHERE d.id = ANY (p_ids) AND d.origin = 'outbox' RETURNING d.*
  ), put AS (
    INSERT INTO hawser.outbox (slot, destination, payload, headers, message_id, to_stream, domain, cluster)
    SELECT (s.last_value - 1) % 3, g.topic, g.payload, (
             SELECT jsonb_object_agg(h.name, h.members)
               FROM (
                 SELECT p.pair ->> 0 AS name, jsonb_agg(p.pair -> 1 ORDER BY p.nth) AS members
                   FROM jsonb_array_elements(g.headers) WITH ORDINALITY AS p (pair, nth) GROUP BY 1
               ) AS h
           ), g.message_id, g.source <> 'core', nullif(nullif(g.source, 'core'), ''), v_cluster
      FROM gone AS g, hawser.outbox_state_slot_seq AS s
     ORDER BY g.id
  )
  SELECT g.id FROM gone AS g ORDER BY g.id;
  IF FOUND AND (SELECT a.last_value FROM hawser.outbox_state_asleep_seq AS a) = 2 THEN
    PERFORM pg_notify('hawser_outbox', '');
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.retry_enqueued(bigint[]) IS 'Writes dead letters of the outbox into it again, as messages without a key, and deletes them.';

CREATE OR REPLACE FUNCTION hawser.rotate_outbox(
  p_owner text,
  p_retention_ms bigint,
  OUT rotated boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  v_number CONSTANT bigint := (SELECT s.last_value FROM hawser.outbox_state_slot_seq AS s);
  -- Slots are counted from 0, and the sequence from 1.
  v_next CONSTANT integer := v_number % 3;
  v_table CONSTANT text := 'hawser.outbox_' || v_next;
  v_newest timestamptz;
  v_done hawser.outbox_turns;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.rotate_outbox needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  rotated := false;
  SELECT o.enqueued_at INTO v_newest FROM hawser.outbox AS o WHERE o.slot = v_next ORDER BY o.id DESC LIMIT 1;
  IF v_newest > clock_timestamp() - p_retention_ms * interval '1 millisecond' THEN
    RETURN;
  END IF;
  BEGIN
    -- Not waited for: those who enqueue would wait behind it.
    EXECUTE 'LOCK TABLE ONLY ' || v_table || ' IN ACCESS EXCLUSIVE MODE NOWAIT';
    LOCK TABLE ONLY hawser.outbox_turns IN ACCESS EXCLUSIVE MODE NOWAIT;
  EXCEPTION
    WHEN lock_not_available THEN
      RETURN;
  END;
  -- Nobody writes into it now, so that what is in it is committed.
  SELECT t.* INTO STRICT v_done FROM hawser.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  IF v_done.owner <> p_owner THEN
    RETURN;
  END IF;
  IF EXISTS (
    SELECT FROM hawser.outbox AS o
     WHERE o.slot = v_next AND o.id <> ALL (v_done.skipped) AND NOT pg_visible_in_snapshot(o.xid, v_done.done_from)
       AND (v_done.done_to IS NULL OR NOT pg_visible_in_snapshot(o.xid, v_done.done_to) OR o.id > v_done.done_after)
  ) THEN
    RETURN;
  END IF;
  EXECUTE 'TRUNCATE TABLE ONLY ' || v_table;
  TRUNCATE TABLE ONLY hawser.outbox_turns;
  INSERT INTO hawser.outbox_turns SELECT (v_done).*;
  PERFORM setval('hawser.outbox_state_slot_seq', v_number + 1);
  rotated := true;
END
$function$;
COMMENT ON FUNCTION hawser.rotate_outbox(text, bigint) IS 'Goes on to the next slot, if all that is in it is done and older than the retention; its messages go.';

CREATE OR REPLACE FUNCTION hawser.enqueue_peer(
  p_topic text,
  p_payloads bytea[],
  p_headers jsonb,
  p_key text,
  p_message_id text,
  p_listener text,
  p_deliver_at timestamptz,
  OUT id bigint
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  v_cluster bigint;
  v_headers jsonb;
  v_length integer;
  v_name text;
  v_value text;
BEGIN
  -- As present_cluster() does, and as in enqueue_nats.
  IF has_function_privilege('pg_catalog.pg_control_system()'::regprocedure, 'EXECUTE') THEN
    v_cluster := (pg_control_system()).system_identifier;
  END IF;
  IF p_headers IS NOT NULL OR p_message_id IS NOT NULL THEN
    v_headers := hawser.peer_headers(p_headers, p_message_id, p_key);
  ELSIF p_key IS NOT NULL THEN
    v_headers := jsonb_build_array(jsonb_build_array('message-key', p_key));
  END IF;
  -- The public functions have checked the topic; those who call this one have not.
  SELECT n.name, n.value INTO v_name, v_value
    FROM (VALUES ('topic', p_topic), ('listener', coalesce(p_listener, p_topic))) AS n (name, value)
   WHERE (octet_length(n.value) BETWEEN 1 AND 255 AND n.value ~ E'^[^:\\u0001-\\u001f\\u007f]+$')
         IS NOT TRUE
   LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('the %s %s cannot be that of a peer', v_name, coalesce(to_json(left(v_value, 60))::text, 'NULL')),
      HINT = 'Give 1 to 255 bytes without '':'' and control characters.';
  END IF;
  IF starts_with(p_topic, '__#') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('internal_topic'),
      MESSAGE = format('the topic %s begins with %s, which is reserved', to_json(p_topic), '__#'),
      HINT = 'Choose another topic.';
  END IF;
  SELECT octet_length(p.payload) INTO v_length
    FROM unnest(p_payloads) AS p (payload)
   WHERE octet_length(p.payload) NOT BETWEEN 1 AND 267386880
   LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('a payload for a peer has %s bytes, and must have 1 to %s', v_length, 267386880),
      HINT = 'Give a payload of that size.';
  END IF;
  IF p_deliver_at > clock_timestamp() THEN
    id := hawser.enqueue_later('peer', p_topic, p_payloads, v_headers, p_key, NULL, false, NULL, p_deliver_at, p_listener);
    IF id IS NULL THEN
      RETURN;
    END IF;
  ELSE
    IF p_key IS NOT NULL THEN
      PERFORM FROM hawser.outbox_keys AS k
       WHERE k.bucket = (hashtextextended(p_topic || ' ' || p_key, 0) & 4095)::integer
         FOR UPDATE;
    END IF;

    INSERT INTO hawser.peer_outbox (slot, topic, payload, headers, key, listener, cluster)
    SELECT (coalesce(pg_sequence_last_value('hawser.peer_outbox_state_slot_seq'), 1) - 1) % 3, p_topic,
           p.payload, v_headers, p_key, p_listener, v_cluster
      FROM unnest(p_payloads) AS p (payload);
    IF NOT FOUND THEN
      RETURN;
    END IF;
    id := currval('hawser.outbox_id_seq');
  END IF;

  -- Behind the insert, and from a sequence: as in enqueue_nats.
  IF pg_sequence_last_value('hawser.peer_outbox_state_asleep_seq') = 2 THEN
    PERFORM pg_notify('hawser_peer_outbox', '');
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.enqueue_peer(text, bytea[], jsonb, text, text, text, timestamptz) IS 'Writes messages for peers into the outbox, in the caller''s transaction.';

CREATE OR REPLACE FUNCTION hawser.peer_headers(
  p_headers jsonb,
  p_message_id text,
  p_key text,
  OUT headers jsonb
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  v_name text;
  v_value jsonb;
  v_fault text;
  v_count integer := (p_message_id IS NOT NULL)::integer;
BEGIN
  IF jsonb_typeof(coalesce(p_headers, '{}')) <> 'object' THEN
    v_fault := 'headers must be a JSON object, and this is ' || jsonb_typeof(p_headers);
  ELSE
    -- What a frame can have.
    FOR v_name, v_value IN
      SELECT h.key, v.value
        FROM jsonb_each(coalesce(p_headers, '{}')) AS h,
             jsonb_array_elements(CASE jsonb_typeof(h.value) WHEN 'array' THEN h.value ELSE jsonb_build_array(h.value) END) AS v
    LOOP
      v_fault := CASE
        WHEN v_name !~ '^[!-9;-~]{1,255}$' THEN
          format('headers: the name %s must be 1 to 255 characters of visible ASCII without '':''', to_json(v_name))
        WHEN lower(v_name) = 'message-id' THEN
          format('headers: %s is set by Hawser; give message_id instead', to_json(v_name))
        WHEN lower(v_name) = 'message-key' THEN
          format('headers: %s is set by Hawser; give key instead', to_json(v_name))
        WHEN jsonb_typeof(v_value) <> 'string' THEN
          format('headers: %s must be a string or an array of strings, and has %s', to_json(v_name), jsonb_typeof(v_value))
        WHEN octet_length(v_value #>> '{}') > 8192 THEN
          format('headers: the value of %s has %s bytes, and may have 8192', to_json(v_name), octet_length(v_value #>> '{}'))
        WHEN v_value #>> '{}' ~ E'[\\u0001-\\u0008\\u000a-\\u001f\\u007f]' THEN
          format('headers: the value of %s must not contain control characters other than tab', to_json(v_name))
      END;
      EXIT WHEN v_fault IS NOT NULL;
      v_count := v_count + 1;
      -- Each one that is added copies all before it.
      IF v_count <= 256 THEN
        headers := coalesce(headers, '[]') || jsonb_build_array(jsonb_build_array(v_name, v_value));
      END IF;
    END LOOP;
  END IF;
  IF p_message_id IS NOT NULL THEN
    headers := coalesce(headers, '[]') || jsonb_build_array(jsonb_build_array('message-id', p_message_id));
  END IF;
  IF p_key IS NOT NULL THEN
    headers := coalesce(headers, '[]') || jsonb_build_array(jsonb_build_array('message-key', p_key));
  END IF;
  IF v_fault IS NULL AND v_count > 256 THEN
    v_fault := format('headers: there are %s, and a message has 256 at most', v_count);
  END IF;
  IF v_fault IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = v_fault || '.',
      HINT = 'Give an object of strings, or of arrays of strings.';
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.peer_headers(jsonb, text, text) IS 'The headers of an enqueued message as peers have them. Refuses what peers cannot have.';

CREATE OR REPLACE FUNCTION hawser.take_peer_outbox(
  p_owner text,
  OUT turn bigint,
  OUT can_notify boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
  v_cluster CONSTANT bigint := hawser.present_cluster();
  v_last hawser.peer_outbox_turns;
BEGIN
  SELECT t.* INTO v_last FROM hawser.peer_outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  IF NOT FOUND THEN
    -- A dump that was made while old turns were removed has none. What it has kept is new.
    SELECT 1 AS turn, '' AS owner, '3:3:'::pg_snapshot AS done_from, NULL::pg_snapshot AS done_to, 0 AS done_after,
           NULL::bigint AS cluster, NULL::timestamptz AS saved_at, 1 AS epoch
      INTO v_last;
  END IF;
  turn := v_last.turn + 1;
  IF v_cluster IS NOT NULL AND v_last.cluster IS DISTINCT FROM v_cluster THEN
    -- A copy of the database: as in take_outbox.
    UPDATE hawser.peer_outbox AS o
       SET cluster = v_cluster,
           xid = CASE
             WHEN o.cluster = v_last.cluster AND (
               pg_visible_in_snapshot(o.xid, v_last.done_from)
               OR (v_last.done_to IS NOT NULL AND pg_visible_in_snapshot(o.xid, v_last.done_to) AND o.id <= v_last.done_after)
             ) THEN '2'::xid8
             ELSE pg_current_xact_id()
           END
     WHERE o.cluster IS DISTINCT FROM v_cluster;
    v_last.done_from := '3:3:';
    v_last.done_to := NULL;
    v_last.done_after := 0;
  END IF;
  -- Fails if another relay has had this turn meanwhile.
  INSERT INTO hawser.peer_outbox_turns (turn, owner, done_from, done_to, done_after, cluster, epoch)
  VALUES (
    turn, p_owner, v_last.done_from, v_last.done_to, v_last.done_after, v_cluster,
    -- As in take_name.
    greatest(v_last.epoch + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
  );
  can_notify := current_setting('max_prepared_transactions') = '0';
  PERFORM setval('hawser.peer_outbox_state_asleep_seq', 1);
END
$function$;
COMMENT ON FUNCTION hawser.take_peer_outbox(text) IS 'Makes a relay the one that works: from now on no turn of another one is saved.';

CREATE OR REPLACE FUNCTION hawser.running_peers(
  p_names text[],
  OUT running text[]
)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  running := ARRAY(
    SELECT n.name
      FROM unnest(p_names) WITH ORDINALITY AS n (name, nth)
     WHERE EXISTS (
       SELECT FROM pg_locks AS l
        WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.mode = 'ExclusiveLock'
          AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
          AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('hawser:lease:' || n.name, 0)
     )
     ORDER BY n.nth
  );
END
$function$;
COMMENT ON FUNCTION hawser.running_peers(text[]) IS 'Of some peers, those whose names are held by a process.';

CREATE OR REPLACE FUNCTION hawser.hand_over_enqueued(
  p_owner text,
  p_asleep boolean,
  p_max_messages integer,
  p_max_bytes bigint,
  p_due_from timestamptz,
  p_later_from pg_snapshot,
  OUT held boolean,
  OUT handed integer,
  OUT has_more boolean,
  OUT connection_keys integer[],
  OUT owners text[],
  OUT looked_to pg_snapshot,
  OUT brought integer,
  OUT due_from timestamptz,
  OUT due_in_ms bigint
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $function$
#variable_conflict use_column
DECLARE
  v_me CONSTANT text := '__#outbox';
  v_last hawser.peer_outbox_turns;
  v_turn bigint;
  v_xmax xid8;
  v_xip xid8[];
  v_to pg_snapshot;
  -- As in run_outbox_turn.
  v_new bigint;
  v_ids bigint[];
  v_count integer;
  v_topic text;
  v_topic_key integer;
  v_names text[];
  v_running text[];
  v_waiting record;
  v_due record;
  v_found timestamptz;
  -- The listeners that may get the messages of a topic, or have one for themselves, and their channels.
  v_to_topics text[] := '{}';
  v_to_names text[] := '{}';
  v_to_keys integer[] := '{}';
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.hand_over_enqueued needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  handed := 0;
  has_more := false;
  brought := 0;
  connection_keys := '{}';
  owners := '{}';
  SELECT t.* INTO STRICT v_last FROM hawser.peer_outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  held := v_last.owner = p_owner;
  IF NOT held THEN
    RETURN;
  END IF;
  v_turn := v_last.turn + 1;

  SELECT b.brought, b.due_from, b.due_in_ms INTO v_due FROM hawser.bring_due('peer', p_due_from) AS b
   WHERE p_due_from IS NOT NULL;
  IF p_asleep IS NOT NULL THEN
    PERFORM setval('hawser.peer_outbox_state_asleep_seq', CASE WHEN p_asleep THEN 2 ELSE 1 END);
  END IF;
  -- What is new: as in run_outbox_turn.
  v_xmax := pg_snapshot_xmax(v_last.done_from);
  v_xip := ARRAY(SELECT pg_snapshot_xip(v_last.done_from));
  IF v_last.done_to IS NULL THEN
    SELECT pg_current_snapshot() INTO v_to;
    looked_to := v_to;
    SELECT l.due_from INTO v_found FROM hawser.least_due('peer', p_later_from) AS l;
    SELECT count(*) INTO v_new FROM (
      SELECT FROM hawser.peer_outbox AS o WHERE o.xid >= v_xmax
      UNION ALL
      SELECT FROM hawser.peer_outbox AS o WHERE o.xid = ANY (v_xip)
      LIMIT 100000
    ) AS n;
  ELSE
    v_to := v_last.done_to;
  END IF;
  IF v_new < 100000 THEN
    SELECT array_agg(p.id ORDER BY p.id) FILTER (WHERE p.nth <= p_max_messages AND (p.nth = 1 OR p.bytes <= p_max_bytes)), count(*)
      INTO v_ids, v_count
      FROM (
        SELECT n.id, row_number() OVER w AS nth, sum(n.length) OVER w AS bytes
          FROM (
            SELECT o.id, o.length
              FROM (
                SELECT s.id, s.xid, octet_length(s.payload) AS length FROM hawser.peer_outbox AS s WHERE s.xid >= v_xmax
                UNION ALL
                SELECT s.id, s.xid, octet_length(s.payload) FROM hawser.peer_outbox AS s WHERE s.xid = ANY (v_xip)
              ) AS o
             WHERE pg_visible_in_snapshot(o.xid, v_to)
             ORDER BY o.id LIMIT p_max_messages + 1
          ) AS n
        WINDOW w AS (ORDER BY n.id ROWS UNBOUNDED PRECEDING)
      ) AS p;
  ELSE
    SELECT array_agg(p.id ORDER BY p.id) FILTER (WHERE p.nth <= p_max_messages AND (p.nth = 1 OR p.bytes <= p_max_bytes)), count(*)
      INTO v_ids, v_count
      FROM (
        SELECT n.id, row_number() OVER w AS nth, sum(n.length) OVER w AS bytes
          FROM (
            SELECT s.id, octet_length(s.payload) AS length
              FROM (SELECT o.* FROM hawser.peer_outbox AS o WHERE o.id > v_last.done_after ORDER BY o.id OFFSET 0) AS s
             WHERE (s.xid >= v_xmax OR s.xid = ANY (v_xip)) AND pg_visible_in_snapshot(s.xid, v_to)
             LIMIT p_max_messages + 1
          ) AS n
        WINDOW w AS (ORDER BY n.id ROWS UNBOUNDED PRECEDING)
      ) AS p;
  END IF;
  handed := coalesce(cardinality(v_ids), 0);
  has_more := v_count > handed;
  brought := coalesce(v_due.brought, 0);
  due_from := least(v_due.due_from, v_found);
  due_in_ms := least(v_due.due_in_ms, ceil(extract(epoch FROM v_found - clock_timestamp()) * 1000));

  -- Topics that have a listener now: what waits there is its own, with all that is stored behind it.
  FOR v_waiting IN
    SELECT w.topic, w.connection_key FROM hawser.peer_waiting_topics AS w
     WHERE EXISTS (SELECT FROM hawser.topic_addr AS a WHERE a.topic = w.topic)
  LOOP
    v_names := ARRAY(
      SELECT DISTINCT a.client_name FROM hawser.topic_addr AS a WHERE a.topic = v_waiting.topic ORDER BY a.client_name
    );
    IF cardinality(v_names) > 1 THEN
      v_running := hawser.running_peers(v_names);
      IF cardinality(v_running) > 0 THEN
        v_names := v_running;
      END IF;
    END IF;
    UPDATE hawser.conn_key_map AS m SET owner = v_names[1]
     WHERE m.connection_key = v_waiting.connection_key AND m.owner IS NULL;
    DELETE FROM hawser.peer_waiting_topics AS w WHERE w.topic = v_waiting.topic;
    connection_keys := connection_keys || v_waiting.connection_key;
  END LOOP;

  IF handed + brought + cardinality(connection_keys) = 0 AND v_last.done_to IS NULL THEN
    RETURN;
  END IF;

  FOR v_topic IN SELECT DISTINCT o.topic FROM hawser.peer_outbox AS o WHERE o.id = ANY (v_ids) AND o.listener IS NULL LOOP
    v_topic_key := hawser.key_of_topic(v_topic);
    v_names := ARRAY(SELECT DISTINCT a.client_name FROM hawser.topic_addr AS a WHERE a.topic = v_topic ORDER BY a.client_name);
    IF cardinality(v_names) > 0 THEN
      -- As a sender does: what comes when they are away is stored for them.
      INSERT INTO hawser.sender_listener (sender_key, listener_topic, client_name, addr, max_message_bytes)
      SELECT v_me || ':' || v_me, v_topic, n.name, a.addr, a.max_message_bytes
        FROM unnest(v_names) AS n (name)
       CROSS JOIN LATERAL (
         SELECT b.addr, b.max_message_bytes FROM hawser.topic_addr AS b WHERE b.topic = v_topic AND b.client_name = n.name
          LIMIT 1 FOR KEY SHARE SKIP LOCKED
       ) AS a
       WHERE NOT EXISTS (
         SELECT FROM hawser.sender_listener AS k
          WHERE k.sender_key = v_me || ':' || v_me AND k.listener_topic = v_topic AND k.client_name = n.name
       )
      ON CONFLICT (sender_key, listener_topic, client_name) DO NOTHING;
    ELSE
      v_names := ARRAY(
        SELECT k.client_name FROM hawser.sender_listener AS k WHERE k.sender_key = v_me || ':' || v_me AND k.listener_topic = v_topic
      );
    END IF;
    IF cardinality(v_names) > 1 THEN
      v_running := hawser.running_peers(v_names);
      IF cardinality(v_running) > 0 THEN
        v_names := v_running;
      ELSE
        -- None of them can be reached: the one that was used last.
        v_names := ARRAY(
          SELECT n.name
            FROM unnest(v_names) AS n (name)
            LEFT JOIN hawser.conn_key_map AS m ON m.composite = v_me || ':' || v_me || ':' || n.name
            LEFT JOIN hawser.conn_mess_number AS c ON c.connection_key = m.connection_key
           ORDER BY greatest(c.epoch, (
                      SELECT s.epoch FROM hawser.conn_messages AS s WHERE s.connection_key = m.connection_key
                       ORDER BY s.epoch DESC LIMIT 1
                    ), 0) DESC, n.name
           LIMIT 1
        );
      END IF;
    END IF;
    IF cardinality(v_names) = 0 THEN
      -- Nobody has ever served it.
      SELECT w.connection_key INTO v_waiting FROM hawser.peer_waiting_topics AS w WHERE w.topic = v_topic;
      IF NOT FOUND THEN
        SELECT k.connection_key INTO v_waiting
          FROM hawser.connection_key(v_me, v_me, '__#topic#' || v_topic_key || '#' || v_turn) AS k;
        INSERT INTO hawser.peer_waiting_topics (topic, connection_key) VALUES (v_topic, v_waiting.connection_key);
      END IF;
      v_to_topics := v_to_topics || v_topic;
      v_to_names := v_to_names || ''::text;
      v_to_keys := v_to_keys || v_waiting.connection_key;
    ELSE
      v_to_topics := v_to_topics || array_fill(v_topic, ARRAY[cardinality(v_names)]);
      v_to_names := v_to_names || v_names;
      v_to_keys := v_to_keys || ARRAY(
        SELECT k.connection_key
          FROM unnest(v_names) WITH ORDINALITY AS n (name, nth) CROSS JOIN LATERAL hawser.connection_key(v_me, v_me, n.name) AS k
         ORDER BY n.nth
      );
    END IF;
  END LOOP;
  FOR v_waiting IN
    SELECT l.listener, k.connection_key
      FROM (SELECT DISTINCT o.listener FROM hawser.peer_outbox AS o WHERE o.id = ANY (v_ids) AND o.listener IS NOT NULL) AS l
     CROSS JOIN LATERAL hawser.connection_key(v_me, v_me, l.listener) AS k
  LOOP
    v_to_topics := v_to_topics || NULL::text;
    v_to_names := v_to_names || v_waiting.listener;
    v_to_keys := v_to_keys || v_waiting.connection_key;
  END LOOP;
  PERFORM hawser.key_of_topic(o.topic)
     FROM (SELECT DISTINCT p.topic FROM hawser.peer_outbox AS p WHERE p.id = ANY (v_ids) AND p.listener IS NOT NULL) AS o;

  -- Each turn has its epoch, within which each channel's numbers begin at 1.
  WITH page AS MATERIALIZED (
    SELECT o.id, o.topic, o.payload, o.headers, o.listener, t.k AS topic_key,
           CASE WHEN o.listener IS NULL THEN hashtextextended(o.topic || ' ' || o.key, 0) END AS key_hash
      FROM hawser.peer_outbox AS o
      JOIN hawser.topic_key AS t ON t.topic = o.topic
     WHERE o.id = ANY (v_ids)
  ), listeners AS MATERIALIZED (
    SELECT u.topic, u.name, u.key, count(*) OVER (PARTITION BY u.topic) AS count,
           row_number() OVER (PARTITION BY u.topic ORDER BY u.nth) AS nth
      FROM unnest(v_to_topics, v_to_names, v_to_keys) WITH ORDINALITY AS u (topic, name, key, nth)
  ), turns AS MATERIALIZED (
    SELECT p.*, v_turn + row_number() OVER (PARTITION BY p.topic, p.key_hash IS NULL ORDER BY p.id) AS nth,
           row_number() OVER (PARTITION BY p.topic, p.key_hash ORDER BY p.id) = 1 AS is_first
      FROM page AS p
  ), chosen AS MATERIALIZED (
    SELECT p.*, CASE
             WHEN p.listener IS NOT NULL THEN (SELECT l.key FROM listeners AS l WHERE l.topic IS NULL AND l.name = p.listener)
             WHEN p.key_hash IS NULL THEN (SELECT l.key FROM listeners AS l WHERE l.topic = p.topic AND l.nth = p.nth % l.count + 1)
             -- Behind what waits for a listener with the same key, if anything does.
             WHEN p.is_first THEN coalesce(
               (
                 SELECT s.connection_key FROM hawser.conn_messages AS s
                  WHERE s.key_hash = p.key_hash AND s.topic_key = p.topic_key
                  ORDER BY s.epoch DESC LIMIT 1
               ),
               (
                 SELECT l.key FROM listeners AS l WHERE l.topic = p.topic
                  ORDER BY hashtextextended(l.name, p.key_hash) DESC LIMIT 1
               )
             )
           END AS connection_key
      FROM turns AS p
  ), routed AS (
    -- The others of a key follow its first one. By windows: a join of so many rows would need statistics.
    SELECT c.id, c.payload, c.headers, c.topic_key, c.key_hash,
           CASE
             WHEN c.key_hash IS NULL THEN c.connection_key
             ELSE max(c.connection_key) OVER (PARTITION BY c.topic, c.key_hash)
           END AS connection_key
      FROM chosen AS c
  ), stored AS (
    INSERT INTO hawser.conn_messages (connection_key, payload, epoch, number, topic_key, headers, key_hash)
    SELECT r.connection_key, r.payload, v_last.epoch + 1, row_number() OVER (PARTITION BY r.connection_key ORDER BY r.id), r.topic_key,
           r.headers, r.key_hash
      FROM routed AS r
     ORDER BY r.id
    RETURNING connection_key
  )
  SELECT connection_keys || coalesce(array_agg(DISTINCT s.connection_key), '{}') INTO connection_keys FROM stored AS s;

  -- Fails if another relay has had this turn meanwhile.
  INSERT INTO hawser.peer_outbox_turns (turn, owner, done_from, done_to, done_after, cluster, epoch)
  VALUES (
    v_turn, p_owner, CASE WHEN has_more THEN v_last.done_from ELSE v_to END, CASE WHEN has_more THEN v_to END,
    CASE WHEN has_more THEN v_ids[handed] ELSE 0 END, v_last.cluster, v_last.epoch + 1
  );
  owners := ARRAY(
    SELECT coalesce(m.owner, CASE WHEN starts_with(m.listener_name, '__#') THEN '' ELSE m.listener_name END)
      FROM unnest(connection_keys) WITH ORDINALITY AS u (key, nth)
      JOIN hawser.conn_key_map AS m ON m.connection_key = u.key
     ORDER BY u.nth
  );
END
$function$;
COMMENT ON FUNCTION hawser.hand_over_enqueued(text, boolean, integer, bigint, timestamptz, pg_snapshot) IS 'A turn of the relay: stores what is new for its listeners, and moves the position, in one transaction.';

CREATE OR REPLACE FUNCTION hawser.rotate_peer_outbox(
  p_owner text,
  p_retention_ms bigint,
  OUT rotated boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
-- As rotate_outbox.
DECLARE
  v_number CONSTANT bigint := (SELECT s.last_value FROM hawser.peer_outbox_state_slot_seq AS s);
  v_next CONSTANT integer := v_number % 3;
  v_table CONSTANT text := 'hawser.peer_outbox_' || v_next;
  v_newest timestamptz;
  v_last hawser.peer_outbox_turns;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'hawser.rotate_peer_outbox needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  rotated := false;
  -- Nothing to remove.
  IF NOT EXISTS (SELECT FROM hawser.peer_outbox) AND (SELECT count(*) FROM (SELECT FROM hawser.peer_outbox_turns LIMIT 100) AS t) < 100 THEN
    RETURN;
  END IF;
  SELECT o.enqueued_at INTO v_newest FROM hawser.peer_outbox AS o WHERE o.slot = v_next ORDER BY o.id DESC LIMIT 1;
  IF v_newest > clock_timestamp() - p_retention_ms * interval '1 millisecond' THEN
    RETURN;
  END IF;
  BEGIN
    EXECUTE 'LOCK TABLE ONLY ' || v_table || ' IN ACCESS EXCLUSIVE MODE NOWAIT';
    LOCK TABLE ONLY hawser.peer_outbox_turns IN ACCESS EXCLUSIVE MODE NOWAIT;
  EXCEPTION
    WHEN lock_not_available THEN
      RETURN;
  END;
  SELECT t.* INTO STRICT v_last FROM hawser.peer_outbox_turns AS t ORDER BY t.turn DESC LIMIT 1;
  IF v_last.owner <> p_owner THEN
    RETURN;
  END IF;
  IF EXISTS (
    SELECT FROM hawser.peer_outbox AS o
     WHERE o.slot = v_next AND NOT pg_visible_in_snapshot(o.xid, v_last.done_from)
       AND (v_last.done_to IS NULL OR NOT pg_visible_in_snapshot(o.xid, v_last.done_to) OR o.id > v_last.done_after)
  ) THEN
    RETURN;
  END IF;
  EXECUTE 'TRUNCATE TABLE ONLY ' || v_table;
  TRUNCATE TABLE ONLY hawser.peer_outbox_turns;
  INSERT INTO hawser.peer_outbox_turns SELECT (v_last).*;
  PERFORM setval('hawser.peer_outbox_state_slot_seq', v_number + 1);
  rotated := true;
END
$function$;
COMMENT ON FUNCTION hawser.rotate_peer_outbox(text, bigint) IS 'Goes on to the next slot, if all that is in it is done and older than the retention; its messages go.';

CREATE OR REPLACE FUNCTION hawser.peer_enqueue_text(
  topic text,
  payload text,
  headers jsonb DEFAULT NULL,
  key text DEFAULT NULL,
  message_id text DEFAULT NULL,
  deliver_at timestamp with time zone DEFAULT NULL
)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  IF topic IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*: the argument topic is NULL, and needs a value',
      HINT = 'Give topic a value.';
  END IF;
  IF NOT (octet_length(topic) BETWEEN 1 AND 255) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument topic is %s, and must be 1 to 255 bytes long in UTF-8', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 255 bytes long in UTF-8.';
  END IF;
  IF NOT (topic ~ E'^[^:\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument topic is %s, and must not contain '':'' or control characters', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must not contain '':'' or control characters.';
  END IF;
  IF payload IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*: the argument payload is NULL, and needs a value',
      HINT = 'Give payload a value; an empty message is '''', and in JSON ''null''.';
  END IF;
  IF NOT (octet_length(key) BETWEEN 1 AND 1024) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument key is %s, and must be 1 to 1024 bytes long in UTF-8', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 1024 bytes long in UTF-8.';
  END IF;
  IF NOT (key ~ E'^[^\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument key is %s, and must not contain control characters', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must not contain control characters.';
  END IF;
  IF NOT (octet_length(message_id) BETWEEN 1 AND 255) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument message_id is %s, and must be 1 to 255 bytes long in UTF-8', to_json(CASE WHEN char_length(message_id) > 60 THEN left(message_id, 60) || chr(8230) ELSE message_id END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 255 bytes long in UTF-8.';
  END IF;
  IF NOT (message_id ~ E'^[^\\u0001-\\u0020\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument message_id is %s, and must not contain white space or control characters', to_json(CASE WHEN char_length(message_id) > 60 THEN left(message_id, 60) || chr(8230) ELSE message_id END)),
      HINT = 'Give an argument that obeys the rule: it must not contain white space or control characters.';
  END IF;
BEGIN
  RETURN hawser.enqueue_peer(topic, ARRAY[convert_to(payload, 'UTF8')], headers, key, message_id, NULL, deliver_at);
END;
END
$function$;
COMMENT ON FUNCTION hawser.peer_enqueue_text(text, text, jsonb, text, text, timestamp with time zone) IS 'Writes a message for a peer into the outbox, in the present transaction: one of the listeners of the topic gets it if, and
only if, that commits. Messages with the same topic and key are handled in the order of their commits. Returns the number
of the message.';

CREATE OR REPLACE FUNCTION hawser.peer_enqueue_json(
  topic text,
  payload json,
  headers jsonb DEFAULT NULL,
  key text DEFAULT NULL,
  message_id text DEFAULT NULL,
  deliver_at timestamp with time zone DEFAULT NULL
)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  IF topic IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*: the argument topic is NULL, and needs a value',
      HINT = 'Give topic a value.';
  END IF;
  IF NOT (octet_length(topic) BETWEEN 1 AND 255) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument topic is %s, and must be 1 to 255 bytes long in UTF-8', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 255 bytes long in UTF-8.';
  END IF;
  IF NOT (topic ~ E'^[^:\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument topic is %s, and must not contain '':'' or control characters', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must not contain '':'' or control characters.';
  END IF;
  IF payload IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*: the argument payload is NULL, and needs a value',
      HINT = 'Give payload a value; an empty message is '''', and in JSON ''null''.';
  END IF;
  IF NOT (octet_length(key) BETWEEN 1 AND 1024) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument key is %s, and must be 1 to 1024 bytes long in UTF-8', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 1024 bytes long in UTF-8.';
  END IF;
  IF NOT (key ~ E'^[^\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument key is %s, and must not contain control characters', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must not contain control characters.';
  END IF;
  IF NOT (octet_length(message_id) BETWEEN 1 AND 255) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument message_id is %s, and must be 1 to 255 bytes long in UTF-8', to_json(CASE WHEN char_length(message_id) > 60 THEN left(message_id, 60) || chr(8230) ELSE message_id END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 255 bytes long in UTF-8.';
  END IF;
  IF NOT (message_id ~ E'^[^\\u0001-\\u0020\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument message_id is %s, and must not contain white space or control characters', to_json(CASE WHEN char_length(message_id) > 60 THEN left(message_id, 60) || chr(8230) ELSE message_id END)),
      HINT = 'Give an argument that obeys the rule: it must not contain white space or control characters.';
  END IF;
BEGIN
  RETURN hawser.enqueue_peer(topic, ARRAY[convert_to(payload::text, 'UTF8')], headers, key, message_id, NULL, deliver_at);
END;
END
$function$;
COMMENT ON FUNCTION hawser.peer_enqueue_json(text, json, jsonb, text, text, timestamp with time zone) IS 'Writes a message for a peer into the outbox, in the present transaction: one of the listeners of the topic gets it if, and
only if, that commits. Messages with the same topic and key are handled in the order of their commits. Returns the number
of the message.';

CREATE OR REPLACE FUNCTION hawser.peer_enqueue_jsonb(
  topic text,
  payload jsonb,
  headers jsonb DEFAULT NULL,
  key text DEFAULT NULL,
  message_id text DEFAULT NULL,
  deliver_at timestamp with time zone DEFAULT NULL
)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  IF topic IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*: the argument topic is NULL, and needs a value',
      HINT = 'Give topic a value.';
  END IF;
  IF NOT (octet_length(topic) BETWEEN 1 AND 255) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument topic is %s, and must be 1 to 255 bytes long in UTF-8', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 255 bytes long in UTF-8.';
  END IF;
  IF NOT (topic ~ E'^[^:\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument topic is %s, and must not contain '':'' or control characters', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must not contain '':'' or control characters.';
  END IF;
  IF payload IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*: the argument payload is NULL, and needs a value',
      HINT = 'Give payload a value; an empty message is '''', and in JSON ''null''.';
  END IF;
  IF NOT (octet_length(key) BETWEEN 1 AND 1024) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument key is %s, and must be 1 to 1024 bytes long in UTF-8', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 1024 bytes long in UTF-8.';
  END IF;
  IF NOT (key ~ E'^[^\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument key is %s, and must not contain control characters', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must not contain control characters.';
  END IF;
  IF NOT (octet_length(message_id) BETWEEN 1 AND 255) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument message_id is %s, and must be 1 to 255 bytes long in UTF-8', to_json(CASE WHEN char_length(message_id) > 60 THEN left(message_id, 60) || chr(8230) ELSE message_id END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 255 bytes long in UTF-8.';
  END IF;
  IF NOT (message_id ~ E'^[^\\u0001-\\u0020\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument message_id is %s, and must not contain white space or control characters', to_json(CASE WHEN char_length(message_id) > 60 THEN left(message_id, 60) || chr(8230) ELSE message_id END)),
      HINT = 'Give an argument that obeys the rule: it must not contain white space or control characters.';
  END IF;
BEGIN
  RETURN hawser.enqueue_peer(topic, ARRAY[convert_to(payload::text, 'UTF8')], headers, key, message_id, NULL, deliver_at);
END;
END
$function$;
COMMENT ON FUNCTION hawser.peer_enqueue_jsonb(text, jsonb, jsonb, text, text, timestamp with time zone) IS 'Writes a message for a peer into the outbox, in the present transaction: one of the listeners of the topic gets it if, and
only if, that commits. Messages with the same topic and key are handled in the order of their commits. Returns the number
of the message.';

CREATE OR REPLACE FUNCTION hawser.peer_enqueue_binary(
  topic text,
  payload bytea,
  headers jsonb DEFAULT NULL,
  key text DEFAULT NULL,
  message_id text DEFAULT NULL,
  deliver_at timestamp with time zone DEFAULT NULL
)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  IF topic IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*: the argument topic is NULL, and needs a value',
      HINT = 'Give topic a value.';
  END IF;
  IF NOT (octet_length(topic) BETWEEN 1 AND 255) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument topic is %s, and must be 1 to 255 bytes long in UTF-8', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 255 bytes long in UTF-8.';
  END IF;
  IF NOT (topic ~ E'^[^:\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument topic is %s, and must not contain '':'' or control characters', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must not contain '':'' or control characters.';
  END IF;
  IF payload IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*: the argument payload is NULL, and needs a value',
      HINT = 'Give payload a value; an empty message is '''', and in JSON ''null''.';
  END IF;
  IF NOT (octet_length(key) BETWEEN 1 AND 1024) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument key is %s, and must be 1 to 1024 bytes long in UTF-8', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 1024 bytes long in UTF-8.';
  END IF;
  IF NOT (key ~ E'^[^\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument key is %s, and must not contain control characters', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must not contain control characters.';
  END IF;
  IF NOT (octet_length(message_id) BETWEEN 1 AND 255) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument message_id is %s, and must be 1 to 255 bytes long in UTF-8', to_json(CASE WHEN char_length(message_id) > 60 THEN left(message_id, 60) || chr(8230) ELSE message_id END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 255 bytes long in UTF-8.';
  END IF;
  IF NOT (message_id ~ E'^[^\\u0001-\\u0020\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*: the argument message_id is %s, and must not contain white space or control characters', to_json(CASE WHEN char_length(message_id) > 60 THEN left(message_id, 60) || chr(8230) ELSE message_id END)),
      HINT = 'Give an argument that obeys the rule: it must not contain white space or control characters.';
  END IF;
BEGIN
  RETURN hawser.enqueue_peer(topic, ARRAY[payload], headers, key, message_id, NULL, deliver_at);
END;
END
$function$;
COMMENT ON FUNCTION hawser.peer_enqueue_binary(text, bytea, jsonb, text, text, timestamp with time zone) IS 'Writes a message for a peer into the outbox, in the present transaction: one of the listeners of the topic gets it if, and
only if, that commits. Messages with the same topic and key are handled in the order of their commits. Returns the number
of the message.';

CREATE OR REPLACE FUNCTION hawser.peer_enqueue_text_batch(
  topic text,
  payloads text[],
  headers jsonb DEFAULT NULL,
  key text DEFAULT NULL,
  deliver_at timestamp with time zone DEFAULT NULL
)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  IF topic IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*_batch: the argument topic is NULL, and needs a value',
      HINT = 'Give topic a value.';
  END IF;
  IF NOT (octet_length(topic) BETWEEN 1 AND 255) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument topic is %s, and must be 1 to 255 bytes long in UTF-8', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 255 bytes long in UTF-8.';
  END IF;
  IF NOT (topic ~ E'^[^:\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument topic is %s, and must not contain '':'' or control characters', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must not contain '':'' or control characters.';
  END IF;
  IF payloads IS NULL OR array_position(payloads, NULL) IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*_batch: the argument payloads is NULL, and needs a value',
      HINT = 'Give payloads a value; an array without messages is ''{}'', an empty message ''''.';
  END IF;
  IF NOT (octet_length(key) BETWEEN 1 AND 1024) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument key is %s, and must be 1 to 1024 bytes long in UTF-8', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 1024 bytes long in UTF-8.';
  END IF;
  IF NOT (key ~ E'^[^\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument key is %s, and must not contain control characters', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must not contain control characters.';
  END IF;
BEGIN
  PERFORM hawser.enqueue_peer(topic, ARRAY(SELECT convert_to(p.one, 'UTF8') FROM unnest(payloads) WITH ORDINALITY AS p (one, nth) ORDER BY p.nth), headers, key, NULL, NULL, deliver_at);
END;
END
$function$;
COMMENT ON FUNCTION hawser.peer_enqueue_text_batch(text, text[], jsonb, text, timestamp with time zone) IS 'Writes each element of the array into the outbox as a message, in order.';

CREATE OR REPLACE FUNCTION hawser.peer_enqueue_json_batch(
  topic text,
  payloads json[],
  headers jsonb DEFAULT NULL,
  key text DEFAULT NULL,
  deliver_at timestamp with time zone DEFAULT NULL
)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  IF topic IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*_batch: the argument topic is NULL, and needs a value',
      HINT = 'Give topic a value.';
  END IF;
  IF NOT (octet_length(topic) BETWEEN 1 AND 255) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument topic is %s, and must be 1 to 255 bytes long in UTF-8', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 255 bytes long in UTF-8.';
  END IF;
  IF NOT (topic ~ E'^[^:\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument topic is %s, and must not contain '':'' or control characters', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must not contain '':'' or control characters.';
  END IF;
  IF payloads IS NULL OR array_position(payloads, NULL) IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*_batch: the argument payloads is NULL, and needs a value',
      HINT = 'Give payloads a value; an array without messages is ''{}'', an empty message ''''.';
  END IF;
  IF NOT (octet_length(key) BETWEEN 1 AND 1024) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument key is %s, and must be 1 to 1024 bytes long in UTF-8', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 1024 bytes long in UTF-8.';
  END IF;
  IF NOT (key ~ E'^[^\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument key is %s, and must not contain control characters', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must not contain control characters.';
  END IF;
BEGIN
  PERFORM hawser.enqueue_peer(topic, ARRAY(SELECT convert_to(p.one::text, 'UTF8') FROM unnest(payloads) WITH ORDINALITY AS p (one, nth) ORDER BY p.nth), headers, key, NULL, NULL, deliver_at);
END;
END
$function$;
COMMENT ON FUNCTION hawser.peer_enqueue_json_batch(text, json[], jsonb, text, timestamp with time zone) IS 'Writes each element of the array into the outbox as a message, in order.';

CREATE OR REPLACE FUNCTION hawser.peer_enqueue_jsonb_batch(
  topic text,
  payloads jsonb[],
  headers jsonb DEFAULT NULL,
  key text DEFAULT NULL,
  deliver_at timestamp with time zone DEFAULT NULL
)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  IF topic IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*_batch: the argument topic is NULL, and needs a value',
      HINT = 'Give topic a value.';
  END IF;
  IF NOT (octet_length(topic) BETWEEN 1 AND 255) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument topic is %s, and must be 1 to 255 bytes long in UTF-8', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 255 bytes long in UTF-8.';
  END IF;
  IF NOT (topic ~ E'^[^:\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument topic is %s, and must not contain '':'' or control characters', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must not contain '':'' or control characters.';
  END IF;
  IF payloads IS NULL OR array_position(payloads, NULL) IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*_batch: the argument payloads is NULL, and needs a value',
      HINT = 'Give payloads a value; an array without messages is ''{}'', an empty message ''''.';
  END IF;
  IF NOT (octet_length(key) BETWEEN 1 AND 1024) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument key is %s, and must be 1 to 1024 bytes long in UTF-8', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 1024 bytes long in UTF-8.';
  END IF;
  IF NOT (key ~ E'^[^\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument key is %s, and must not contain control characters', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must not contain control characters.';
  END IF;
BEGIN
  PERFORM hawser.enqueue_peer(topic, ARRAY(SELECT convert_to(p.one::text, 'UTF8') FROM unnest(payloads) WITH ORDINALITY AS p (one, nth) ORDER BY p.nth), headers, key, NULL, NULL, deliver_at);
END;
END
$function$;
COMMENT ON FUNCTION hawser.peer_enqueue_jsonb_batch(text, jsonb[], jsonb, text, timestamp with time zone) IS 'Writes each element of the array into the outbox as a message, in order.';

CREATE OR REPLACE FUNCTION hawser.peer_enqueue_binary_batch(
  topic text,
  payloads bytea[],
  headers jsonb DEFAULT NULL,
  key text DEFAULT NULL,
  deliver_at timestamp with time zone DEFAULT NULL
)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  IF topic IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*_batch: the argument topic is NULL, and needs a value',
      HINT = 'Give topic a value.';
  END IF;
  IF NOT (octet_length(topic) BETWEEN 1 AND 255) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument topic is %s, and must be 1 to 255 bytes long in UTF-8', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 255 bytes long in UTF-8.';
  END IF;
  IF NOT (topic ~ E'^[^:\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument topic is %s, and must not contain '':'' or control characters', to_json(CASE WHEN char_length(topic) > 60 THEN left(topic, 60) || chr(8230) ELSE topic END)),
      HINT = 'Give an argument that obeys the rule: it must not contain '':'' or control characters.';
  END IF;
  IF payloads IS NULL OR array_position(payloads, NULL) IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('null_argument'),
      MESSAGE = 'peer_enqueue_*_batch: the argument payloads is NULL, and needs a value',
      HINT = 'Give payloads a value; an array without messages is ''{}'', an empty message ''''.';
  END IF;
  IF NOT (octet_length(key) BETWEEN 1 AND 1024) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument key is %s, and must be 1 to 1024 bytes long in UTF-8', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must be 1 to 1024 bytes long in UTF-8.';
  END IF;
  IF NOT (key ~ E'^[^\\u0001-\\u001f\\u007f]+$') THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = format('peer_enqueue_*_batch: the argument key is %s, and must not contain control characters', to_json(CASE WHEN char_length(key) > 60 THEN left(key, 60) || chr(8230) ELSE key END)),
      HINT = 'Give an argument that obeys the rule: it must not contain control characters.';
  END IF;
BEGIN
  PERFORM hawser.enqueue_peer(topic, payloads, headers, key, NULL, NULL, deliver_at);
END;
END
$function$;
COMMENT ON FUNCTION hawser.peer_enqueue_binary_batch(text, bytea[], jsonb, text, timestamp with time zone) IS 'Writes each element of the array into the outbox as a message, in order.';

CREATE OR REPLACE VIEW hawser.outbox_status WITH (security_barrier) AS
SELECT
  v.kind::text AS kind,
  v.relay::text AS relay,
  v.is_awake::boolean AS is_awake,
  v.waiting::bigint AS waiting,
  v.oldest_waiting_at::timestamptz AS oldest_waiting_at,
  v.oldest_waiting_for::text AS oldest_waiting_for,
  v.position_saved_at::timestamptz AS position_saved_at,
  v.slots::jsonb AS slots,
  v.later::bigint AS later,
  v.next_due_at::timestamptz AS next_due_at,
  v.dead_letters::bigint AS dead_letters
FROM (
-- What waits: what the last set did not see, by the index on xid, and what it saw and is not done, by the one on id.
WITH nats_latest AS (
  SELECT t.*, coalesce(t.done_to, t.done_from) AS seen FROM hawser.outbox_turns AS t ORDER BY t.turn DESC LIMIT 1
), nats_waiting AS (
  SELECT w.* FROM (
    SELECT o.enqueued_at, o.destination AS destination FROM hawser.outbox AS o
     WHERE (o.xid >= (SELECT pg_snapshot_xmax(l.seen) FROM nats_latest AS l)
            OR o.xid = ANY (ARRAY(SELECT pg_snapshot_xip(l.seen) FROM nats_latest AS l)))
       AND o.id <> ALL (ARRAY(SELECT unnest(l.skipped) FROM nats_latest AS l))
     LIMIT 100000
  ) AS w
  UNION ALL
  SELECT w.* FROM (
    SELECT o.enqueued_at, o.destination FROM hawser.outbox AS o, nats_latest AS l
     WHERE o.id > (SELECT b.done_after FROM nats_latest AS b WHERE b.done_to IS NOT NULL)
       AND NOT pg_visible_in_snapshot(o.xid, l.done_from)
       AND pg_visible_in_snapshot(o.xid, l.done_to)
       AND o.id <> ALL (l.skipped)
     ORDER BY o.id LIMIT 100000
  ) AS w
), peer_latest AS (
  SELECT t.*, coalesce(t.done_to, t.done_from) AS seen FROM hawser.peer_outbox_turns AS t ORDER BY t.turn DESC LIMIT 1
), peer_waiting AS (
  SELECT w.* FROM (
    SELECT o.enqueued_at, o.topic AS destination FROM hawser.peer_outbox AS o
     WHERE (o.xid >= (SELECT pg_snapshot_xmax(l.seen) FROM peer_latest AS l)
            OR o.xid = ANY (ARRAY(SELECT pg_snapshot_xip(l.seen) FROM peer_latest AS l)))
     LIMIT 100000
  ) AS w
  UNION ALL
  SELECT w.* FROM (
    SELECT o.enqueued_at, o.topic FROM hawser.peer_outbox AS o, peer_latest AS l
     WHERE o.id > (SELECT b.done_after FROM peer_latest AS b WHERE b.done_to IS NOT NULL)
       AND NOT pg_visible_in_snapshot(o.xid, l.done_from)
       AND pg_visible_in_snapshot(o.xid, l.done_to)
     ORDER BY o.id LIMIT 100000
  ) AS w
)
SELECT 'nats' AS kind,
       nullif(l.owner, '') AS relay,
       (SELECT a.last_value = 1 FROM hawser.outbox_state_asleep_seq AS a) AS is_awake,
       (SELECT least(100000, count(*)) FROM nats_waiting AS w) AS waiting,
       (SELECT min(w.enqueued_at) FROM nats_waiting AS w) AS oldest_waiting_at,
       (SELECT w.destination FROM nats_waiting AS w ORDER BY w.enqueued_at LIMIT 1) AS oldest_waiting_for,
       l.saved_at AS position_saved_at,
       (
         SELECT jsonb_agg(jsonb_build_object(
                  'slot', n.slot,
                  'filling', n.slot = (s.last_value - 1) % 3,
                  'bytes', pg_total_relation_size(format('hawser.outbox_%s', n.slot)),
                  'oldest', (SELECT o.enqueued_at FROM hawser.outbox AS o WHERE o.slot = n.slot ORDER BY o.id LIMIT 1)
                ) ORDER BY n.slot)
           FROM generate_series(0, 3 - 1) AS n (slot), hawser.outbox_state_slot_seq AS s
       ) AS slots,
       (SELECT count(*) FROM (SELECT FROM hawser.outbox_later AS f WHERE f.kind = 'nats' LIMIT 100000) AS f) AS later,
       (SELECT min(f.deliver_at) FROM hawser.outbox_later AS f WHERE f.kind = 'nats') AS next_due_at,
       (SELECT count(*) FROM hawser.dead_letters AS d WHERE d.origin = 'outbox') AS dead_letters
  FROM nats_latest AS l
UNION ALL
SELECT 'peer' AS kind,
       nullif(l.owner, '') AS relay,
       (SELECT a.last_value = 1 FROM hawser.peer_outbox_state_asleep_seq AS a) AS is_awake,
       (SELECT least(100000, count(*)) FROM peer_waiting AS w) AS waiting,
       (SELECT min(w.enqueued_at) FROM peer_waiting AS w) AS oldest_waiting_at,
       (SELECT w.destination FROM peer_waiting AS w ORDER BY w.enqueued_at LIMIT 1) AS oldest_waiting_for,
       l.saved_at AS position_saved_at,
       (
         SELECT jsonb_agg(jsonb_build_object(
                  'slot', n.slot,
                  'filling', n.slot = (s.last_value - 1) % 3,
                  'bytes', pg_total_relation_size(format('hawser.peer_outbox_%s', n.slot)),
                  'oldest', (SELECT o.enqueued_at FROM hawser.peer_outbox AS o WHERE o.slot = n.slot ORDER BY o.id LIMIT 1)
                ) ORDER BY n.slot)
           FROM generate_series(0, 3 - 1) AS n (slot), hawser.peer_outbox_state_slot_seq AS s
       ) AS slots,
       (SELECT count(*) FROM (SELECT FROM hawser.outbox_later AS f WHERE f.kind = 'peer' LIMIT 100000) AS f) AS later,
       (SELECT min(f.deliver_at) FROM hawser.outbox_later AS f WHERE f.kind = 'peer') AS next_due_at,
       0 AS dead_letters
  FROM peer_latest AS l
) AS v;
COMMENT ON VIEW hawser.outbox_status IS 'What waits, who relays, and how large the outbox is: one row for each kind of messages.';
COMMENT ON COLUMN hawser.outbox_status.kind IS '`nats` or `peer`.';
COMMENT ON COLUMN hawser.outbox_status.relay IS 'The relay that works, as a random id; NULL: the last one has ended, and nobody has taken over.';
COMMENT ON COLUMN hawser.outbox_status.is_awake IS 'The relay looks for messages by itself. False: it waits for a notification.';
COMMENT ON COLUMN hawser.outbox_status.waiting IS 'Messages that the position has not passed. More than 100,000 are not counted.';
COMMENT ON COLUMN hawser.outbox_status.oldest_waiting_at IS 'When the oldest of them was enqueued; NULL: there is none.';
COMMENT ON COLUMN hawser.outbox_status.oldest_waiting_for IS 'Where the oldest of them goes to; NULL: there is none.';
COMMENT ON COLUMN hawser.outbox_status.position_saved_at IS 'When the position was saved last.';
COMMENT ON COLUMN hawser.outbox_status.slots IS 'The parts of the table, a list of {slot, filling, bytes, oldest}: the one with `filling` gets new messages, and `oldest` is
when its first message was enqueued.';
COMMENT ON COLUMN hawser.outbox_status.later IS 'Messages that are not due yet. More than 100,000 are not counted.';
COMMENT ON COLUMN hawser.outbox_status.next_due_at IS 'When the next one is due; NULL: there is none.';
COMMENT ON COLUMN hawser.outbox_status.dead_letters IS 'Its dead letters; those of peers are their channels''.';

CREATE OR REPLACE VIEW hawser.outbox_scheduled WITH (security_barrier) AS
SELECT
  v.id::bigint AS id,
  v.kind::text AS kind,
  v.deliver_at::timestamptz AS deliver_at,
  v.destination::text AS destination,
  v.key::text AS key,
  v.message_id::text AS message_id,
  v.payload_bytes::integer AS payload_bytes,
  v.enqueued_at::timestamptz AS enqueued_at
FROM (
SELECT l.id, l.kind, l.deliver_at, l.destination, l.key, l.message_id, octet_length(l.payload) AS payload_bytes, l.enqueued_at
  FROM hawser.outbox_later AS l
) AS v;
COMMENT ON VIEW hawser.outbox_scheduled IS 'The messages that are not due yet, without their payloads.';
COMMENT ON COLUMN hawser.outbox_scheduled.id IS 'The number by which it can be cancelled.';
COMMENT ON COLUMN hawser.outbox_scheduled.kind IS '`nats` or `peer`.';
COMMENT ON COLUMN hawser.outbox_scheduled.deliver_at IS 'When it is due.';
COMMENT ON COLUMN hawser.outbox_scheduled.destination IS 'The subject, or the topic.';
COMMENT ON COLUMN hawser.outbox_scheduled.key IS 'What keeps it in order with others; NULL: nothing.';
COMMENT ON COLUMN hawser.outbox_scheduled.message_id IS 'What the destination knows it by.';
COMMENT ON COLUMN hawser.outbox_scheduled.payload_bytes IS 'How long the payload is.';
COMMENT ON COLUMN hawser.outbox_scheduled.enqueued_at IS 'When it was enqueued.';

DO $do$
DECLARE
  present CONSTANT oid[] := pg_catalog.string_to_array(pg_catalog.current_setting('hawser.present', true), ',')::oid[];
  statement text;
BEGIN
  FOR statement IN
    WITH made AS (
      SELECT o.* FROM (
        SELECT n.oid, 'SCHEMA hawser' AS object, 'n'::"char" AS type, n.nspowner AS owner, n.nspacl AS acl
        FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hawser'
        UNION ALL
        SELECT c.oid, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass,
          (CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner, c.relacl
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = pg_catalog.to_regnamespace('hawser') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure, 'f', p.proowner, p.proacl
        FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('hawser')
      ) AS o WHERE o.oid <> ALL (coalesce(present, '{}'))
    )
    SELECT pg_catalog.format('REVOKE ALL ON %s FROM %s', m.object,
      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
    FROM made AS m
    CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(m.acl, pg_catalog.acldefault(m.type, m.owner))) AS a
    WHERE a.grantee <> m.owner
    UNION
    -- They can lack rights of the owner, too.
    SELECT pg_catalog.format('GRANT ALL ON %s TO %I', m.object, pg_catalog.pg_get_userbyid(m.owner))
    FROM made AS m WHERE m.acl IS NOT NULL
  LOOP
    EXECUTE statement;
  END LOOP;
END
$do$;
