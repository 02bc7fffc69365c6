/**
 * By channels: so many senders, each a peer with a connection of its own, send to one listener.
 */
import { BySize } from "../by-size.js";
import { ChannelMesh, channelsOf } from "../channels/channels.js";
import { orderOf } from "../measure.js";
import { type BenchServers, createDatabase } from "../servers.js";
import type { Measured, SuiteContext } from "../suite.js";

const full = { sizes: [1, 100, 1_000, 5_000], rounds: 3, messages: 300_000, warmUp: 300_000 };
const quick = { sizes: [1, 5], rounds: 1, messages: 1_000, warmUp: 100 };

/** Each size has new processes and a database of its own. */
export async function byChannels(
  context: SuiteContext,
  servers: BenchServers,
  payloadBytes: number,
): Promise<Measured[]> {
  const { sizes, rounds, messages, warmUp } = context.quick ? quick : full;
  const found = new BySize(channelsOf);
  for (const size of orderOf(sizes, 1)) {
    context.say(`Measuring ${channelsOf(size)}`);
    const database = await createDatabase(servers, context);
    try {
      const mesh = await ChannelMesh.start(database.url, size, context);
      try {
        await mesh.send(warmUp, payloadBytes);
        for (let round = 0; round < context.rounds(rounds); round++) {
          context.signal.throwIfAborted();
          const cost = await mesh.send(messages, payloadBytes);
          found.add("time by channels", "µs", size, (cost.seconds * 1e6) / cost.messages);
          found.add("listener CPU by channels", "µs", size, (cost.listenerCpuSeconds * 1e6) / cost.messages);
          found.add("sender CPU by channels", "µs", size, (cost.senderCpuSeconds * 1e6) / cost.messages);
        }
      } finally {
        await mesh.stop();
      }
    } finally {
      await database.drop();
    }
  }
  return found.results(payloadBytes);
}
