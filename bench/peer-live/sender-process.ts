/**
 * The program of the sending process.
 */
import { randomFillSync } from "node:crypto";
import { systemMs } from "../clock.js";
import { serveRequests } from "../serve-requests.js";
import { sendByHawser } from "./hawser.js";
import { sendByNats } from "./nats-core.js";
import { sendByTcp } from "./raw-tcp.js";
import type { Opening, SendingHalf, Sent, WayName } from "./ways.js";

/** Where the receiving process is. */
export interface Receiver extends Opening {
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
  async open({ ways, tcpPort, ...servers }: Receiver): Promise<void> {
    if (ways.includes("tcp")) halves.set("tcp", await sendByTcp(tcpPort));
    if (ways.includes("nats-core")) halves.set("nats-core", await sendByNats(servers));
    if (!ways.includes("at-most-once") && !ways.includes("at-least-once")) return;
    for (const [way, half] of Object.entries(await sendByHawser(servers))) halves.set(way as WayName, half);
  },
  /** Sends a load. */
  async send({ way, payloadBytes, messages }: Load): Promise<LoadSent> {
    const payload = randomFillSync(new Uint8Array(payloadBytes));
    const beganMs = systemMs();
    return { beganMs, ...(await halves.get(way)!.send(payload, messages)) };
  },
};

/** What the sending process can be asked. */
export type SenderRequests = typeof requests;

serveRequests(requests, async () => {
  await Promise.all([...halves.values()].map((half) => half.close()));
});
