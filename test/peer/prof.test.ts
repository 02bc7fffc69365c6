import { it } from "vitest";
import { peerWorld } from "./support/world.js";
it("profile", async () => {
  for (let i = 0; i < 3; i++) {
  let t = performance.now();
  const lap = (what: string) => { console.log(what, (performance.now() - t).toFixed(0)); t = performance.now(); };
  const world = await peerWorld(); lap("world");
  const a = await world.started("a-1"); lap("a");
  const b = await world.started("b-1"); lap("b");
  await a.sendTo("b", "x"); lap("send");
  await a.stop(); lap("a stop"); await b.stop(); lap("b stop");
  await world[Symbol.asyncDispose](); lap("dispose");
  }
});
