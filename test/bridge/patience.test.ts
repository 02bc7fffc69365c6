/**
 * Time limits of what Postgres is asked, where the process itself stands still.
 */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, it } from "vitest";
import { Patience } from "../../src/bridge/executor/patience.js";
import { eventually } from "../support/eventually.js";

function patience(limitMs: number) {
  const since = performance.now();
  const over: number[] = [];
  return { patience: new Patience(limitMs, () => over.push(performance.now() - since)), over };
}

/** As a stopped process does. */
function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

it("is over once, not before its limit", async () => {
  const { over } = patience(700);
  await eventually("it is over", () => over.length > 0);
  expect(over[0]).toBeGreaterThanOrEqual(699);
  await nextTurn();
  expect(over).toHaveLength(1);
});

it("does not count the time in which the process stands still", async () => {
  const { over } = patience(1_400);
  standStill(1_800);
  for (let turn = 0; turn < 5; turn++) await nextTurn();
  expect(over).toEqual([]);
  await eventually("it is over", () => over.length > 0);
});

it("is not over where what was there to read ends it", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const far = connect((server.address() as { port: number }).port, "127.0.0.1");
  const [near] = (await once(server, "connection")) as [Socket];
  const { patience: limit, over } = patience(50);
  const { over: later } = patience(1_000);
  far.on("data", () => limit.end());
  near.write("an answer");
  standStill(200);
  await eventually("the other one is over", () => later.length > 0);
  expect(over).toEqual([]);
  near.destroy();
  server.close();
});
