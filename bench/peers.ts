/**
 * The peers that are measured, in a worker, and how they send very many messages.
 */
import type { Peer, PeerOptions, Receipt, SendOptions } from "../src/jobs-and-peers/peer/index.js";
import type { Delivery } from "./live/ways.js";
import { BenchFailure } from "./suite.js";
import { measuredModule } from "./worker.js";

const measured = await measuredModule<typeof import("../src/jobs-and-peers/peer/index.js")>(
  "src/jobs-and-peers/peer/index.ts",
);

/** A peer that listens on a free port. */
export function newPeer(
  name: string,
  databaseUrl: string,
  options: Omit<PeerOptions, "name" | "databaseUrl"> = {},
): Peer {
  return new measured.Peer({ ...options, name, databaseUrl });
}

/** Messages by outcome. */
export type Outcomes = Record<Outcome, number>;

type Outcome = "delivered" | "stored" | "sent" | "dropped";

/** Size of the send windows, and the number in flight. */
export interface Windows {
  /** Messages of one window, whose receipts are awaited together. */
  readonly messages: number;
  /** Windows under way at a time. */
  readonly inFlight: number;
}

/**
 * Windows of each delivery. At most once a receipt comes as soon as the connection has taken the message; at least once after
 * a round trip with a commit in it, and meanwhile further windows follow: altogether fewer than the defaults of
 * maxSendQueueMessages and maxSendQueueBytes allow.
 */
export const usualWindows = {
  "at-most-once": { messages: 1024, inFlight: 1 },
  "at-least-once": { messages: 1024, inFlight: 8 },
} as const satisfies Readonly<Record<Delivery, Windows>>;

/** Bytes of one window at most, for long payloads. */
const windowBytes = 4 << 20;

/** Period in which the first messages may be stored rather than delivered, as their channel is not live yet. */
const liveWithinMs = 30_000;

/**
 * Sends a payload `count` times, as a program would that looks at each receipt: some windows of sends are under way, and
 * the oldest is awaited before the next one begins.
 *
 * @throws BenchFailure if a message was dropped
 */
export async function sendInWindows(
  peer: Peer,
  topic: string,
  payload: Uint8Array,
  count: number,
  windows: Windows,
  options?: SendOptions,
): Promise<Outcomes> {
  const window = Math.max(1, Math.min(windows.messages, Math.floor(windowBytes / payload.length)));
  return await settleInWindows(() => peer.send(topic, payload, options), count, { ...windows, messages: window });
}

/**
 * Calls `send` `count` times: windows of sends are under way, and the oldest is awaited before the next one begins.
 *
 * @throws BenchFailure if a message was dropped
 */
export async function settleInWindows(
  send: () => Promise<Receipt<Outcome>>,
  count: number,
  windows: Windows,
): Promise<Outcomes> {
  const inFlight: Promise<Receipt<Outcome>[]>[] = [];
  const outcomes: Outcomes = { delivered: 0, stored: 0, sent: 0, dropped: 0 };
  const settle = async (): Promise<void> => {
    for (const { outcome } of await inFlight.shift()!) outcomes[outcome] += 1;
  };
  for (let left = count; left > 0; ) {
    const sends: Promise<Receipt<Outcome>>[] = new Array(Math.min(left, windows.messages));
    left -= sends.length;
    for (let i = 0; i < sends.length; i++) sends[i] = send();
    const all = Promise.all(sends);
    // Told when its turn comes; until then it must not count as unhandled.
    all.catch(() => undefined);
    inFlight.push(all);
    if (inFlight.length === windows.inFlight) await settle();
  }
  while (inFlight.length > 0) await settle();
  if (outcomes.dropped > 0) throw new BenchFailure(`${outcomes.dropped} of ${count} messages were dropped`);
  return outcomes;
}

/** Sends until a message is delivered: then the channel to the listener is live. */
export async function sendUntilDelivered(
  peer: Peer,
  topic: string,
  payload: Uint8Array | string = "first",
): Promise<void> {
  const giveUpAt = performance.now() + liveWithinMs;
  for (let tries = 1; (await peer.send(topic, payload)).outcome !== "delivered"; tries++) {
    if (performance.now() > giveUpAt) {
      throw new BenchFailure(`the channel is not live: ${tries} messages were only stored`);
    }
  }
}
