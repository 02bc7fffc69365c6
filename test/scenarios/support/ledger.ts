/**
 * Ledger of handlers, a table: each start of a handler with the cursor that was committed at that moment.
 */
import pg from "pg";

/** A start of a handler. */
export interface LedgerRow {
  readonly text: string;
  /** The committed cursor of the only channel of the listener, as the handler's start found it. */
  readonly cursorEpoch: number;
  readonly cursor: number;
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
export const ledgerTable = `CREATE TABLE ledger (
  id bigserial PRIMARY KEY, text text NOT NULL, cursor_epoch bigint NOT NULL, cursor bigint NOT NULL, pid integer NOT NULL
)`;

const beginSql = `INSERT INTO ledger (text, cursor_epoch, cursor, pid)
  SELECT $1, coalesce(max(epoch), 0), coalesce(max(number), 0), $2 FROM hawser_peer_data.cursors`;

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
    const { rows } = await client.query("SELECT text, cursor_epoch, cursor, pid FROM ledger ORDER BY id");
    return rows.map(({ text, cursor_epoch, cursor, pid }) => {
      return { text, cursorEpoch: Number(cursor_epoch), cursor: Number(cursor), pid };
    });
  } finally {
    await client.end();
  }
}
