/**
 * Our ways: `sendTo` of a Peer to the handler of another, at most once and at least once.
 */
import { Peer } from "../../src/peer/index.js";
import type { BenchServers } from "../bench-servers.js";
import { systemMs } from "../clock.js";
import { sendInWindows, sendUntilDelivered, type Windows } from "../send-in-windows.js";
import type { Tally } from "./tally.js";
import type { ReceivingHalf, SendingHalf } from "./ways.js";

type Delivery = "at-most-once" | "at-least-once";

const topic = "bench-listener";

/**
 * At most once a receipt comes as soon as the connection has taken the message; at least once after a round trip with a
 * commit in it, and meanwhile further windows follow: altogether fewer than the defaults of maxSendQueueMessages and
 * maxSendQueueBytes allow.
 */
const windows: Readonly<Record<Delivery, Windows>> = {
  "at-most-once": { messages: 1024, inFlight: 1 },
  "at-least-once": { messages: 1024, inFlight: 8 },
};

/** Starts the receiving peer. */
export async function receiveByHawser({ databaseUrl }: BenchServers, tally: Tally): Promise<ReceivingHalf> {
  const peer = new Peer({ name: "bench-listener-1", topic, listen: "127.0.0.1:0", databaseUrl });
  await peer.run((message) => tally.count(message.payload.length));
  return { close: () => peer.stop() };
}

/** Starts the sending peer, and sends until a message is delivered. */
export async function sendByHawser({ databaseUrl }: BenchServers): Promise<Record<Delivery, SendingHalf>> {
  const peer = new Peer({ name: "bench-sender-1", topic: "bench-sender", listen: "127.0.0.1:0", databaseUrl });
  await peer.run();
  await sendUntilDelivered(peer, topic);
  const half = (delivery: Delivery): SendingHalf => ({
    // Looks at the receipt of every message.
    send: async (payload, count) => {
      const { stored } = await sendInWindows(peer, topic, payload, count, windows[delivery], { delivery });
      return { doneMs: systemMs(), stored };
    },
    close: () => peer.stop(),
  });
  return { "at-most-once": half("at-most-once"), "at-least-once": half("at-least-once") };
}
