import { migrations, programSchema } from "../../../src/jobs-and-peers/migrations/index.js";
import type { Migration, ProgramSchema } from "../../../src/jobs-and-peers/migrations/migrations.js";

/** A step as a later release could have: a check and an index of a table that may be large, then what is changed at once. */
export const madeStep: Migration = {
  id: migrations.length + 1,
  name: "made for a test",
  oldestProgram: migrations.length + 1,
  sql: [
    `ALTER TABLE hawser_peer_data.stored_messages
  DROP CONSTRAINT IF EXISTS stored_messages_made, ADD CONSTRAINT stored_messages_made CHECK (number > -1) NOT VALID;
`,
    "ALTER TABLE hawser_peer_data.stored_messages VALIDATE CONSTRAINT stored_messages_made;\n",
    "CREATE INDEX CONCURRENTLY stored_messages_made_idx ON hawser_peer_data.stored_messages (epoch, channel_id);\n",
    // Not in the order of peers.
    `ALTER TABLE hawser_peer_data.stored_messages ADD COLUMN made boolean;
ALTER TABLE hawser_data.fences ADD COLUMN made boolean;
ALTER TABLE hawser_peer_data.peers ADD COLUMN made boolean;
`,
  ].join("-- Next part.\n"),
};

export const programWithMade: ProgramSchema = { ...programSchema, steps: [...migrations, madeStep] };
