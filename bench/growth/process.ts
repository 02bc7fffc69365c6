/**
 * The program of the listening and of the sending process: one peer each, with as many topics as are asked for.
 */
import { setTimeout as delay } from "node:timers/promises";
import { type Arrived, Tally } from "../live/ways.js";
import { newPeer, sendUntilDelivered, settleInWindows, usualWindows } from "../peers.js";
import { cpuSecondsSince, serveRequests, systemMs } from "../worker.js";

/** Name of a peer, and the topics that it serves or sends to. */
export interface Opening {
  readonly databaseUrl: string;
  readonly name: string;
  readonly topics: readonly string[];
}

/** Messages to send, to the topics in turn. */
export interface Load {
  readonly messages: number;
  readonly payloadBytes: number;
}

/** Resource usage of a process during a load. */
export interface Used {
  readonly cpuSeconds: number;
}

/** Topics that are made known at a time. */
const topicsInFlight = 64;

const tally = new Tally();
let peer: ReturnType<typeof newPeer> | undefined;
let topics: readonly string[] = [];
let cpu = process.cpuUsage();

/** Since the last call. */
function used(): Used {
  const cpuSeconds = cpuSecondsSince(cpu);
  cpu = process.cpuUsage();
  return { cpuSeconds };
}

const requests = {
  /** Starts the listener, again or for the first time. @returns how long that took, in ms */
  async listen({ databaseUrl, name, topics }: Opening): Promise<number> {
    peer = newPeer(name, databaseUrl);
    for (const topic of [peer.topic, ...topics]) {
      await peer.handle(topic, (message) => tally.count(message.payload.length));
    }
    const beganMs = systemMs();
    await peer.start();
    return systemMs() - beganMs;
  },
  /** Starts the sender, and sends a message to each topic. */
  async connect({ databaseUrl, name, topics: wanted }: Opening): Promise<void> {
    peer = newPeer(name, databaseUrl);
    await peer.start();
    topics = wanted;
    await sendUntilDelivered(peer, topics[0]!);
    let next = 1;
    await Promise.all(
      Array.from({ length: topicsInFlight }, async () => {
        while (next < topics.length) await peer!.send(topics[next++]!, "first");
      }),
    );
    // Behind all of these, as there is one channel.
    await sendUntilDelivered(peer, topics[0]!);
  },
  /** Resolves when a message is delivered, not stored. */
  async live(): Promise<void> {
    await sendUntilDelivered(peer!, topics[0]!);
  },
  /** Begins to count: so many messages will come. */
  expect(messages: number): void {
    tally.expect(messages);
    used();
  },
  /** Answers when they have come, or when `timeoutMs` are over. */
  async arrived(timeoutMs: number): Promise<Arrived & Used> {
    return { ...(await tally.arrived(timeoutMs)), ...used() };
  },
  /** Sends until every receipt has come. */
  async send({ messages, payloadBytes }: Load): Promise<{ beganMs: number; doneMs: number; stored: number } & Used> {
    const payload = new Uint8Array(payloadBytes).fill(1);
    used();
    const beganMs = systemMs();
    let next = 0;
    const send = () => peer!.send(topics[next++ % topics.length]!, payload);
    const { stored } = await settleInWindows(send, messages, usualWindows["at-least-once"]);
    return { beganMs, doneMs: systemMs(), stored, ...used() };
  },
  /** Does nothing for a while. */
  async rest(ms: number): Promise<Used> {
    used();
    await delay(ms);
    return used();
  },
  /** Stops the peer. What is sent to a listener from then on is stored for it. */
  async pause(): Promise<void> {
    await peer!.stop();
  },
};

/** Requests that sender and listener processes answer. */
export type GrowthRequests = typeof requests;

serveRequests(requests, async () => peer?.stop());
