/**
 * Retention of dead letters and of the audit: a row that all peers of the database read. It concerns the rows of all roles,
 * so peers may not write it: only `hawser_owner` and the role that created the schema may.
 */
import { tables } from "../../../generated/ts/rows/peer.js";
import { databaseSettingsDefaults } from "../../../generated/ts/settings/peer.js";
import type { HawserError } from "../../foundation/errors/index.js";
import type { Database } from "../../jobs-and-peers/store/index.js";
import { namingOwners } from "./mesh-secrets.js";

/** What has a retention: its name, its column, and its default in days. */
const kinds = {
  "dead letters": {
    column: "dead_letter_retention_days",
    days: databaseSettingsDefaults.deadLetterRetentionDays,
  },
  audit: { column: "audit_retention_days", days: databaseSettingsDefaults.auditRetentionDays },
} as const;
type Kind = keyof typeof kinds;

/** Reads the age in days from which peers delete rows of a kind. */
export async function readRetention(database: Pick<Database, "query">, kind: Kind): Promise<number> {
  const { column, days } = kinds[kind];
  const [row] = await database.query<{ days: number | null }>(`read the retention of the ${kind}`, {
    text: `SELECT ${column} AS days FROM ${tables.databaseSetting}`,
  });
  return row?.days ?? days;
}

/**
 * Sets the age in days from which peers delete rows of a kind. A peer reads it before each deletion: when it starts, and
 * every hour.
 *
 * @throws HawserError `store_failed` if the role may not
 */
export async function setRetention(database: Pick<Database, "query">, kind: Kind, days: number): Promise<void> {
  const { column } = kinds[kind];
  const text = `INSERT INTO ${tables.databaseSetting} (${column}) VALUES ($1) ON CONFLICT (id) DO UPDATE SET ${column} = excluded.${column}`;
  await database.query(`set the retention of the ${kind}`, { text, values: [days] }).catch((error: HawserError) => {
    throw namingOwners(error);
  });
}
