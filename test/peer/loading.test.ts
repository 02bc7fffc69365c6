/**
 * First use of a schema of Protobuf in a process, which loads the part of Protobuf: calls that are made meanwhile keep their order.
 */
import type { DescMessage } from "@bufbuild/protobuf";
import pg from "pg";
import { beforeAll, expect, it, onTestFinished, vi } from "vitest";
import { compileSchemas, messageIn } from "../typed/support/compile.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

let placed: DescMessage;

beforeAll(async () => {
  const registry = await compileSchemas({
    "acme/v1/orders.proto": `syntax = "proto3"; package acme.v1; import "hawser/v1/topic.proto";
      message OrderPlaced { option (hawser.v1.topic) = {topic: "b"}; string order_id = 1; }`,
  });
  placed = messageIn(registry, "acme.v1.OrderPlaced");
});

// The first test: nothing has loaded the part yet.
it("sends a message without a schema after one with it that was sent before", async () => {
  const [a, b] = await world.running("a-1", "b-1");
  await Promise.all([a.send(placed, { orderId: "o-1" }), a.send("b", "o-2"), a.sendAll("b", "o-3")]);
  expect(b.texts.map((text) => text.slice(-3))).toEqual(["o-1", "o-2", "o-3"]);
});

it("enqueues a message without a schema after one with it that was enqueued before", async () => {
  vi.resetModules();
  const { enqueue, enqueueBatch } = await import("../../src/jobs-and-peers/queue/enqueue/index.js");
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  const first = enqueue(client, placed, { orderId: "o-1" });
  const then = [enqueue(client, "b", "o-2"), enqueueBatch(client, "b", ["o-3", "o-4"])];
  const ids = [await first, ...(await Promise.all(then)).flat()];
  await client.end();
  expect(ids).toEqual(ids.toSorted((a, b) => Number(a - b)));
});

it("sets handlers in the order of the calls, and those that were given before the start before it", async () => {
  for (const kind of ["peer", "worker"]) {
    vi.resetModules();
    const { Peer, Worker } = await import("../../src/jobs-and-peers/peer/index.js");
    const databaseUrl = world.url;
    const one = kind === "peer" ? new Peer({ name: "g-1", topic: "g", databaseUrl }) : new Worker({ databaseUrl });
    const set = [one.handle(placed, () => undefined), one.handle("b", () => undefined)];
    const started = one.start();
    await Promise.all(set);
    await started;
    await one.stop();
  }
});

it("tells what is wrong with a schema if it cannot be loaded, and does without it otherwise", async () => {
  vi.resetModules();
  vi.doMock("../../src/protobuf/typed/index.js", () => {
    throw new Error("there is no such package");
  });
  onTestFinished(() => {
    vi.doUnmock("../../src/protobuf/typed/index.js");
    vi.resetModules();
  });
  const { enqueue } = await import("../../src/jobs-and-peers/queue/enqueue/index.js");
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  const [typed, plain] = await Promise.allSettled([
    enqueue(client, placed, { orderId: "o-1" }),
    enqueue(client, "b", "o-2"),
  ]);
  await client.end();
  expect(typed).toMatchObject({
    reason: { code: "invalid_argument", message: expect.stringContaining("@bufbuild/protobuf") },
  });
  expect(plain.status).toBe("fulfilled");
});
