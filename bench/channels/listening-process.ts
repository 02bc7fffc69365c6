/**
 * The program of the listening process: one peer that counts what comes, from however many senders.
 */
import { Peer } from "../../src/peer/index.js";
import { type Arrived, Tally } from "../peer-live/tally.js";
import { serveRequests } from "../serve-requests.js";
import { statementsSent } from "./statement-counter.js";

/** What a load cost the listener. */
export interface ListeningCost extends Arrived {
  /** Statements sent to Postgres. */
  readonly statements: number;
  /** The most that was seen, in bytes: of the process, and of that what is in use by JavaScript objects. */
  readonly rss: number;
  readonly heap: number;
}

/** How often the memory is looked at. */
const lookEveryMs = 10;

const tally = new Tally();
let peer: Peer | undefined;
let statementsBefore = 0;
let rss = 0;
let heap = 0;

function look(): void {
  const now = process.memoryUsage();
  rss = Math.max(rss, now.rss);
  heap = Math.max(heap, now.heapUsed);
}

setInterval(look, lookEveryMs).unref();

const requests = {
  /** Starts listening. */
  async open({ databaseUrl, topic }: { databaseUrl: string; topic: string }): Promise<void> {
    peer = new Peer({ name: "bench-listener-1", topic, listen: "127.0.0.1:0", databaseUrl });
    await peer.run((message) => tally.count(message.payload.length));
  },
  /** Begins to count: so many messages will come. */
  expect(messages: number): void {
    tally.expect(messages);
    statementsBefore = statementsSent();
    rss = heap = 0;
  },
  /** Answers when they have come, or when `timeoutMs` are over. */
  async arrived(timeoutMs: number): Promise<ListeningCost> {
    const arrived = await tally.arrived(timeoutMs);
    look();
    return { ...arrived, statements: statementsSent() - statementsBefore, rss, heap };
  },
};

/** What the listening process can be asked. */
export type ListeningRequests = typeof requests;

serveRequests(requests, async () => await peer?.stop());
