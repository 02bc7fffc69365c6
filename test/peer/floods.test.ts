/**
 * Notifications without end, which any login that may connect to the database can send: they cost few queries, one at a time,
 * and no message is late without a limit.
 */

import pg from "pg";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { notifyChannels } from "../../generated/ts/rows/peer.js";
import { queueConstants } from "../../generated/ts/settings/queue.js";
import { announcedChannels } from "../../src/jobs-and-peers/peer/receiving/announced-channels.js";
import { messageChannel } from "../../src/jobs-and-peers/store/notifications.js";
import { type Login, login } from "../installation/support/logins.js";
import { eventually } from "../support/eventually.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();
let plain: Login & AsyncDisposable;
let queries: Queries;

beforeEach(async () => {
  plain = await login(world.url);
});
afterEach(async () => {
  vi.restoreAllMocks();
  await plain[Symbol.asyncDispose]();
});

/** Queries of the peers of this process, by a part of the statement. */
class Queries {
  readonly #asked: { readonly text: string; readonly values: readonly unknown[] }[] = [];
  readonly #underWay = new Map<string, number>();
  readonly #most = new Map<string, number>();

  constructor(parts: readonly string[]) {
    const query = pg.Client.prototype.query as (...given: unknown[]) => unknown;
    vi.spyOn(pg.Client.prototype, "query").mockImplementation(function (this: pg.Client, ...given: unknown[]) {
      const { text = "", values = [] } = given[0] as { text?: string; values?: unknown[] };
      const answer = query.apply(this, given);
      const part = parts.find((each) => text.includes(each));
      if (part !== undefined) queries.#begin(part, values, answer as Promise<unknown>);
      return answer as never;
    });
  }

  #begin(part: string, values: readonly unknown[], answer: Promise<unknown>): void {
    this.#asked.push({ text: part, values });
    const now = (this.#underWay.get(part) ?? 0) + 1;
    this.#underWay.set(part, now);
    this.#most.set(part, Math.max(now, this.#most.get(part) ?? 0));
    const ended = (): void => void this.#underWay.set(part, this.#underWay.get(part)! - 1);
    answer.then(ended, ended);
  }

  /** The values of each such statement. */
  of(part: string): (readonly unknown[])[] {
    return this.#asked.filter(({ text }) => text === part).map(({ values }) => values);
  }

  /** Largest number of queries in flight at one time. */
  most(part: string): number {
    return this.#most.get(part) ?? 0;
  }
}

/** A plain login notifies: `payload` is an expression over `g`, from 1 to `count`. */
async function flood(channel: string, payload: string, count: number): Promise<void> {
  const client = new pg.Client({ connectionString: plain.url });
  await client.connect();
  try {
    const text = `SELECT count(pg_notify($1, ${payload})) FROM generate_series(1, $2::integer) AS g`;
    await client.query(text, [channel, count]);
  } finally {
    await client.end();
  }
}

const enqueue = (topic: string, text: string) => world.query("SELECT hawser.enqueue($1, $2)", [topic, text]);

const announced = "ANY ($1::integer[]) AND m.listener_name";
const oneChannel = "WHERE m.channel_id = $1";
const taken = "hawser.take(";
const opened = "hawser.open_worker(";

it("announcements of unknown channels are few queries, and a message of a new channel is delivered", async () => {
  const b = await world.started("b-1");
  queries = new Queries([announced, oneChannel]);
  await flood(messageChannel("b-1"), "(1000000 + g)::text", 20_000);
  await enqueue("b", "after");
  await b.received.find(({ text }) => text === "after");
  const asked = queries.of(announced);
  expect(asked.length).toBeGreaterThan(0);
  expect(asked.length).toBeLessThan(200);
  for (const [keys] of asked) expect((keys as number[]).length).toBeLessThanOrEqual(announcedChannels);
  expect(queries.most(announced)).toBe(1);
  // Of channels that the peer owns.
  expect(queries.of(oneChannel).length).toBeLessThan(10);
  expect(b.statuses.all).toEqual([]);
});

