/**
 * Our ways: `sendTo` of a Peer to the handler of another, at most once and at least once.
 */
import { Peer, type Receipt } from "../../src/peer/index.js";
import { BenchFailure } from "../bench-failure.js";
import { systemMs } from "../clock.js";
import type { Tally } from "./tally.js";
import type { ReceivingHalf, SendingHalf, Sent, Servers } from "./ways.js";

type Delivery = "at-most-once" | "at-least-once";

const topic = "bench-listener";

/** Messages whose receipts are awaited together, and the same in bytes, for long payloads. */
const windowMessages = 1024;
const windowBytes = 4 << 20;

/**
 * Windows under way. At most once a receipt comes as soon as the connection has taken the message; at least once after a
 * round trip with a commit in it, and meanwhile further windows follow: altogether fewer than the defaults of
 * maxSendQueueMessages and maxSendQueueBytes allow.
 */
const windowsInFlight: Readonly<Record<Delivery, number>> = { "at-most-once": 1, "at-least-once": 8 };

/** How often the first message is sent until it is delivered rather than stored. */
const maxFirstSends = 50;

/** Starts the receiving peer. */
export async function receiveByHawser({ databaseUrl }: Servers, tally: Tally): Promise<ReceivingHalf> {
  const peer = new Peer({ name: "bench-listener-1", topic, listen: "127.0.0.1:0", databaseUrl });
  await peer.run((message) => tally.count(message.payload.length));
  return { close: () => peer.stop() };
}

/** Starts the sending peer, and sends until a message is delivered: then the channel is live. */
export async function sendByHawser({ databaseUrl }: Servers): Promise<Record<Delivery, SendingHalf>> {
  const peer = new Peer({ name: "bench-sender-1", topic: "bench-sender", listen: "127.0.0.1:0", databaseUrl });
  await peer.run();
  for (let tries = 1; (await peer.sendTo(topic, "first")).outcome !== "delivered"; tries++) {
    if (tries === maxFirstSends) throw new BenchFailure(`the channel is not live: ${tries} messages were only stored`);
  }
  const half = (delivery: Delivery): SendingHalf => ({
    send: (payload, count) => sendInWindows(peer, payload, count, delivery),
    close: () => peer.stop(),
  });
  return { "at-most-once": half("at-most-once"), "at-least-once": half("at-least-once") };
}

/** Sends in windows and looks at the receipt of every message. */
async function sendInWindows(peer: Peer, payload: Uint8Array, count: number, delivery: Delivery): Promise<Sent> {
  const options = { delivery };
  const window = windowFor(payload);
  const inFlight: Promise<Receipt[]>[] = [];
  const outcomes: Record<Receipt["outcome"], number> = { delivered: 0, stored: 0, sent: 0, dropped: 0 };
  const settle = async (): Promise<void> => {
    for (const { outcome } of await inFlight.shift()!) outcomes[outcome] += 1;
  };
  for (let left = count; left > 0; ) {
    const sends: Promise<Receipt>[] = new Array(Math.min(left, window));
    left -= sends.length;
    for (let i = 0; i < sends.length; i++) sends[i] = peer.sendTo(topic, payload, options);
    const all = Promise.all(sends);
    // Heard of when its turn comes; until then it must not count as unheard.
    all.catch(() => undefined);
    inFlight.push(all);
    if (inFlight.length === windowsInFlight[delivery]) await settle();
  }
  while (inFlight.length > 0) await settle();
  if (outcomes.dropped > 0) throw new BenchFailure(`${outcomes.dropped} of ${count} messages were dropped`);
  return { doneMs: systemMs(), stored: outcomes.stored };
}

function windowFor(payload: Uint8Array): number {
  return Math.max(1, Math.min(windowMessages, Math.floor(windowBytes / payload.length)));
}
