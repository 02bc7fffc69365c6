/**
 * Writers of random histories: sessions of several roles that enqueue, wait for each other's keys, commit and roll back, also
 * to savepoints.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import type { Random } from "../../simulator/random.js";

/** A message that was enqueued. */
export interface Sent {
  readonly text: string;
  /** Lane of the message; undefined: it has no order. */
  readonly lane: string | undefined;
  /** True for a message to all listeners. */
  readonly isToAll?: boolean;
}

/** Messages that a writer enqueues with one call. */
interface Call {
  readonly sql: string;
  readonly values: (payloads: readonly string[], key: string | null) => readonly unknown[];
  /** Destination of the messages: calls with one destination wait for each other's keys. */
  readonly destination: string;
  /** The JetStream domain. */
  readonly domain?: string;
  readonly isToAll?: boolean;
}

interface Writer {
  readonly client: pg.Client;
  /** Its session is this role's; undefined: each transaction has its own. */
  readonly user: string | undefined;
  role: string;
  isOpen: boolean;
  /** Waits for a key. */
  waiting: Promise<void> | undefined;
  sent: Sent[];
  savepoint: number | undefined;
  lastKey: number;
}

/** Options of {@link Writers}. */
export interface WritersOptions {
  readonly url: string;
  /** The role of which the writers' roles are members. */
  readonly memberOf: string;
  readonly calls: readonly Call[];
}

const keys = ["k1", "k2", "k3"];

export class Writers implements AsyncDisposable {
  readonly #options: WritersOptions;
  readonly #roles: readonly string[];
  #random!: Random;
  #control!: pg.Client;
  #writers: Writer[] = [];
  #texts = 0;
  readonly #sent = new Map<string, Sent>();
  /** Committed messages, in the order of the commits. */
  committed: Sent[] = [];

  constructor(options: WritersOptions) {
    this.#options = options;
    const id = randomBytes(4).toString("hex");
    this.#roles = [`writer_a_${id}`, `writer_b_${id}`];
  }

  async open(): Promise<void> {
    this.#control = await this.#connected();
    for (const role of this.#roles)
      await this.#control.query(`CREATE ROLE ${role}; GRANT ${this.#options.memberOf} TO ${role}`);
    for (const user of [this.#roles[0], undefined, undefined, undefined]) {
      const client = await this.#connected();
      if (user !== undefined) await client.query(`SET SESSION AUTHORIZATION ${user}`);
      this.#writers.push({ client, user, ...closed() });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#writers.map(({ client }) => client.end()));
    for (const role of this.#roles) await this.#control.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
    await this.#control.end();
  }

  async reset(random: Random): Promise<void> {
    this.#random = random;
    this.committed = [];
    for (const writer of this.#writers) {
      await writer.client.query("ROLLBACK");
      Object.assign(writer, closed());
    }
  }

  /** The message that was enqueued with this text. */
  sent(text: string): Sent {
    return this.#sent.get(text)!;
  }

  async step(): Promise<void> {
    const random = this.#random;
    const writer = random.pick(this.#writers);
    const { client } = writer;
    if (writer.waiting !== undefined) return;
    if (!writer.isOpen) {
      await client.query("BEGIN");
      Object.assign(writer, closed(), { isOpen: true, role: writer.user ?? "none" });
      if (writer.user === undefined && random.chance(0.5)) {
        writer.role = random.pick(this.#roles);
        await client.query(`SET LOCAL ROLE ${writer.role}`);
      }
      if (random.chance(0.5)) await client.query("SELECT pg_current_xact_id()");
      return;
    }
    const kind = random.next();
    if (kind < 0.65) this.#enqueue(writer);
    else if (kind < 0.72) {
      await client.query("SAVEPOINT s");
      writer.savepoint = writer.sent.length;
    } else if (kind < 0.8 && writer.savepoint !== undefined) {
      await client.query("ROLLBACK TO s");
      writer.sent.length = writer.savepoint;
    } else await this.#end(writer, random.chance(0.8));
    await this.#settled();
  }

  /** All commit. */
  async finish(): Promise<void> {
    while (this.#writers.some(({ isOpen }) => isOpen)) {
      for (const writer of this.#writers)
        if (writer.isOpen && writer.waiting === undefined) await this.#end(writer, true);
      await this.#settled();
    }
  }

  #enqueue(writer: Writer): void {
    const random = this.#random;
    const call = random.pick(this.#options.calls);
    // In one order, so that no two wait for each other.
    const first = this.#options.calls.findIndex(({ destination }) => destination === call.destination);
    const place = first * keys.length + random.between(0, keys.length - 1);
    const isKeyed = random.chance(0.7) && place >= writer.lastKey;
    const key = isKeyed ? keys[place % keys.length]! : null;
    if (isKeyed) writer.lastKey = place;
    const lane = key === null ? undefined : `${writer.role} ${call.domain ?? ""} ${call.destination} ${key}`;
    // Now and then a burst.
    const sent = Array.from({ length: random.chance(0.25) ? random.between(2, 15) : 1 }, () => {
      const message = { text: `m${++this.#texts}`, lane, isToAll: call.isToAll === true };
      this.#sent.set(message.text, message);
      return message;
    });
    const values = call.values(
      sent.map(({ text }) => text),
      key,
    );
    writer.waiting = writer.client.query(call.sql, [...values]).then(() => {
      writer.sent.push(...sent);
      writer.waiting = undefined;
    });
    // A history that has failed leaves it alone.
    writer.waiting.catch(() => undefined);
  }

  async #end(writer: Writer, isCommit: boolean): Promise<void> {
    await writer.client.query(isCommit ? "COMMIT" : "ROLLBACK");
    if (isCommit) this.committed.push(...writer.sent);
    writer.isOpen = false;
    await this.#settled();
  }

  /** Waits for the answers of all writers that do not wait for a key. */
  async #settled(): Promise<void> {
    for (const writer of this.#writers) {
      if (writer.waiting === undefined) continue;
      const blocked = async (): Promise<boolean> => {
        const pid = (writer.client as unknown as { processID: number }).processID;
        const { rows } = await this.#control.query("SELECT cardinality(pg_blocking_pids($1)) > 0 AS blocked", [pid]);
        return rows[0].blocked;
      };
      const { waiting } = writer;
      while (writer.waiting === waiting && !(await blocked()))
        await Promise.race([waiting, this.#control.query("SELECT 1")]);
    }
  }

  async #connected(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.#options.url, statement_timeout: 60_000 });
    await client.connect();
    return client;
  }
}

function closed(): Omit<Writer, "client" | "user"> {
  return { role: "none", isOpen: false, waiting: undefined, sent: [], savepoint: undefined, lastKey: -1 };
}

/**
 * Each of these was committed and came once, and each lane in the order of the commits.
 *
 * @throws Error that says what went wrong
 */
export function checkHistory(committed: readonly Sent[], came: readonly Sent[]): void {
  const places = new Map(committed.map(({ text }, nth) => [text, nth]));
  const seen = new Set<string>();
  const last = new Map<string, string>();
  for (const { text, lane } of came) {
    const nth = places.get(text);
    if (nth === undefined) throw new Error(`${text} came, and was rolled back`);
    if (seen.has(text)) throw new Error(`${text} came twice`);
    seen.add(text);
    if (lane === undefined) continue;
    const before = last.get(lane);
    if (before !== undefined && places.get(before)! > nth)
      throw new Error(`${text} of "${lane}" came behind ${before}, and was committed before it`);
    last.set(lane, text);
  }
  for (const { text } of committed) if (!seen.has(text)) throw new Error(`${text} was committed, and never came`);
}
