/**
 * The program of the writing process: sessions that commit messages, and what is seen of them in NATS.
 */
import { setTimeout as delay } from "node:timers/promises";
import { type JetStreamManager, jetstreamManager } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import type pg from "pg";
import { type Latencies, latenciesOf, paced, type Pace as SteadyPace } from "../paced.js";
import { connected } from "../postgres.js";
import type { BenchServers } from "../servers.js";
import { BenchFailure } from "../suite.js";
import { measuredModule, serveRequests } from "../worker.js";
import { subject, type Way, type WayName, ways } from "./ways.js";

const measured = await measuredModule<typeof import("../../src/jobs-and-peers/peer/index.js")>(
  "src/jobs-and-peers/peer/index.ts",
);

/** Sessions, at most; and of those that are not told how many. */
export const maxSessions = 32;
export const usualSessions = 8;

/** Messages to write, and the way to write them. */
export interface Load {
  readonly way: WayName;
  readonly payloadBytes: number;
  readonly messages: number;
}

/** Messages to write for the relay. */
export interface Relayed extends Load {
  /** Rows of one statement. */
  readonly rows: number;
}

/** Messages to write at a steady pace. */
export type Pace = SteadyPace & Pick<Load, "payloadBytes">;

const stream = "bench-outbox";
const topic = "bench-outbox";

/** Messages that are committed and not in the stream, at most: those who write wait then. */
const maxWaiting = 20_000;

/** Poll interval of the stream. */
const lookEveryMs = 5;

/** Time limit until all messages are in the stream. */
const arrivalTimeoutMs = 120_000;

/** Keys that messages have at random. */
const keys = 100_000;

const clients: pg.Client[] = [];
const opened = new Map<WayName, Way>();
let nats: NatsConnection | undefined;
let manager: JetStreamManager | undefined;
let pinning: pg.Client | undefined;
let databaseUrl: string | undefined;

const requests = {
  async open({ natsUrl, names, ...servers }: BenchServers & { readonly names: readonly WayName[] }): Promise<void> {
    databaseUrl = servers.databaseUrl;
    for (let number = 0; number < maxSessions; number++) clients.push(await connected(databaseUrl));
    for (const name of names) opened.set(name, await ways[name](databaseUrl));
    pinning = await connected(databaseUrl);
    await pinning.query("CREATE TABLE IF NOT EXISTS bench_pins (id integer)");
    nats = await connect({ servers: natsUrl });
    manager = await jetstreamManager(nats);
    await manager.streams.add({ name: stream, subjects: [subject], storage: "file" });
  },

  /** Writes messages, each in a transaction of its own. @returns seconds */
  async writeEach({
    way,
    payloadBytes,
    messages,
    sessions,
    hasKeys,
  }: Load & { readonly sessions: number; readonly hasKeys: boolean }): Promise<number> {
    const { one } = opened.get(way)!;
    const text = "x".repeat(payloadBytes);
    const began = performance.now();
    let left = messages;
    await Promise.all(
      clients.slice(0, sessions).map(async (client) => {
        while (left-- > 0) await one(client, text, hasKeys ? `key ${Math.floor(Math.random() * keys)}` : undefined);
      }),
    );
    return (performance.now() - began) / 1000;
  },

  /** Writes them by one session, so many with each statement, and of so many keys if any. @returns seconds */
  async writeMany({
    way,
    payloadBytes,
    messages,
    rows,
    ofKeys = 0,
  }: Relayed & { readonly ofKeys?: number }): Promise<number> {
    const { many } = opened.get(way)!;
    const texts = Array.from({ length: rows }, () => "x".repeat(payloadBytes));
    const began = performance.now();
    for (let left = messages; left > 0; left -= rows) {
      const written = texts.slice(0, Math.min(left, rows));
      if (ofKeys === 0) await many(clients[0]!, written);
      else await writeWithKeys(clients[0]!, written, ofKeys, messages - left);
    }
    return (performance.now() - began) / 1000;
  },

  /** Keeps a transaction open that has written and read, or ends it: meanwhile nothing that dies can be removed. */
  async pin(isPinned: boolean): Promise<void> {
    if (!isPinned) {
      await pinning!.query("ROLLBACK");
      return;
    }
    await pinning!.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    await pinning!.query("INSERT INTO bench_pins VALUES (1)");
  },

  /** All sessions commit, and a relay publishes. @returns seconds, from the first to the last one that the stream has */
  async commitAll({
    way,
    payloadBytes,
    messages,
    rows,
    sessions = usualSessions,
  }: Relayed & { readonly sessions?: number }): Promise<number> {
    await manager!.streams.purge(stream);
    const { many } = opened.get(way)!;
    const texts = Array.from({ length: rows }, () => "x".repeat(payloadBytes));
    let left = messages;
    let committed = 0;
    let stored = 0;
    const began = performance.now();
    const arrival = arrived(messages, (count) => {
      stored = count;
    });
    const commits = clients.slice(0, sessions).map(async (client) => {
      while (left > 0) {
        const count = Math.min(left, rows);
        left -= count;
        while (committed - stored > maxWaiting) await delay(1);
        await many(client, count === rows ? texts : texts.slice(0, count));
        committed += count;
      }
    });
    await Promise.all([...commits, arrival]);
    return ((await arrival) - began) / 1000;
  },

  /** A transaction with all of them commits. @returns seconds, from then to the last one that the stream has */
  async commitBacklog(load: Relayed & { readonly ofKeys?: number }): Promise<number> {
    await manager!.streams.purge(stream);
    await clients[0]!.query("BEGIN");
    await requests.writeMany(load);
    await clients[0]!.query("COMMIT");
    const began = performance.now();
    return ((await arrived(load.messages)) - began) / 1000;
  },

  /** Commits at a steady pace, and measures each from its commit to the answer of the stream. */
  async measureLatency({
    way,
    payloadBytes,
    messages,
    perSecond,
  }: Load & { readonly perSecond: number }): Promise<Latencies> {
    await manager!.streams.purge(stream);
    const { one } = opened.get(way)!;
    const acknowledgements = new Acknowledgements(nats!, messages);
    await nats!.flush();
    const committedAt = await pacedOverSessions({ messages, perSecond, payloadBytes }, one);
    return latenciesOf(committedAt, await acknowledgements.all());
  },

  /** The same until a handler of a peer, in this process, is called. */
  async measureHandling(pace: Pace): Promise<Latencies> {
    const { messages } = pace;
    const handledAt = new Float64Array(messages);
    let left = messages;
    await using peer = new measured.Peer({ databaseUrl: databaseUrl!, name: topic, topic, listen: "127.0.0.1:0" });
    let done: () => void = () => undefined;
    const all = new Promise<void>((resolve) => {
      done = resolve;
    });
    await peer.handle(peer.topic, ({ payload }) => {
      handledAt[Number(payload.toString().slice(0, numberDigits))] = performance.now();
      left -= 1;
      if (left === 0) done();
    });
    await peer.start();
    const committedAt = await pacedOverSessions(pace, (client, payload) => measured.enqueue(client, topic, payload));
    await Promise.race([all, delay(arrivalTimeoutMs, undefined, { ref: false })]);
    if (left > 0) throw new BenchFailure(`${left} of ${messages} messages were not handled`);
    return latenciesOf(committedAt, handledAt);
  },
};

