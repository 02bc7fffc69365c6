/**
 * What a peer and the package say of themselves.
 */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { version } from "../../src/peer/index.js";
import { peerWorld } from "./support/world.js";

it("a peer gives its name always, its bound address from the first start on, its published one while it runs", async () => {
  await using world = await peerWorld();
  const a = world.peer("a-1", { advertise: "localhost:0" });
  const say = () => [a.name, a.boundListenAddress, a.publishedAddress];
  expect(say()).toEqual(["a-1", "", ""]);
  await a.run();
  const [, bound = "", published] = say();
  expect(bound).toMatch(/^127\.0\.0\.1:\d+$/);
  expect(published).toBe(bound.replace("127.0.0.1", "localhost"));
  expect(await a.listAddresses("a")).toEqual([{ address: published, name: "a-1" }]);
  await a.stop();
  expect(say()).toEqual(["a-1", bound, ""]);
});

it("the exported version is that of package.json", () => {
  const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  expect(version).toBe(manifest.version);
});
