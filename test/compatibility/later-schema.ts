/**
 * The schema of a later version: one step more than this one knows.
 */
import { tables } from "../../generated/ts/rows/peer.js";
import { migrations } from "../../src/store/index.js";
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

export async function recordLaterStep(world: PeerWorld): Promise<void> {
  await world.query(
    `INSERT INTO hawser_data.migrations (id, name, checksum) VALUES (${next}, 'a later step', repeat('0', 64))`,
  );
}
