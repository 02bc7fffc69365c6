import { expect, it } from "vitest";
import { RoundRobin, shareOf } from "../../src/foundation/runtime/index.js";

it("asks parties in turn, and moves the one that starts something behind the others", () => {
  const parties = new RoundRobin<string>();
  for (const party of ["a", "b", "c", "a"]) parties.add(party);
  const turns = Array.from({ length: 5 }, () => parties.next((party) => (party === "b" ? undefined : party)));
  expect(turns).toEqual(["a", "c", "a", "c", "a"]);
  // What could start nothing has kept its place.
  expect(parties.next((party) => party)).toBe("b");
});

it("forgets parties that are removed, also while they are asked", () => {
  const parties = new RoundRobin<string>();
  for (const party of ["a", "b", "c"]) parties.add(party);
  expect([parties.delete("b"), parties.delete("b")]).toEqual([true, false]);
  const last = parties.next((party) => {
    parties.delete(party);
    return party === "c" ? party : undefined;
  });
  expect([last, parties.size, parties.next((party) => party)]).toEqual(["c", 0, undefined]);
});

it("gives each of k users a part of k + 1, and never nothing", () => {
  expect([1, 2, 3].map((users) => shareOf(20_000, users))).toEqual([10_000, 6_666, 5_000]);
  expect(shareOf(4, 100)).toBe(1);
});
