/**
 * The program of the process that is sender and receiver at once.
 */
import { receiveByHawser, sendByHawser } from "../peer-live/hawser.js";
import { Tally } from "../peer-live/tally.js";
import type { SendingHalf } from "../peer-live/ways.js";
import { serveRequests } from "../serve-requests.js";

const tally = new Tally();
const closers: (() => Promise<void>)[] = [];
let sending: SendingHalf | undefined;

/** How long a cycle may take. */
const arrivalTimeoutMs = 10_000;

const requests = {
  /** Starts both peers. */
  async open(servers: { databaseUrl: string; natsUrl: string }): Promise<void> {
    const receiving = await receiveByHawser(servers, tally);
    closers.push(() => receiving.close());
    sending = (await sendByHawser(servers))["at-most-once"];
    closers.unshift(() => sending!.close());
  },
  /** Sends, until the last message has been handled. @returns ms */
  async cycle({ payloadBytes, messages }: { payloadBytes: number; messages: number }): Promise<number> {
    const payload = new Uint8Array(payloadBytes);
    tally.expect(messages);
    const began = performance.now();
    await sending!.send(payload, messages);
    const { completeMs } = await tally.arrived(arrivalTimeoutMs);
    if (completeMs === undefined) throw new Error("not all messages of a cycle have arrived");
    return performance.now() - began;
  },
};

/** What the process can be asked. */
export type BothRequests = typeof requests;

serveRequests(requests, async () => {
  for (const close of closers) await close();
});
