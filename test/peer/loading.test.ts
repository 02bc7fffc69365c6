/**
 * First use of a schema of Protobuf in a process, which loads the part of Protobuf: calls that are made meanwhile keep their order.
 */
import type { DescMessage } from "@bufbuild/protobuf";
import pg from "pg";
import { beforeAll, expect, it, vi } from "vitest";
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
