import { afterAll, afterEach, beforeAll } from "vitest";
import { restoreTimers } from "../../support/timers.js";
import { PeerWorld } from "./world.js";

/**
 * A world for all tests of a file, each of which begins with an empty directory and no peer.
 *
 * @param options.keepsConnections false where a test counts sessions or expects new ones: otherwise the peers of all tests
 * share connections, which take more of a processor than most tests
 */
export function sharedPeerWorld({ keepsConnections = true } = {}): PeerWorld {
  const world = new PeerWorld();
  const open = () => world.open({ nats: false, keepsConnections });
  beforeAll(open);
  afterEach(async ({ task }) => {
    restoreTimers();
    if (task.result?.state !== "fail") return world.reset();
    // Nobody knows what it has left behind.
    await world[Symbol.asyncDispose]();
    await open();
  });
  afterAll(() => world[Symbol.asyncDispose]());
  return world;
}
