/**
 * Record of calls of subscribed functions: a table with a row for each committed call, with its caller, its transaction, and
 * the snapshot of that transaction.
 *
 * There are four subscriptions of three roles, each a lane; the last one receives the messages of all subjects.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { login } from "../../store/nats/support/logins.js";
import { eventually } from "../../support/eventually.js";
import { type LedgerFindings, type LedgerRow, lookAt } from "./bridge-audit.js";

/** A subscription, and which of the numbered messages are for it. */
export interface LedgerLane {
  readonly name: string;
  readonly subject: string;
  /** Index of the lane's subject among the three; undefined for all subjects. */
  readonly remainder: number | undefined;
  readonly role: string;
}

// The id of a message of NATS names the process that received it.
const tableSql = `
  CREATE TABLE ledger (
    seq bigserial PRIMARY KEY,
    lane text NOT NULL,
    id bigint NOT NULL,
    who text NOT NULL DEFAULT current_user,
    process text NOT NULL DEFAULT split_part(current_setting('hawser.message', true), '.', 2),
    epoch bigint NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    snapshot pg_snapshot NOT NULL DEFAULT pg_current_snapshot(),
    at timestamptz NOT NULL DEFAULT clock_timestamp()
  );
  CREATE INDEX ON ledger (lane, id);
  CREATE INDEX ON ledger (epoch)`;

/** Disposing closes its session and drops the roles. */
export class BridgeLedger implements AsyncDisposable {
  readonly prefix = `ledger.${randomBytes(4).toString("hex")}`;
  /** The subjects of the publisher. */
  readonly subjects = ["one", "two", "three"].map((word) => `${this.prefix}.${word}`);
  readonly lanes: LedgerLane[] = [];
  readonly #roles: AsyncDisposable[] = [];
  #client: pg.Client | undefined;

  readonly databaseUrl: string;

  private constructor(databaseUrl: string) {
    this.databaseUrl = databaseUrl;
  }

  /** Makes it in a database for which nobody need serve yet. */
  static async make(databaseUrl: string): Promise<BridgeLedger> {
    const ledger = new BridgeLedger(databaseUrl);
    await ledger.query(tableSql);
    const roles: { role: string; url: string }[] = [];
    for (let n = 0; n < 3; n++) {
      const made = await login(databaseUrl, "IN ROLE hawser_nats");
      ledger.#roles.push(made);
      roles.push(made);
    }
    const [one, two, three] = roles;
    for (const [name, subject, remainder, { role, url }] of [
      ["lane_one", ledger.subjects[0], 0, one],
      ["lane_two", ledger.subjects[1], 1, two],
      ["lane_three", ledger.subjects[2], 2, three],
      ["lane_all", `${ledger.prefix}.>`, undefined, one],
    ] as [string, string, number | undefined, { role: string; url: string }][]) {
      ledger.lanes.push({ name, subject, remainder, role });
      await ledger.query(`
        GRANT USAGE ON SCHEMA hawser_data TO ${role}; GRANT SELECT ON hawser_data.fences TO ${role};
        GRANT INSERT, SELECT ON ledger TO ${role}; GRANT USAGE ON SEQUENCE ledger_seq_seq TO ${role};
        CREATE FUNCTION ${name}(payload bytea) RETURNS void LANGUAGE sql AS $$
          INSERT INTO ledger (lane, id, epoch)
          SELECT '${name}', convert_from(payload, 'UTF8')::bigint, f.epoch FROM hawser_data.fences AS f WHERE f.what = 'serve'$$`);
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      await client.query("SELECT nats_subscribe($1, $2::regproc)", [subject, name]);
      await client.end();
    }
    return ledger;
  }

  /** Asks as superuser, over a session that is opened anew when Postgres was away. @throws what node-postgres throws */
  async query<Row extends object>(sql: string, values: unknown[] = []): Promise<Row[]> {
    if (this.#client === undefined) {
      const client = new pg.Client({ connectionString: this.databaseUrl });
      const forget = (): void => {
        if (this.#client === client) this.#client = undefined;
      };
      client.on("error", forget);
      client.on("end", forget);
      await client.connect();
      this.#client = client;
    }
    const { rows } = await (values.length === 0 ? this.#client.query<Row>(sql) : this.#client.query<Row>(sql, values));
    return rows;
  }

  /** Resolves when each subscription runs: `probe` publishes something to every subject. */
  async isLive(probe: () => Promise<void>): Promise<void> {
    await eventually(
      "all subscriptions run",
      async () => {
        await probe();
        const [found] = await this.query<{ lanes: number }>(
          "SELECT count(DISTINCT lane)::integer AS lanes FROM ledger WHERE id = 0",
        );
        return found!.lanes === this.lanes.length;
      },
      60_000,
    );
  }

  /**
   * Resolves when each lane has had a call that was made after `since`, under an epoch after the given one.
   *
   * @param since in milliseconds since 1970
   * @returns how long after `since` the first and the last lane had theirs, in ms
   */
  async goesOn(since: number, afterEpoch: bigint): Promise<{ readonly first: number; readonly all: number }> {
    let times: number[] = [];
    const sql = `
      SELECT extract(epoch FROM min(at)) * 1000 AS at FROM ledger
       WHERE epoch > $1 AND at > to_timestamp($2::float8 / 1000) AND id > 0 GROUP BY lane`;
    await eventually("every lane goes on", async () => {
      const rows = await this.query<{ at: string }>(sql, [String(afterEpoch), since]).catch(() => []);
      times = rows.map(({ at }) => Number(at) - since);
      return times.length === this.lanes.length;
    });
    return { first: Math.min(...times), all: Math.max(...times) };
  }

  /** The epoch whose batches may be committed. */
  async epoch(): Promise<bigint> {
    const [row] = await this.query<{ epoch: string }>("SELECT epoch FROM hawser_data.fences WHERE what = 'serve'");
    return BigInt(row!.epoch);
  }

  /** Resolves when each lane has had all of its messages up to this number. */
  async reaches(id: number, limitMs = 60_000): Promise<void> {
    const sql = "SELECT lane, max(id)::integer AS id FROM ledger GROUP BY lane";
    await eventually(
      `each lane reaches ${id}`,
      async () => {
        const rows = await this.query<{ lane: string; id: number }>(sql);
        return this.lanes.every((lane) => rows.some((row) => row.lane === lane.name && row.id >= lastOf(lane, id)));
      },
      limitMs,
    );
  }

  /** Looks at everything. @param last the last number that was published */
  async audit(last: number): Promise<LedgerFindings> {
    const rows = await this.query<LedgerRow>(`
      SELECT lane, id::integer, who, process, epoch::text, xid::text, snapshot::text FROM ledger WHERE id > 0 ORDER BY seq`);
    return lookAt(rows, this.lanes, last);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client?.end();
    for (const role of this.#roles) await role[Symbol.asyncDispose]();
  }
}

/** The last number up to `last` that is for the lane. */
function lastOf({ remainder }: LedgerLane, last: number): number {
  return remainder === undefined ? last : last - ((((last - remainder) % 3) + 3) % 3);
}
