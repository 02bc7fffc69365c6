/**
 * The program of the sending process.
 */
import { randomFillSync } from "node:crypto";
import { systemMs } from "../clock.js";
import { serveRequests } from "../serve-requests.js";
import { hawserWays, sendByHawser } from "./hawser.js";
import { sendByNats } from "./nats-core.js";
import { sendByTcp } from "./raw-tcp.js";
import type { SendingHalf, Sent, Servers, WayName } from "./ways.js";

/** Where the receiving process is. */
export interface Receiver extends Servers {
  readonly tcpPort: number;
}

/** What to send. */
export interface Load {
  readonly way: WayName;
  readonly payloadBytes: number;
  readonly messages: number;
}

/** What became of a load. */
export interface LoadSent extends Sent {
  /** When the first message was sent, on the system's clock. */
  readonly beganMs: number;
}

const halves = new Map<WayName, SendingHalf>();

const requests = {
  /** Connects to the receiving process. */
  async open(receiver: Receiver): Promise<void> {
    const hawser = await sendByHawser(receiver);
    for (const way of hawserWays) halves.set(way, hawser);
    halves.set("tcp", await sendByTcp(receiver.tcpPort));
    halves.set("nats-core", await sendByNats(receiver));
  },
  /** Sends a load. */
  async send({ way, payloadBytes, messages }: Load): Promise<LoadSent> {
    const payload = randomFillSync(new Uint8Array(payloadBytes));
    const beganMs = systemMs();
    return { beganMs, ...(await halves.get(way)!.send(way, payload, messages)) };
  },
};

/** What the sending process can be asked. */
export type SenderRequests = typeof requests;

serveRequests(requests, async () => {
  await Promise.all([...new Set(halves.values())].map((half) => half.close()));
});
