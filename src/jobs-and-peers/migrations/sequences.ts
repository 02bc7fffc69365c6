/**
 * Sequences that are behind the numbers in their tables. Logical replication copies tables and not their sequences, so after a
 * move by it the next dead letter, for example, would have the number of one that is there, and could not be written.
 */
import type { CatalogReader } from "./schema.js";

interface BehindRow {
  readonly sequence_name: string;
  readonly last_value: bigint;
  readonly highest: bigint;
}

/** Describes each sequence that is behind, such as `the sequence … is at 0, behind the 17 in its table`. */
export async function behindSequences(reader: CatalogReader): Promise<string[]> {
  return described(reader, "false");
}

/** Raises the sequences that are behind, except on a standby. @returns their descriptions, as they were */
export async function raiseSequences(reader: CatalogReader): Promise<string[]> {
  return described(reader, "NOT pg_catalog.pg_is_in_recovery()");
}

/** Writes the oids of roles in the tables anew, if the database was restored from a dump, where they are others. @returns what it did */
export async function adoptRoles(reader: CatalogReader): Promise<string[]> {
  const { rows } = await reader.query("SELECT adopted FROM hawser.adopt_roles()");
  const adopted = Number((rows as readonly { adopted: unknown }[])[0]!.adopted);
  return adopted === 0
    ? []
    : [`${adopted} rows have come by a dump or from another cluster: they belong to the present roles of their names`];
}

async function described(reader: CatalogReader, raises: string): Promise<string[]> {
  const text = `SELECT sequence_name, last_value, highest FROM hawser.behind_sequences(${raises})`;
  const rows = (await reader.query(text)).rows as readonly BehindRow[];
  return rows.map(
    ({ sequence_name: name, last_value: last, highest }) =>
      `the sequence ${name} is at ${last}, behind the ${highest} in its table, as after a move by logical replication`,
  );
}
