/**
 * The program of the listening process (one peer that counts what comes, from however many senders) and of the sending
 * processes: some of the senders, each a peer of its own with a name, a socket and a channel to the listener. They share
 * the process's connections to Postgres.
 */
import { createRequire } from "node:module";
import type pg from "pg";
import { type Arrived, Tally } from "../live/ways.js";
import { newPeer, sendInWindows, sendUntilDelivered } from "../peers.js";
import { cpuSecondsSince, measuredCheckout, serveRequests, systemMs } from "../worker.js";

/** Cost of a load for the listener. */
export interface ListeningCost extends Arrived {
  readonly cpuSeconds: number;
  /** Statements sent to Postgres. */
  readonly statements: number;
  /** The most that was seen, in bytes: of the process, and of that what is in use by JavaScript objects. */
  readonly rss: number;
  readonly heap: number;
}

/** Listener and number of a process's senders. */
export interface Senders {
  readonly databaseUrl: string;
  readonly listener: string;
  /** The number of the first one, for its name. */
  readonly first: number;
  readonly count: number;
}

/** Messages that each sender sends. */
export interface ChannelLoad {
  readonly payloadBytes: number;
  readonly messages: number;
  /** Maximum number of unconfirmed messages of a sender. */
  readonly inFlight: number;
}

/** Cost of a load for the senders of one process. */
export interface SendingCost {
  /** On the system's clock: the first send, and the last receipt. */
  readonly beganMs: number;
  readonly doneMs: number;
  readonly statements: number;
  readonly cpuSeconds: number;
  /** Messages that were confirmed because they were stored, not delivered. */
  readonly stored: number;
}

/** Interval between two memory samples. */
const lookEveryMs = 10;

/** Starts under way at a time. */
const startsInFlight = 16;

/** Windows of a channel under way. */
const windows = 8;

type Query = typeof pg.Client.prototype.query;

/** Every call of `query` of every client of node-postgres, as the measured checkout has it, pooled or not. */
let statements = 0;
const { Client } = createRequire(new URL("package.json", measuredCheckout))("pg") as typeof pg;
const { query } = Client.prototype;
Client.prototype.query = function (this: pg.Client, ...args: Parameters<Query>) {
  statements += 1;
  return query.apply(this, args);
} as Query;

const tally = new Tally();
const peers: ReturnType<typeof newPeer>[] = [];
let listenerName = "";
let statementsBefore = 0;
let cpuBefore = process.cpuUsage();
let rss = 0;
let heap = 0;

function look(): void {
  const now = process.memoryUsage();
  rss = Math.max(rss, now.rss);
  heap = Math.max(heap, now.heapUsed);
}

setInterval(look, lookEveryMs).unref();

const requests = {
  /** Starts the listener. */
  async listen({ databaseUrl, listener }: { databaseUrl: string; listener: string }): Promise<void> {
    const peer = newPeer(listener, databaseUrl);
    peers.push(peer);
    await peer.handle(peer.topic, (message) => tally.count(message.payload.length));
    await peer.start();
  },
  /** Begins to count: so many messages will come. */
  expect(messages: number): void {
    tally.expect(messages);
    statementsBefore = statements;
    cpuBefore = process.cpuUsage();
    rss = heap = 0;
  },
  /** Answers when they have come, or when `timeoutMs` are over. */
  async arrived(timeoutMs: number): Promise<ListeningCost> {
    const arrived = await tally.arrived(timeoutMs);
    look();
    return { ...arrived, statements: statements - statementsBefore, cpuSeconds: cpuSecondsSince(cpuBefore), rss, heap };
  },
  /** Starts senders, and makes their channels live. */
  async connect({ databaseUrl, listener, first, count }: Senders): Promise<void> {
    listenerName = listener;
    let next = first;
    await Promise.all(
      Array.from({ length: startsInFlight }, async () => {
        while (next < first + count) {
          const peer = newPeer(`bench-sender-${next++}`, databaseUrl, { topic: "bench-sender" });
          peers.push(peer);
          await peer.start();
          await sendUntilDelivered(peer, listener);
        }
      }),
    );
  },
  /** Sends a load on each channel, until every receipt has come. */
  async send({ payloadBytes, messages, inFlight }: ChannelLoad): Promise<SendingCost> {
    const payload = new Uint8Array(payloadBytes).fill(1);
    const before = statements;
    const cpu = process.cpuUsage();
    const beganMs = systemMs();
    const all = await Promise.all(
      peers.map((peer) =>
        sendInWindows(peer, listenerName, payload, messages, {
          messages: Math.max(1, Math.floor(inFlight / windows)),
          inFlight: windows,
        }),
      ),
    );
    const stored = all.reduce((sum, outcomes) => sum + outcomes.stored, 0);
    return {
      beganMs,
      doneMs: systemMs(),
      statements: statements - before,
      cpuSeconds: cpuSecondsSince(cpu),
      stored,
    };
  },
};

/** Requests that sender and listener processes answer. */
export type ChannelRequests = typeof requests;

serveRequests(requests, async () => {
  await Promise.all(peers.map((peer) => peer.stop()));
});
