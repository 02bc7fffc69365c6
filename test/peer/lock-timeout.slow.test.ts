/**
 * A table that somebody has locked holds nobody up for ever.
 */

import { expect, it } from "vitest";
import { lockTimeoutMs } from "../../src/jobs-and-peers/store/database.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

it("is given up after 5 s with store_failed", async () => {
  expect(lockTimeoutMs).toBe(5_000);
  const a = await world.started("a-1");
  await world.query("BEGIN");
  await world.query("LOCK TABLE hawser_peer_data.listeners IN ACCESS EXCLUSIVE MODE");
  const error = await failure("store_failed", a.listenersOf("b"));
  await world.query("COMMIT");
  expect(error.message).toContain("lock timeout");
  expect(await a.listenersOf("b")).toEqual([]);
});
