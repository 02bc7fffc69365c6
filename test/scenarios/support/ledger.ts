/**
 * Ledger of handlers, a table: each start of a handler.
 */
import pg from "pg";

/** A start of a handler. */
export interface LedgerRow {
  readonly text: string;
  /** The process of the handler. */
  readonly pid: number;
}

/** The ledger as a handler uses it. */
export interface Ledger {
  /** Records the start of a handler for the message with this text. */
  begin(text: string): Promise<void>;
  close(): Promise<void>;
}

/** Makes the table. */
export const ledgerTable = "CREATE TABLE ledger (id bigserial PRIMARY KEY, text text NOT NULL, pid integer NOT NULL)";

const beginSql = "INSERT INTO ledger (text, pid) VALUES ($1, $2)";

/** Opens the ledger, on a connection of its own. */
export async function openLedger(url: string): Promise<Ledger> {
  // It survives the process; that Postgres dies is no part of these tests, so it need not wait for the disk.
  const client = new pg.Client({ connectionString: url, options: "-c synchronous_commit=off" });
  client.on("error", () => undefined);
  await client.connect();
  return {
    async begin(text) {
      await client.query({ name: "ledger.begin", text: beginSql, values: [text, process.pid] });
    },
    close: () => client.end(),
  };
}

/** All of it, in the order of the starts. */
export async function readLedger(url: string): Promise<LedgerRow[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<LedgerRow>("SELECT text, pid FROM ledger ORDER BY id")).rows;
  } finally {
    await client.end();
  }
}
