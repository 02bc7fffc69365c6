/**
 * The retention of dead letters: a row of the database, which all of its peers read. Peers may not write it, as it is about
 * the dead letters of all roles; setting it is for `hawser_owner`, or the role that made the schema.
 */
import { type DatabaseSettingRow, tables } from "../../generated/ts/rows/peer.js";
import { databaseSettingsDefaults } from "../../generated/ts/settings/peer.js";
import type { HawserError } from "../errors/index.js";
import type { Database } from "./database.js";
import { namingOwners } from "./mesh-secrets.js";

const sql = {
  read: `SELECT dead_letter_retention_days FROM ${tables.databaseSetting}`,
  set: `INSERT INTO ${tables.databaseSetting} (dead_letter_retention_days) VALUES ($1)
        ON CONFLICT (id) DO UPDATE SET dead_letter_retention_days = excluded.dead_letter_retention_days`,
} as const;

/** Age in days from which peers delete dead letters. */
export async function readDeadLetterRetention(database: Pick<Database, "query">): Promise<number> {
  const [row] = await database.query<Pick<DatabaseSettingRow, "dead_letter_retention_days">>(
    "read the retention of dead letters",
    { text: sql.read },
  );
  return row?.dead_letter_retention_days ?? databaseSettingsDefaults.deadLetterRetentionDays;
}

/**
 * Sets the age from which peers delete dead letters. They read it each time they look for old ones: at their start, and every hour.
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
