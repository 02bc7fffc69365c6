/**
 * Topics that begin with "__#" are for Hawser itself.
 */
import { expect, it } from "vitest";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

it("are refused where one would serve them; to send to one is to send to a topic that nobody serves", async () => {
  const topic = "__#internal_channel";
  await failure("internal_topic", () => world.peer("b-1", { topic }));
  for (const a of [world.peer("a-1"), await world.started("c-1")]) {
    await failure("internal_topic", a.subscribe(topic));
    await failure("internal_topic", a.unsubscribe(topic));
    expect(await a.refreshAddressTopic(topic)).toBe(false);
    expect(await a.listAddresses(topic)).toEqual([]);
  }
  const d = await world.started("d-1");
  await failure("no_address", d.sendTo(topic, "x"));
  await failure("no_address", d.sendAll(topic, "x"));
});
