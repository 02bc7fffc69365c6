/**
 * Types of topics: what the compiler accepts, and what it says about the rest.
 */
import type { PoolClient } from "pg";
import { expect, it } from "vitest";
import * as z from "zod";
import type { TestStack } from "../../src/development/testing/index.js";
import { enqueue, enqueueBatch, monitor, type Payload, Peer, schedule } from "../../src/jobs-and-peers/peer/index.js";
import { instrument } from "../../src/operating/otel/index.js";
import { createPeerTransport, servePeer } from "../../src/protobuf/connect/index.js";

interface Order {
  readonly id: number;
  readonly note?: string | undefined;
  readonly lines: readonly { readonly sku: string }[];
}

interface Tree {
  readonly children: readonly Tree[];
}

class Invoice {
  readonly cents = 7;
  total(): number {
    return this.cents;
  }
}

const placed = { topic: "order-placed", schema: z.object({ id: z.int(), note: z.string().default("") }) };
const order: Order = { id: 17, lines: [{ sku: "RO-180" }] };

it("a map of topics types what is sent and handled", () => {
  const peer = new Peer<{ "order-placed": Order; tree: Tree; text: string }>({ name: "shop-1", databaseUrl });
  const compiled = (client: PoolClient, stack: TestStack): unknown[] => [
    stack.peer<{ "order-placed": Order }>({ name: "shop-2" }).send("order-placed", order),
    peer.send("order-placed", order, { key: "17" }).then(({ outcome }) => outcome satisfies "delivered" | "stored"),
    peer.sendAll("order-placed", { id: 17, lines: [] }),
    peer.enqueue(client, "order-placed", order),
    peer.enqueue(client, { subject: "orders.placed" }, order),
    peer.request("order-placed", order),
    peer.send("tree", { children: [{ children: [] }] }),
    peer.send("text", "a text"),
    peer.send(placed, { id: 17 }),
    peer.handle("order-placed", (message) => message.json().lines[0]!.sku),
    peer.handle("order-placed", { transactional: true }, (message) => message.client.query("", [message.json().id])),
    peer.handleBatch("order-placed", {}, ([message]) => message!.json().id),
    peer.respond("order-placed", (request) => ({ id: request.json().id })),
    peer
      .messages("order-placed")
      .next()
      .then(({ value }) => value.json().id),
    monitor(peer),
    () => instrument({ peers: [peer] }),
    createPeerTransport(peer),
    servePeer(peer, () => undefined),
    // @ts-expect-error no topic of the map
    peer.send("oder-placed", order),
    // @ts-expect-error no topic of the map
    peer.handle("oder-placed", () => undefined),
    // @ts-expect-error no topic of the map
    peer.messages("oder-placed"),
    // @ts-expect-error no topic of the map
    peer.respond("oder-placed", () => undefined),
    // @ts-expect-error lines are missing
    peer.send("order-placed", { id: 17 }),
    // @ts-expect-error the id is a number
    peer.enqueue(client, "order-placed", { id: "17", lines: [] }),
    // @ts-expect-error lines are missing
    peer.request("order-placed", { id: 17 }),
    // @ts-expect-error a text
    peer.send("text", order),
    // @ts-expect-error no field of an order
    peer.handle("order-placed", (message) => message.json().sku),
    // @ts-expect-error no field of an order
    peer.handleBatch("order-placed", {}, ([message]) => message!.json().sku),
    // @ts-expect-error a text has no JSON
    peer.handle("text", (message) => message.json().length),
    // @ts-expect-error JSON makes a string of a date
    () => new Peer<{ dated: { at: Date } }>({ name: "a-1" }),
    // @ts-expect-error JSON has no bigint
    () => new Peer<{ big: { id: bigint } }>({ name: "a-1" }),
    // @ts-expect-error a payload is an object, a text or bytes
    () => new Peer<{ count: number }>({ name: "a-1" }),
  ];
  expect(compiled).toBeTypeOf("function");
});

