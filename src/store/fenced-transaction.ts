/**
 * A transaction of several statements behind the fence of a name.
 */
import type pg from "pg";
import { fenceSql, type WriterName } from "./fence.js";

/** Carries an error from before COMMIT was sent: whatever it was, nothing is committed. */
export class NotCommitted extends Error {
  /**
   * @param cause what ended the transaction
   * @param rolledBack the connection can be used again
   */
  constructor(
    override readonly cause: unknown,
    readonly rolledBack: boolean,
  ) {
    super("the transaction was not committed");
  }
}

/**
 * Runs `work` in a transaction that begins with the shared lock on the name's fence, and only while the catalog has the
 * writer's epoch, which cannot change before the end.
 *
 * @returns what `work` returned, or `"fenced"`, with nothing written
 * @throws NotCommitted if anything went wrong before COMMIT was sent; the driver's error if COMMIT itself failed
 */
export async function fencedTransaction<T>(
  client: pg.ClientBase,
  writer: WriterName,
  work: (client: pg.ClientBase) => Promise<T>,
): Promise<T | "fenced"> {
  let result: T | "fenced";
  try {
    await client.query("BEGIN ISOLATION LEVEL READ COMMITTED");
    await client.query({ text: fenceSql.lock, values: [writer.name] });
    // A statement of its own: its snapshot is from after the wait for the lock.
    const held = await client.query({ text: fenceSql.check, values: [writer.name, writer.epoch] });
    result = held.rowCount === 1 ? await work(client) : "fenced";
  } catch (error) {
    const rolledBack = await client.query("ROLLBACK").then(
      () => true,
      () => false,
    );
    throw new NotCommitted(error, rolledBack);
  }
  const { command } = await client.query("COMMIT");
  // COMMIT of a transaction in which a statement failed unnoticed rolls back, and is no error.
  if (command !== "COMMIT") throw new NotCommitted(new Error("a statement in it had failed"), true);
  return result;
}
