/**
 * Counts the statements that this process sends to Postgres: every call of `query` of every client, pooled or not.
 */
import pg from "pg";

let statements = 0;

const { query } = pg.Client.prototype;

pg.Client.prototype.query = function (this: pg.Client, ...args: Parameters<typeof query>) {
  statements += 1;
  return query.apply(this, args);
} as typeof query;

/** How many there were since the process began. */
export function statementsSent(): number {
  return statements;
}
