/**
 * Four subscriptions of three roles, whose functions note each call in the ledger: its lane, which is the subscription, the role
 * that runs it, and the epoch of the process that leads. The last lane receives the messages of all subjects.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { login } from "../../installation/support/logins.js";
import { eventually } from "../../support/eventually.js";
import { audit, createLedger, type Done, type Sent } from "./ledger.js";
import { interleaved, type LedTransaction } from "./terms.js";

/** A subscription, and which of the numbered messages are for it. */
interface Lane {
  /** Its name and its role, as calls note them. */
  readonly consumer: string;
  readonly subject: string;
  /** Index of the lane's subject among the three; undefined for all subjects. */
  readonly remainder: number | undefined;
}

/** What the audit of the calls has found. */
export interface CallAudit {
  /** All of them must be empty. Calls that are repeated are no fault. */
  readonly findings: {
    readonly lost: readonly string[];
    readonly stray: readonly string[];
    readonly late: readonly string[];
    /** Transactions that did not see one of an earlier epoch as ended, and epochs of two processes. */
    readonly interleaved: readonly string[];
  };
  readonly repeated: readonly string[];
  readonly epochs: number;
  readonly summary: string;
}

/** Disposing closes its session and drops the roles. */
export class CallLedger implements AsyncDisposable {
  readonly prefix = `ledger.${randomBytes(4).toString("hex")}`;
  /** The subjects of the publisher. */
  readonly subjects = ["one", "two", "three"].map((word) => `${this.prefix}.${word}`);
  readonly lanes: Lane[] = [];
  readonly #roles: AsyncDisposable[] = [];
  #client: pg.Client | undefined;

  readonly databaseUrl: string;

  private constructor(databaseUrl: string) {
    this.databaseUrl = databaseUrl;
  }

  /** Makes it in a database for which nobody need serve yet. */
  static async make(databaseUrl: string): Promise<CallLedger> {
    const ledger = new CallLedger(databaseUrl);
    await createLedger(databaseUrl);
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
      ledger.lanes.push({ consumer: `${name} as ${role}`, subject, remainder });
      // The id of a message of NATS names the process that received it.
      await ledger.query(`
        GRANT USAGE ON SCHEMA hawser_data TO ${role}; GRANT SELECT ON hawser_data.fences TO ${role};
        CREATE FUNCTION ${name}(payload bytea) RETURNS void LANGUAGE sql AS $$
          INSERT INTO done (consumer, id, epoch)
          SELECT '${name} as ' || current_user
                   || CASE coalesce(split_part(current_setting('hawser.message', true), '.', 2), '') WHEN '' THEN ', of no process' ELSE '' END,
                 convert_from(payload, 'UTF8')::bigint::text, f.epoch
            FROM hawser_data.fences AS f WHERE f.what = 'serve'$$`);
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

  /** Resolves when each subscription runs: `probe` publishes something, with the number 0, to every subject. */
  async isLive(probe: () => Promise<void>): Promise<void> {
    await eventually(
      "all subscriptions run",
      async () => {
        await probe();
        return (await this.query("SELECT DISTINCT consumer FROM done WHERE id = '0'")).length === this.lanes.length;
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
  async goesOn(since: number, afterEpoch = 0n): Promise<{ readonly first: number; readonly all: number }> {
    let times: number[] = [];
    const sql = `
      SELECT extract(epoch FROM min(at)) * 1000 AS at FROM done
       WHERE epoch > $1 AND at > to_timestamp($2::float8 / 1000) AND id <> '0' GROUP BY consumer`;
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

  /** The last number that each lane has had. */
  async reached(): Promise<{ readonly consumer: string; readonly id: number }[]> {
    return await this.query<{ consumer: string; id: number }>(
      "SELECT consumer, max(id::integer) AS id FROM done GROUP BY consumer",
    );
  }

  /** Resolves when each lane has had all of its messages up to this number. */
  async reaches(last: number): Promise<void> {
    await eventually(
      `each lane reaches ${last}`,
      async () => {
        const rows = await this.reached();
        return this.lanes.every((lane) =>
          rows.some(({ consumer, id }) => consumer === lane.consumer && id >= lastOf(lane, last)),
        );
      },
      60_000,
    );
  }

  /** Looks at everything. @param last the last number that was published */
  async audit(last: number): Promise<CallAudit> {
    const sent = Array.from({ length: last }, (_, index): Sent => {
      const lanes = this.lanes.filter((lane) => lastOf(lane, index + 1) === index + 1);
      return { id: `${index + 1}`, consumers: lanes.map(({ consumer }) => consumer), lane: "numbers" };
    });
    const calls = await this.query<Done & LedTransaction>(
      "SELECT consumer, id, epoch::text, xid::text, snapshot::text FROM done WHERE id <> '0' ORDER BY nth",
    );
    const { twice, ...findings } = audit(sent, calls);
    const epochs = new Set(calls.map(({ epoch }) => epoch)).size;
    return {
      findings: { ...findings, interleaved: interleaved(calls) },
      ...{ repeated: twice, epochs },
      summary:
        `${last} messages, ${calls.length} calls in ${this.lanes.length} lanes under ${epochs} epochs, ` +
        `${findings.lost.length} lost, ${twice.length} repeated`,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client?.end();
    for (const role of this.#roles) await role[Symbol.asyncDispose]();
  }
}

/** The last number up to `last` that is for the lane. */
function lastOf({ remainder }: Lane, last: number): number {
  return remainder === undefined ? last : last - ((((last - remainder) % 3) + 3) % 3);
}
