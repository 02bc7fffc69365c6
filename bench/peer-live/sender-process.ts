/**
 * The program of the sending process.
 */
import { randomFillSync } from "node:crypto";
import { systemMs } from "../clock.js";
import { serveRequests } from "../serve-requests.js";
import { sendByHawser } from "./hawser.js";
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

let halves: Readonly<Record<WayName, SendingHalf>> | undefined;

const requests = {
  /** Connects to the receiving process. */
  async open(receiver: Receiver): Promise<void> {
    halves = {
      ...(await sendByHawser(receiver)),
      tcp: await sendByTcp(receiver.tcpPort),
      "nats-core": await sendByNats(receiver),
    };
  },
  /** Sends a load. */
  async send({ way, payloadBytes, messages }: Load): Promise<LoadSent> {
    const payload = randomFillSync(new Uint8Array(payloadBytes));
    const beganMs = systemMs();
    return { beganMs, ...(await halves![way].send(payload, messages)) };
  },
};

/** What the sending process can be asked. */
export type SenderRequests = typeof requests;

serveRequests(requests, async () => {
  await Promise.all(Object.values(halves ?? {}).map((half) => half.close()));
});
