/**
 * Hawser: `sendTo` while the listener is away, and a peer that starts and finds what was stored.
 */
import { newPeer, sendInWindows, usualWindows } from "../peers.js";
import { connected, cursorReaches } from "../postgres.js";
import { BenchFailure } from "../suite.js";
import type { Draining, Storing } from "./system.js";

const listener = "bench-listener";

/** A running peer. The listener has been there once, so that its messages are stored while it is away. */
export async function openStoring(databaseUrl: string): Promise<Storing> {
  const away = newPeer(listener, databaseUrl, { defaults: { durable: true } });
  await away.start();
  await away.stop();
  const peer = newPeer("bench-sender", databaseUrl);
  await peer.start();
  return {
    async store(text, count) {
      const { stored } = await sendInWindows(peer, listener, Buffer.from(text), count, usualWindows["at-least-once"]);
      if (stored !== count) throw new BenchFailure(`Hawser: ${stored} of ${count} messages were stored`);
    },
    close: () => peer.stop(),
  };
}

/** A peer that is started for each drain. The sender is the same one each time, so that its numbers go on. */
export async function openDraining(databaseUrl: string): Promise<Draining> {
  const client = await connected(databaseUrl);
  let handled = 0;
  let expected = 0;
  let complete = (): void => undefined;
  let peer: ReturnType<typeof newPeer> | undefined;
  return {
    async drain(count) {
      expected = handled + count;
      const all = new Promise<void>((resolve) => {
        complete = resolve;
      });
      peer = newPeer(listener, databaseUrl, { defaults: { durable: true } });
      await peer.handle(peer.topic, () => {
        handled += 1;
        if (handled === expected) complete();
      });
      await peer.start();
      await all;
      await cursorReaches(client, expected);
    },
    async rest() {
      await peer!.stop();
      if (handled !== expected) throw new BenchFailure(`Hawser: ${handled} messages were handled, not ${expected}`);
    },
    async close() {
      await peer?.stop();
      await client.end();
    },
  };
}
