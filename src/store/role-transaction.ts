/**
 * Transactions that change what all databases of a server share: roles.
 */

import type pg from "pg";
import { isServerError } from "../postgres/index.js";

/** Another database of the cluster changes the same roles at the same moment: internal error, and unique violation. */
const collisions = new Set(["XX000", "23505", "40001", "40P01"]);
const collisionTries = 10;

/**
 * Runs statements in one transaction, again where others came between.
 *
 * @returns why Postgres refused; undefined if it did not
 */
export async function tryTransaction(client: pg.Client, sql: string): Promise<pg.DatabaseError | undefined> {
  for (let tries = 1; ; tries++) {
    try {
      await client.query("BEGIN");
      await client.query(sql);
      await client.query("COMMIT");
      return undefined;
    } catch (error) {
      await client.query("ROLLBACK").catch(() => undefined);
      if (!isServerError(error)) throw error;
      if (!collisions.has(error.code ?? "") || tries === collisionTries) return error;
    }
  }
}