it("a topic with its schema types what goes in and what comes out", () => {
  const peer = new Peer({ name: "shop-1", databaseUrl });
  const coerced = { topic: "dated", schema: z.object({ at: z.coerce.date() }) };
  const compiled = (client: PoolClient): unknown[] => [
    peer.send(placed, { id: 17 }),
    enqueue(client, placed, { id: 17, note: "x" }, { priority: 1 }),
    enqueueBatch(client, placed, [{ id: 17 }]),
    schedule(client, "nightly", { cron: "0 3 * * *", to: placed, payload: { id: 17 } }),
    peer.handle(placed, ({ note }, { sender }) => [note.length, sender]),
    peer.handle(placed, { transactional: true }, ({ id }, { client }) => client.query("", [id])),
    peer.handleBatch(placed, { transactional: true }, (values, { client }) => client.query("", [values[0]!.note])),
    peer.send(coerced, { at: "2026-01-01" }),
    peer.handle(coerced, ({ at }) => at.getTime()),
    // @ts-expect-error the id is a number
    peer.send(placed, { id: "17" }),
    // @ts-expect-error the id is missing
    enqueue(client, placed, {}),
    // @ts-expect-error the id is a number
    enqueueBatch(client, placed, [{ id: "17" }]),
    // @ts-expect-error the id is a number
    schedule(client, "nightly", { cron: "0 3 * * *", to: placed, payload: { id: "17" } }),
    // @ts-expect-error no field of the schema
    peer.handle(placed, ({ sku }) => sku),
    // @ts-expect-error JSON makes a string of a date
    peer.send({ topic: "dated", schema: z.object({ at: z.date() }) }, { at: new Date() }),
    // @ts-expect-error no schema
    peer.send({ topic: "none", schema: {} }, {}),
  ];
  expect(compiled).toBeTypeOf("function");
});

it("payloads that JSON cannot carry do not compile", () => {
  const peer = new Peer({ name: "shop-1", databaseUrl });
  const anything: unknown = order;
  const row = JSON.parse("{}");
  const compiled = (client: PoolClient, payload: Payload, given: object): unknown[] => [
    peer.send("a", order),
    peer.send("a", [1, "two", null, { three: [3] }]),
    peer.send("a", { at: new Date(), left: undefined, deep: { anything } }),
    peer.send("a", { tree: { children: [] } satisfies Tree }),
    peer.send("a", { ...new Invoice() }),
    peer.send("a", row),
    peer.send("a", payload),
    peer.send("a", given),
    peer.handle("a", (message) => message.reply({ id: 1 })),
    // @ts-expect-error JSON has no bigint
    peer.send("a", { id: 17n }),
    // @ts-expect-error JSON has no bigint
    peer.sendAll("a", { deep: [{ id: 17n }] }),
    // @ts-expect-error JSON leaves out functions
    peer.enqueue(client, "a", { run: () => undefined }),
    // @ts-expect-error JSON leaves out functions
    peer.send("a", new Invoice()),
    // @ts-expect-error JSON leaves out symbols
    peer.request("a", { id: Symbol("a") }),
    // @ts-expect-error a map is {} in JSON
    enqueue(client, "a", { stock: new Map([["rope", 7]]) }),
    // @ts-expect-error a set is {} in JSON
    enqueueBatch(client, "a", [{ tags: new Set(["new"]) }]),
    // @ts-expect-error bytes are an object of numbers in JSON
    schedule(client, "nightly", { cron: "0 3 * * *", to: "a", payload: { image: new Uint8Array(1) } }),
    // @ts-expect-error JSON has no bigint
    peer.handle("a", (message) => message.reply({ id: 17n })),
    // @ts-expect-error a promise that was not awaited
    peer.send("a", Promise.resolve(order)),
    // @ts-expect-error it may be no payload
    peer.send("a", anything),
    // @ts-expect-error no payload
    peer.send("a", undefined),
  ];
  expect(compiled).toBeTypeOf("function");
});

it("options in a variable keep the client of the message, and the receipt its outcome", () => {
  const peer = new Peer({ name: "shop-1", databaseUrl });
  const options = { transactional: true, retry: { attempts: 3 } };
  const once = { delivery: "at-most-once" } as const;
  const compiled = (): unknown[] => [
    peer.handle("a", options, ({ client }) => client.query("SELECT 1")),
    peer.respond("a", options, ({ client }) => client.query("SELECT 1")),
    peer.handle(placed, options, ({ id }, { client }) => client.query("", [id])),
    peer.handleBatch("a", { ...options, maxMessages: 5 }, ([message], { client }) => [message!.client, client]),
    peer
      .messages("a", options)
      .next()
      .then(({ value }) => value.client.query("SELECT 1")),
    peer.send("a", "x", once).then(({ outcome }) => outcome satisfies "sent" | "dropped"),
    peer.sendAll("a", "x", once).then(([one]) => "outcome" in one! && (one.outcome satisfies "sent" | "dropped")),
    peer.send("a", "x", {}).then(({ outcome }) => outcome satisfies "delivered" | "stored"),
  ];
  expect(compiled).toBeTypeOf("function");
});

const databaseUrl = "postgres://localhost/none";
