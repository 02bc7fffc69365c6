/** Workers of the queue, and messages for them. */
import { randomInt } from "node:crypto";
import type pg from "pg";
import { queueFunctions, type TakeResult } from "../../../generated/ts/rows/queue.js";

/** Message that a worker has. */
export type Taken = TakeResult & { readonly id: bigint; readonly payload: Buffer; readonly attempts: number };

/** Ranks up to which a worker has looked, by topic, recipient and role. */
export type Positions = Record<string, Record<string, Record<string, number>>>;

interface WorkerOptions {
  readonly name?: string;
  readonly topics?: readonly string[];
  readonly group?: string;
  readonly leaseMs?: number;
  readonly concurrency?: number;
  readonly replaces?: bigint;
}

interface TakeOptions {
  readonly most?: number;
  readonly maxBytes?: number;
  /** Default: all of its topics. */
  readonly topics?: readonly string[];
  /** True: also at what the worker has looked at before. */
  readonly looksBehind?: boolean;
}

/** Worker that does what `docs/store-protocol.md` tells one to. */
export class TestWorker {
  readonly #client: pg.Client | pg.PoolClient;
  id: bigint;
  after: Positions = {};

  private constructor(client: pg.Client | pg.PoolClient, id: bigint) {
    this.#client = client;
    this.id = id;
  }

  static async open(
    client: pg.Client | pg.PoolClient,
    { name = "w", topics = ["t"], group, leaseMs = 60_000, concurrency = 1, replaces }: WorkerOptions = {},
  ): Promise<TestWorker> {
    const { worker } = await queueFunctions(client).openWorker({
      ...{ name, topics: [...topics], group: group ?? null, leaseMs, concurrency },
      replaces: replaces ?? null,
    });
    return new TestWorker(client, worker);
  }

  get #functions() {
    return queueFunctions(this.#client);
  }

  /** Goes on with some of its messages under another id, as after the loss of its session. @returns the ranks of those that it still has */
  async resume(messages: readonly Taken[], as = BigInt(randomInt(1, 2 ** 47))): Promise<bigint[]> {
    const { ranks } = await this.#functions.resumeWorker({ worker: this.id, as, ...places(messages) });
    this.id = as;
    this.after = {};
    return ranks;
  }

  /** Takes also what is for these listeners. */
  async standInFor(...names: string[]): Promise<void> {
    await this.#functions.serveTopics({ worker: this.id, topics: ["t"], standsInFor: names });
  }

  async take({
    most = 100,
    maxBytes = 1_000_000,
    topics = [],
    looksBehind = false,
  }: TakeOptions = {}): Promise<Taken[]> {
    const rows = await this.#functions.take({
      ...{ worker: this.id, most, maxBytes: BigInt(maxBytes), topics: [...topics] },
      after: looksBehind ? null : JSON.stringify(this.after),
    });
    if (looksBehind) this.after = {};
    for (const { topic, recipient, role, rank, payload } of rows) {
      if (payload !== null) continue;
      const roles = ((this.after[topic] ??= {})[recipient] ??= {});
      roles[role] = Math.max(roles[role] ?? 0, Number(rank));
    }
    return rows.filter((row): row is Taken => row.payload !== null);
  }

  async extend(): Promise<bigint[]> {
    return (await this.#functions.extend({ worker: this.id, looks: true, running: null })).goneWorkers;
  }

  /** Ends those of its messages that are to be cancelled. @param running one whose handler runs @returns their ranks */
  async endCancelled(running?: Taken): Promise<bigint[]> {
    const { cancelled } = await this.#functions.extend({ worker: this.id, looks: false, running: null });
    const ranks = cancelled.filter((rank) => rank !== running?.rank);
    return ranks.length === 0 ? [] : (await this.#functions.endCancelled({ worker: this.id, ranks })).ranks;
  }

  async done({ topic, recipient, role, rank }: Taken): Promise<void> {
    await this.#functions.done({ topic, recipient, role, rank, handling: false, durationMs: null, result: null });
  }

  async doneBatch(...messages: readonly Taken[]): Promise<void> {
    await this.#functions.doneBatch({ ...places(messages), handling: false, results: null });
  }

  async retry(
    { topic, recipient, role, rank }: Taken,
    delayMs: number,
    failure: object | null = null,
    countsAttempt: boolean | null = null,
  ): Promise<bigint[]> {
    const given = { worker: this.id, topic, recipient, role, rank, delayMs: BigInt(delayMs), countsAttempt };
    return (await this.#functions.retry({ ...given, failure: failure && JSON.stringify(failure) })).ranks;
  }

  async giveUp({ topic, recipient, role, rank }: Taken, failure: object | null = null): Promise<bigint> {
    const { deadLetter } = await this.#functions.giveUp({
      ...{ worker: this.id, topic, recipient, role, rank },
      ...{ errorCode: "handler_failed", errorMessage: "no", stack: "at a" },
      failure: failure && JSON.stringify(failure),
    });
    return deadLetter;
  }

  async giveBack(...messages: readonly Taken[]): Promise<bigint[]> {
    return (await this.#functions.giveBack({ worker: this.id, ...places(messages), begun: null })).ranks;
  }

  async cutOff(...messages: readonly Taken[]): Promise<bigint[]> {
    return (await this.#functions.giveBack({ worker: this.id, ...places(messages), begun: true })).ranks;
  }

  async begin(...messages: readonly Taken[]): Promise<bigint[]> {
    return (await this.#functions.begin({ worker: this.id, ...places(messages) })).ranks;
  }

  async close(): Promise<boolean> {
    return (await this.#functions.closeWorker({ worker: this.id, running: null })).closed;
  }
}

function places(messages: readonly Taken[]) {
  return {
    topics: messages.map(({ topic }) => topic),
    recipients: messages.map(({ recipient }) => recipient),
    roles: messages.map(({ role }) => role),
    ranks: messages.map(({ rank }) => rank),
  };
}

interface MessageOptions {
  readonly recipient?: string;
  readonly key?: string;
  readonly headers?: readonly (readonly [string, string])[];
  readonly role?: string;
  readonly origin?: string;
  readonly toAll?: boolean;
  readonly priority?: number;
}

/** Puts a message for each text into the queue. @returns their ids */
export async function enqueue(
  client: pg.Client | pg.PoolClient,
  topic: string,
  texts: readonly string[],
  { recipient = "", key, headers, role = "shop", origin, toAll = false, priority = 0 }: MessageOptions = {},
): Promise<bigint[]> {
  const { rows } = await client.query<{ ids: string[] }>(
    "SELECT ids FROM hawser.queue_messages($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    [
      ...[
        topic,
        recipient,
        texts.map((text) => Buffer.from(text)),
        headers === undefined ? null : JSON.stringify(headers),
      ],
      ...[key, role, origin, toAll, priority],
    ],
  );
  return rows[0]!.ids.map(BigInt);
}

export const textsOf = (messages: readonly Taken[]): string[] => messages.map(({ payload }) => payload.toString());