/** Requests that the writing process answers. */
export type WritingRequests = typeof requests;

const numberDigits = 10;

/** Enqueues messages with one statement, of so many keys in turn. */
async function writeWithKeys(
  client: pg.Client,
  texts: readonly string[],
  ofKeys: number,
  first: number,
): Promise<void> {
  await client.query({
    name: "bench.enqueue_keys",
    text: `SELECT hawser.enqueue($1, t.one, stream => true, key => 'key ' || (t.nth + $4) % $3)
           FROM unnest($2::text[]) WITH ORDINALITY AS t (one, nth)`,
    values: [subject, texts, ofKeys, first],
  });
}

/** Commits payloads that begin with their number. @returns of each when it was committed, in ms of `performance.now` */
function pacedOverSessions(
  pace: Pace,
  write: (client: pg.Client, payload: string) => Promise<unknown>,
): Promise<Float64Array> {
  const padding = "x".repeat(Math.max(0, pace.payloadBytes - numberDigits));
  return paced(pace, usualSessions, (number, session) =>
    write(clients[session]!, String(number).padStart(numberDigits, "0") + padding),
  );
}

/** Resolves when the stream has so many, and not one more. @returns when, in ms of `performance.now` */
async function arrived(messages: number, tell: (count: number) => void = () => undefined): Promise<number> {
  const giveUpAt = performance.now() + arrivalTimeoutMs;
  for (;;) {
    const count = (await manager!.streams.info(stream)).state.messages;
    tell(count);
    const now = performance.now();
    if (count > messages) throw new BenchFailure(`the stream has ${count} messages, and ${messages} were enqueued`);
    if (count === messages) return now;
    if (now > giveUpAt) throw new BenchFailure(`${count} of ${messages} messages were in the stream`);
    await delay(lookEveryMs);
  }
}

/**
 * Acknowledgements of a stream to its publishers, which every client in the account can receive: each published message has
 * its own reply subject.
 */
class Acknowledgements {
  readonly #at: Float64Array;
  readonly #numbers = new Map<string, number>();
  #left: number;
  readonly #all: Promise<void>;

  constructor(connection: NatsConnection, messages: number) {
    this.#at = new Float64Array(messages);
    this.#left = messages;
    this.#all = new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new BenchFailure(`${this.#left} of ${messages} messages were not acknowledged`));
      }, arrivalTimeoutMs);
      const subscription = connection.subscribe(">", {
        callback: (error, message) => {
          if (error !== null) return;
          if (message.subject === subject) {
            this.#numbers.set(message.reply!, Number(message.string().slice(0, numberDigits)));
            return;
          }
          const number = this.#numbers.get(message.subject);
          if (number === undefined) return;
          this.#numbers.delete(message.subject);
          this.#at[number] = performance.now();
          this.#left -= 1;
          if (this.#left > 0) return;
          clearTimeout(timer);
          subscription.unsubscribe();
          resolve();
        },
      });
    });
    // An early rejection must not count as unhandled: `all()` awaits the promise later.
    this.#all.catch(() => undefined);
  }

  /** @returns of each message when it was, in ms of `performance.now` */
  async all(): Promise<Float64Array> {
    await this.#all;
    return this.#at;
  }
}

serveRequests(requests, async () => {
  await manager?.streams.delete(stream).catch(() => undefined);
  await nats?.close();
  for (const way of opened.values()) await way.close();
  await Promise.all([...clients, pinning].map((client) => client?.end()));
});
