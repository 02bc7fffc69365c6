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
