/**
 * The program of a process that sends, of one that receives, or of one that does both. All ways arrive in one tally.
 */
import { randomFillSync } from "node:crypto";
import { newPeer, sendInWindows, sendUntilDelivered, usualWindows } from "../peers.js";
import { serveRequests, systemMs } from "../worker.js";
import { receiveByNats, sendByNats, sendToStream } from "./nats.js";
import { receiveByTcp, sendByTcp } from "./tcp.js";
import {
  type Arrived,
  type Opening,
  type ReceivingHalf,
  type SendingHalf,
  type Sent,
  streamWays,
  Tally,
  type WayName,
} from "./ways.js";

/** Messages to send, and the way to send them. */
export interface Load {
  readonly way: WayName;
  readonly payloadBytes: number;
  readonly messages: number;
}

/** Result of a load for the sender. */
export interface LoadSent extends Sent {
  /** Time of the first send, on the system's clock. */
  readonly beganMs: number;
}

const tally = new Tally();
const receiving: ReceivingHalf[] = [];
const sending = new Map<WayName, SendingHalf>();

const listenerOf = ({ pair }: Opening): string => `bench-listener-${pair}`;
const usesPeers = ({ ways }: Opening): boolean => ways.includes("at-most-once") || ways.includes("at-least-once");

const requests = {
  /** Starts receiving. @returns where `tcp` listens */
  async receive(opening: Opening): Promise<number> {
    const tcp = await receiveByTcp(tally);
    receiving.push(tcp);
    if (opening.ways.includes("nats-core")) receiving.push(await receiveByNats(opening, tally));
    if (usesPeers(opening)) {
      const peer = newPeer(listenerOf(opening), opening.databaseUrl);
      await peer.handle(peer.topic, (message) => tally.count(message.payload.length));
      await peer.start();
      receiving.push({ close: () => peer.stop() });
    }
    return tcp.port;
  },
  /** Connects to what receives. */
  async connect({ tcpPort, ...opening }: Opening & { readonly tcpPort: number }): Promise<void> {
    const { ways } = opening;
    if (ways.includes("tcp")) sending.set("tcp", await sendByTcp(tcpPort));
    if (ways.includes("nats-core")) sending.set("nats-core", await sendByNats(opening));
    for (const way of streamWays) if (ways.includes(way)) sending.set(way, await sendToStream(opening, way));
    if (!usesPeers(opening)) return;
    const topic = listenerOf(opening);
    const peer = newPeer(`bench-sender-${opening.pair}`, opening.databaseUrl);
    await peer.start();
    await sendUntilDelivered(peer, topic);
    for (const delivery of ["at-most-once", "at-least-once"] as const) {
      sending.set(delivery, {
        send: async (payload, count) => {
          const { stored } = await sendInWindows(peer, topic, payload, count, usualWindows[delivery], { delivery });
          return { doneMs: systemMs(), stored };
        },
        close: () => peer.stop(),
      });
    }
  },
  /** Begins to count: so many messages will come. */
  expect: (messages: number): void => tally.expect(messages),
  /** Answers when they have come, or when `timeoutMs` are over. */
  arrived: (timeoutMs: number): Promise<Arrived> => tally.arrived(timeoutMs),
  /** Sends a load. */
  async send({ way, payloadBytes, messages }: Load): Promise<LoadSent> {
    const payload = randomFillSync(new Uint8Array(payloadBytes));
    const beganMs = systemMs();
    return { beganMs, ...(await sending.get(way)!.send(payload, messages)) };
  },
};

/** Requests that sender and receiver processes answer. */
export type PairRequests = typeof requests;

serveRequests(requests, async () => {
  // Senders first: they have something to tell their listeners.
  await Promise.all([...sending.values()].map((half) => half.close()));
  await Promise.all(receiving.map((half) => half.close()));
});
