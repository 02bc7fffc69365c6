/**
 * Cost of a message on its way from a stream into rows, as payload length, keys, stream length and the number of
 * subscriptions of the stream grow.
 */
import { BySize, counted } from "../by-size.js";
import { formatBytes, formatValue } from "../report.js";
import type { Measured, SuiteContext } from "../suite.js";
import type { Worker } from "../worker.js";
import type { Filling, StreamRequests, Taking } from "./process.js";

const full = {
  rounds: 3,
  messages: 50_000,
  payloads: [100, 1_024, 10_240],
  bytes: 100_000_000,
  keys: [1, 100, 10_000],
  lengths: [10_000, 100_000, 1_000_000],
  subscriptions: [1, 4, 16],
};
const quick = {
  rounds: 1,
  messages: 200,
  payloads: [100, 1_024],
  bytes: 200_000,
  keys: [1, 10],
  lengths: [100, 1_000],
  subscriptions: [1, 2],
};

const keysOf = counted("key");
const subscriptionsOf = counted("subscription");
const lengthOf = (messages: number): string => `${formatValue(messages)} in the stream`;

/** Every result is µs a row, from the call of `nats_subscribe_stream` until all are committed. */
export async function takingByWork(
  context: SuiteContext,
  taking: Worker<StreamRequests>,
  payloadBytes: number,
): Promise<Measured[]> {
  const sizes = context.quick ? quick : full;
  const { messages } = sizes;
  const byPayload = new BySize(formatBytes);
  const byKeys = new BySize(keysOf);
  const byLength = new BySize(lengthOf);
  const bySubscriptions = new BySize(subscriptionsOf);
  const rounds = Array.from({ length: context.rounds(sizes.rounds) }, (_, round) => round);
  const filled = async (filling: Filling): Promise<void> => {
    context.signal.throwIfAborted();
    await taking.request("fill", filling);
  };

  for (const bytes of sizes.payloads) {
    context.say(`Measuring ${formatBytes(bytes)} a message`);
    const load = { messages: Math.min(messages, Math.round(sizes.bytes / bytes)) };
    await filled({ ...load, payloadBytes: bytes });
    for (const _ of rounds) byPayload.add("time by payload", "µs", bytes, await microseconds(taking, load));
  }
  for (const ofKeys of sizes.keys) {
    context.say(`Measuring ${keysOf(ofKeys)}`);
    await filled({ messages, payloadBytes, ofKeys });
    const load = { messages, hasKeys: true };
    for (const _ of rounds) byKeys.add("time by keys", "µs", ofKeys, await microseconds(taking, load));
  }
  for (const length of sizes.lengths) {
    context.say(`Measuring ${lengthOf(length)}`);
    await filled({ messages: length, payloadBytes });
    const load = { messages: length };
    for (const _ of rounds) byLength.add("time by length", "µs", length, await microseconds(taking, load));
  }
  await filled({ messages, payloadBytes });
  for (const subscriptions of sizes.subscriptions) {
    context.say(`Measuring ${subscriptionsOf(subscriptions)}`);
    const load = { messages, subscriptions };
    for (const _ of rounds) {
      bySubscriptions.add("time by subscriptions", "µs", subscriptions, await microseconds(taking, load));
    }
  }
  return [
    ...byPayload.results((bytes) => bytes),
    ...byKeys.results(payloadBytes),
    ...byLength.results(payloadBytes),
    ...bySubscriptions.results(payloadBytes),
  ];
}

/** Time for one row, in µs. */
async function microseconds(taking: Worker<StreamRequests>, load: Taking): Promise<number> {
  return ((await taking.request("subscribe", load)) * 1e6) / (load.messages * (load.subscriptions ?? 1));
}
