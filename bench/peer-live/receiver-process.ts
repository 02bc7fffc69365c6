/**
 * The program of the receiving process: all ways arrive in one tally.
 */
import { serveRequests } from "../serve-requests.js";
import { receiveByHawser } from "./hawser.js";
import { receiveByNats } from "./nats-core.js";
import { receiveByTcp } from "./raw-tcp.js";
import { type Arrived, Tally } from "./tally.js";
import type { Opening, ReceivingHalf } from "./ways.js";

const tally = new Tally();
const halves: ReceivingHalf[] = [];

const requests = {
  /** Starts receiving. */
  async open({ ways, ...servers }: Opening): Promise<{ readonly tcpPort: number }> {
    const tcp = await receiveByTcp(tally);
    halves.push(tcp);
    if (ways.includes("nats-core")) halves.push(await receiveByNats(servers, tally));
    if (ways.includes("at-most-once") || ways.includes("at-least-once")) {
      halves.push(await receiveByHawser(servers, tally));
    }
    return { tcpPort: tcp.port };
  },
  /** Begins to count: so many messages will come. */
  expect: (messages: number): void => tally.expect(messages),
  /** Answers when they have come, or when `timeoutMs` are over. */
  arrived: (timeoutMs: number): Promise<Arrived> => tally.arrived(timeoutMs),
};

/** What the receiving process can be asked. */
export type ReceiverRequests = typeof requests;

serveRequests(requests, async () => {
  await Promise.all(halves.map((half) => half.close()));
});
