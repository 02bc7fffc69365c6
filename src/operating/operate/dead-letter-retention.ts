/**
 * Retention of dead letters: a row that all peers of the database read. It concerns the dead letters of all roles, so
 * peers may not write it: only `hawser_owner` and the role that created the schema may.
 */
import { type DatabaseSettingRow, tables } from "../../../generated/ts/rows/peer.js";
import { databaseSettingsDefaults } from "../../../generated/ts/settings/peer.js";
import type { HawserError } from "../../foundation/errors/index.js";
import type { Database } from "../../jobs-and-peers/store/index.js";
import { namingOwners } from "./mesh-secrets.js";

const sql = {
  read: `SELECT dead_letter_retention_days FROM ${tables.databaseSetting}`,
  set: `INSERT INTO ${tables.databaseSetting} (dead_letter_retention_days) VALUES ($1)
        ON CONFLICT (id) DO UPDATE SET dead_letter_retention_days = excluded.dead_letter_retention_days`,
} as const;

/** Reads the age in days from which peers delete dead letters. */
export async function readDeadLetterRetention(database: Pick<Database, "query">): Promise<number> {
  const [row] = await database.query<Pick<DatabaseSettingRow, "dead_letter_retention_days">>(
    "read the retention of dead letters",
    { text: sql.read },
  );
  return row?.dead_letter_retention_days ?? databaseSettingsDefaults.deadLetterRetentionDays;
}

/**
 * Sets the age in days from which peers delete dead letters. A peer reads it before each deletion: when it starts, and
 * every hour.
 *
 * @throws HawserError `store_failed` if the role may not
 */
export async function setDeadLetterRetention(database: Pick<Database, "query">, days: number): Promise<void> {
  await database
    .query("set the retention of dead letters", { text: sql.set, values: [days] })
    .catch((error: HawserError) => {
      throw namingOwners(error);
    });
}
