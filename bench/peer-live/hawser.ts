/**
 * Our ways: `sendTo` of a Peer to the handler of another, at most once and at least once.
 */
import { Peer, type Receipt } from "../../src/peer/index.js";
import { systemMs } from "../clock.js";
import type { Tally } from "./tally.js";
import type { ReceivingHalf, SendingHalf, Sent, Servers, WayName } from "./ways.js";

const topic = "bench-listener";

/** Messages sent in a row before the sender waits. */
const windowMessages = 1024;

/** The same in bytes, for long payloads. */
const windowBytes = 4 << 20;

/** Windows of at-least-once messages under way: with {@link windowMessages} below the default of maxSendQueueMessages. */
const windowsInFlight = 8;

/** How often the first message is sent until it is delivered rather than stored. */
const maxFirstSends = 50;

const atMostOnce = { delivery: "at-most-once" } as const;
const atLeastOnce = { delivery: "at-least-once" } as const;

/** Starts the receiving peer. */
export async function receiveByHawser({ databaseUrl }: Servers, tally: Tally): Promise<ReceivingHalf> {
  const peer = new Peer({ name: "bench-listener-1", topic, listen: "127.0.0.1:0", databaseUrl });
  await peer.run((message) => tally.count(message.payload.length));
  return { close: () => peer.stop() };
}

/** Starts the sending peer, and sends until a message is delivered: then the channel is live. */
export async function sendByHawser({ databaseUrl }: Servers): Promise<SendingHalf> {
  const peer = new Peer({ name: "bench-sender-1", topic: "bench-sender", listen: "127.0.0.1:0", databaseUrl });
  await peer.run();
  for (let tries = 1; (await peer.sendTo(topic, "first", atLeastOnce)).outcome !== "delivered"; tries++) {
    if (tries === maxFirstSends) throw new Error(`the channel is not live: ${tries} messages were only stored`);
  }
  return {
    send: (way, payload, count) =>
      way === "at-most-once" ? transient(peer, payload, count) : durable(peer, payload, count),
    close: () => peer.stop(),
  };
}

/** The outcome of the last of a window is awaited; one that was dropped is missed by the receiver's count. */
async function transient(peer: Peer, payload: Uint8Array, count: number): Promise<Sent> {
  const window = windowFor(payload);
  for (let left = count; left > 0; ) {
    const now = Math.min(left, window);
    left -= now;
    for (let i = 1; i < now; i++) void peer.sendTo(topic, payload, atMostOnce);
    await peer.sendTo(topic, payload, atMostOnce);
  }
  return {};
}

/** The outcome of every message is awaited, window by window, with several windows under way. */
async function durable(peer: Peer, payload: Uint8Array, count: number): Promise<Sent> {
  const window = windowFor(payload);
  const inFlight: Promise<Receipt[]>[] = [];
  let stored = 0;
  const settle = async (): Promise<void> => {
    for (const { outcome } of await inFlight.shift()!) if (outcome === "stored") stored += 1;
  };
  for (let left = count; left > 0; ) {
    const sends: Promise<Receipt>[] = new Array(Math.min(left, window));
    left -= sends.length;
    for (let i = 0; i < sends.length; i++) sends[i] = peer.sendTo(topic, payload, atLeastOnce);
    const all = Promise.all(sends);
    // Heard of when its turn comes; until then it must not count as unheard.
    all.catch(() => undefined);
    inFlight.push(all);
    if (inFlight.length === windowsInFlight) await settle();
  }
  while (inFlight.length > 0) await settle();
  return { confirmedMs: systemMs(), stored };
}

function windowFor(payload: Uint8Array): number {
  return Math.max(1, Math.min(windowMessages, Math.floor(windowBytes / payload.length)));
}

/** The names of our ways. */
export const hawserWays = ["at-most-once", "at-least-once"] as const satisfies readonly WayName[];
