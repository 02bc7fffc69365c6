import { expect, it } from "vitest";
import { RoleGate } from "../../src/bridge/role-gate.js";

/** Work that ends when it is told to. */
function work() {
  const begun: string[] = [];
  const ends: (() => void)[] = [];
  const begin = (name: string) => (): Promise<void> => {
    begun.push(name);
    return new Promise((resolve) => ends.push(resolve));
  };
  return { begun, ends, begin };
}

it("a role has its share at once, and the rest of its work waits in order", async () => {
  const gate = new RoleGate(2);
  const { begun, ends, begin } = work();
  const all = ["a", "b", "c"].map((name) => gate.run("shop", begin(name)));
  expect(begun).toEqual(["a", "b"]);
  ends[0]!();
  await all[0];
  await Promise.resolve();
  expect(begun).toEqual(["a", "b", "c"]);
});

it("another role begins at once, however much of the first waits", () => {
  const gate = new RoleGate(2);
  const { begun, begin } = work();
  for (let nth = 0; nth < 100; nth++) void gate.run("mallory", begin("mallory"));
  void gate.run("shop", begin("shop"));
  expect(begun).toEqual(["mallory", "mallory", "shop"]);
});

it("work that fails leaves its place to others", async () => {
  const gate = new RoleGate(1);
  await expect(gate.run("shop", () => Promise.reject(new Error("no")))).rejects.toThrow("no");
  await expect(gate.run("shop", () => Promise.resolve("yes"))).resolves.toBe("yes");
});
