import { expect, it } from "vitest";
import { type OwnedState, Owner } from "../../src/foundation/postgres/ownership.js";

it("an ownership tells of its end who asks only then, unless that one has stopped asking", async () => {
  const owner = new Owner(1, { now: () => 0, expiryMs: 1_000 });
  const told: OwnedState[] = [];
  owner.onChange((state) => told.push(state));
  owner.enter("suspended");
  owner.onChange((state) => told.push(state));
  await Promise.resolve();
  expect(told).toEqual(["suspended"]);
  owner.enter("lost");
  expect(told).toEqual(["suspended", "lost", "lost"]);
  owner.onChange((state) => told.push(state));
  owner.onChange((state) => told.push(state))();
  expect(told).toHaveLength(3);
  await Promise.resolve();
  expect(told).toEqual(["suspended", "lost", "lost", "lost"]);
});