it("what is no key of a channel is not looked up", async () => {
  const b = await world.started("b-1");
  await enqueue("b", "before");
  await b.received.length(1);
  queries = new Queries([announced]);
  for (const payload of ["2147483648", "9007199254740991", "0", "-1", " 1000001", "01", "1e3"]) {
    await flood(messageChannel("b-1"), `'${payload}'`, 1);
  }
  await flood(messageChannel("b-1"), "'2147483647'", 1);
  await eventually("the greatest key is looked up", () => queries.of(announced).length > 0);
  expect(queries.of(announced).flatMap(([keys]) => keys)).toEqual([2_147_483_647]);
});

it("a worker takes messages of topics that it serves, one statement at a time, however many others are notified", async () => {
  const held = gate();
  const b = await world.working("b-1", { concurrency: 1 }, () => held.opened);
  for (let n = 0; n < 4; n++) await enqueue("b", `slow ${n}`);
  await b.received.length(1);
  queries = new Queries([taken]);
  await flood(queueConstants.channel, "'topic ' || g", 60_000);
  await flood(queueConstants.channel, "repeat('b', (g % 2)::integer)", 60_000);
  held.open();
  await enqueue("b", "after");
  await b.received.find(({ text }) => text === "after");
  const asked = queries.of(taken);
  expect(asked.length).toBeGreaterThan(0);
  expect(asked.length).toBeLessThan(2_000);
  for (const values of asked) expect(values).toContainEqual(["b"]);
  expect(queries.most(taken)).toBe(1);
  expect(b.statuses.all).toEqual([]);
});

it("a take that Postgres refuses is a status, and is tried again, not in a loop", async () => {
  const b = await world.working("b-1");
  await enqueue("b", "before");
  await b.received.length(1);
  await world.query("ALTER FUNCTION hawser.take RENAME TO take_away");
  try {
    await enqueue("b", "after");
    const { message } = await b.saw("listener_store_error");
    expect(message).toContain("could not take messages of the queue: function hawser.take(");
    await b.statuses.length(3);
    queries = new Queries([taken, opened]);
    await b.statuses.length(5);
    // Each waits longer than the one before, and each begins one worker.
    expect(queries.of(opened).length).toBeLessThanOrEqual(3);
  } finally {
    await world.query("ALTER FUNCTION hawser.take_away RENAME TO take");
  }
  await b.received.find(({ text }) => text === "after");
});

/** Waits until the process has had all notifications of before: it looks up a channel that is announced after them. */
async function floodsHeard(): Promise<void> {
  const before = queries.of(announced).length;
  await flood(messageChannel("b-1"), "'2147483647'", 1);
  await eventually("the announcement is heard", () => queries.of(announced).length > before);
}

it("notifications of mesh secrets are one query of a peer at a time", async () => {
  const [a, b] = await world.running("a-1", "b-1");
  await a.send("b", "before");
  const secrets = "SELECT secret FROM";
  queries = new Queries([secrets, announced]);
  await flood(notifyChannels.meshSecret, "g::text", 20_000);
  await floodsHeard();
  await a.send("b", "after");
  expect(b.texts).toEqual(["before", "after"]);
  expect(queries.of(secrets).length).toBeGreaterThan(0);
  expect(queries.of(secrets).length).toBeLessThan(2_000);
  expect(queries.most(secrets)).toBeLessThanOrEqual(2);
});

it("notifications of the directory are one query at a time, and of topics that a peer has to do with", async () => {
  const [a, b] = await world.running("a-1", "b-1");
  await a.send("b", "before");
  const directory = "NULL AS sender_key";
  queries = new Queries([directory, announced]);
  const change = (topic: string, operation: string): string =>
    `json_build_object('topic', ${topic}, 'addr', 'x', 'listener_name', 'b-1', 'operation', '${operation}', 'n', g)::text`;
  await flood(notifyChannels.listener, change("'b'", "update"), 10_000);
  await flood(notifyChannels.listener, change("'topic ' || g", "delete"), 10_000);
  await floodsHeard();
  await a.send("b", "after");
  expect(b.texts).toEqual(["before", "after"]);
  const read = queries.of(directory);
  expect(read.length).toBeGreaterThan(0);
  expect(read.length).toBeLessThan(1_000);
  // A new session reads what each peer serves.
  for (const [, topics] of read) expect(["a", "b"]).toEqual(expect.arrayContaining(topics as string[]));
  expect(queries.most(directory)).toBe(1);
});
