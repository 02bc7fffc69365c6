import { afterAll, afterEach, beforeAll } from "vitest";
import { restoreTimers } from "../../support/timers.js";
import { PeerWorld } from "./world.js";

/** A world for all tests of a file, each of which begins with an empty directory and no peer. */
export function sharedPeerWorld(): PeerWorld {
  const world = new PeerWorld();
  beforeAll(() => world.open({ nats: false }));
  afterEach(async ({ task }) => {
    restoreTimers();
    if (task.result?.state !== "fail") return world.reset();
    // Nobody knows what it has left behind.
    await world[Symbol.asyncDispose]();
    await world.open({ nats: false });
  });
  afterAll(() => world[Symbol.asyncDispose]());
  return world;
}
