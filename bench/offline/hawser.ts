/**
 * Hawser: `sendTo` while the listener is away, and a peer that starts and finds what was stored.
 */
import pg from "pg";
import { Peer } from "../../src/peer/index.js";
import { BenchFailure } from "../bench-failure.js";
import { cursorReaches } from "../committed-cursor.js";
import { sendInWindows } from "../send-in-windows.js";
import type { Draining, Storing } from "./queue-user.js";

const topic = "bench-listener";

/** Less than maxSendQueueMessages allows. */
const windows = { messages: 1024, inFlight: 8 };

const listenerOf = (databaseUrl: string): Peer =>
  new Peer({ name: "bench-listener-1", topic, listen: "127.0.0.1:0", databaseUrl, durable: true });

/** A running peer. */
export async function storeByHawser(databaseUrl: string): Promise<Storing> {
  const peer = new Peer({ name: "bench-sender-1", topic: "bench-sender", listen: "127.0.0.1:0", databaseUrl });
  await peer.run();
  return {
    async store(text, count) {
      const { stored } = await sendInWindows(peer, topic, Buffer.from(text), count, windows);
      if (stored !== count) throw new BenchFailure(`hawser: ${stored} of ${count} messages were stored`);
    },
    close: () => peer.stop(),
  };
}

/** A durable listener that has run once, so that its messages are stored while it is away. */
export async function drainByHawser(databaseUrl: string): Promise<Draining> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  let handled = 0;
  let complete = (): void => undefined;
  let expected = 0;
  const run = async (): Promise<Peer> => {
    const peer = listenerOf(databaseUrl);
    await peer.run(() => {
      handled += 1;
      if (handled === expected) complete();
    });
    return peer;
  };
  let peer = await run();
  await peer.stop();
  return {
    async drain(count) {
      // The sender is the same one each time, so that its numbers go on.
      expected = handled + count;
      const all = new Promise<void>((resolve) => {
        complete = resolve;
      });
      peer = await run();
      await all;
      await cursorReaches(client, expected);
    },
    rest: () => peer.stop(),
    async close() {
      await peer.stop();
      await client.end();
    },
  };
}
