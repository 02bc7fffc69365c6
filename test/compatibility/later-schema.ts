/**
 * The schema of a later version: one step more than this one knows.
 */
import { tables } from "../../generated/ts/rows/peer.js";
import { migrations, programSchema } from "../../src/jobs-and-peers/migrations/index.js";
import type { ProgramSchema } from "../../src/jobs-and-peers/migrations/migrations.js";
import type { PeerWorld } from "../peer/support/world.js";

const names = Object.values(tables).filter((name) => name !== tables.migration);
export const next = migrations.length + 1;

/** Additions that a step may make: columns with defaults in every table, a function, a table. */
export const additions: readonly string[] = [
  ...names.flatMap((name) => [
    `ALTER TABLE ${name} ADD COLUMN added_later integer NOT NULL DEFAULT 7`,
    `ALTER TABLE ${name} ADD COLUMN added_too text`,
  ]),
  "CREATE TABLE hawser.later (id integer PRIMARY KEY)",
  "CREATE FUNCTION hawser.later() RETURNS integer LANGUAGE sql AS 'SELECT 7'",
];

/** Schema of a program that knows one step more. @param oldestProgram steps that a program must know at least */
export const laterProgram = (oldestProgram: number): ProgramSchema => ({
  ...programSchema,
  steps: [...migrations, { id: next, name: "a later step", oldestProgram, sql: `${additions.join(";\n")};` }],
});

/** Records a step that suits no older program. */
export async function recordLaterStep(world: PeerWorld): Promise<void> {
  await world.query(
    `INSERT INTO hawser_data.migrations (id, name, checksum, oldest_program) VALUES (${next}, 'a later step', repeat('0', 64), ${next})`,
  );
}
