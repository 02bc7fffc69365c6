/**
 * The program of a sending process: some of the senders, each a peer of its own with a name, a socket and a channel to
 * the listener. They share the process's connections to Postgres.
 */
import { Peer } from "../../src/peer/index.js";
import { systemMs } from "../clock.js";
import { sendInWindows, sendUntilDelivered } from "../send-in-windows.js";
import { serveRequests } from "../serve-requests.js";
import { statementsSent } from "./statement-counter.js";

/** Which senders. */
export interface Senders {
  readonly databaseUrl: string;
  readonly topic: string;
  /** The number of the first one, for its name. */
  readonly first: number;
  readonly count: number;
}

/** What each of them sends. */
export interface ChannelLoad {
  readonly payloadBytes: number;
  readonly messages: number;
  /** At most so many of them unconfirmed. */
  readonly inFlight: number;
}

/** What sending cost. */
export interface SendingCost {
  /** On the system's clock: the first send, and the last receipt. */
  readonly beganMs: number;
  readonly doneMs: number;
  readonly statements: number;
  /** Messages that were confirmed because they were stored, not delivered. */
  readonly stored: number;
}

/** Starts under way at a time. */
const startsInFlight = 16;

/** Windows of a channel under way. */
const windows = 8;

const peers: Peer[] = [];
let topic = "";

const requests = {
  /** Starts the senders, and makes their channels live. */
  async open(senders: Senders): Promise<void> {
    topic = senders.topic;
    let next = senders.first;
    await Promise.all(
      Array.from({ length: startsInFlight }, async () => {
        while (next < senders.first + senders.count) {
          const name = `bench-sender-${next++}`;
          const { databaseUrl } = senders;
          const peer = new Peer({ name, topic: "bench-sender", listen: "127.0.0.1:0", databaseUrl });
          peers.push(peer);
          await peer.run();
          await sendUntilDelivered(peer, topic);
        }
      }),
    );
  },
  /** Sends a load on each channel, until every receipt has come. */
  async send({ payloadBytes, messages, inFlight }: ChannelLoad): Promise<SendingCost> {
    const payload = new Uint8Array(payloadBytes).fill(1);
    const before = statementsSent();
    const beganMs = systemMs();
    const all = await Promise.all(
      peers.map((peer) =>
        sendInWindows(peer, topic, payload, messages, {
          messages: Math.max(1, Math.floor(inFlight / windows)),
          inFlight: windows,
        }),
      ),
    );
    const stored = all.reduce((sum, outcomes) => sum + outcomes.stored, 0);
    return { beganMs, doneMs: systemMs(), statements: statementsSent() - before, stored };
  },
};

/** What a sending process can be asked. */
export type SendingRequests = typeof requests;

serveRequests(requests, async () => {
  await Promise.all(peers.map((peer) => peer.stop()));
});
