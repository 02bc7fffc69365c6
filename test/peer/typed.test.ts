/**
 * Typed messages between peers.
 */
import { type DescMessage, type FileRegistry, toBinary } from "@bufbuild/protobuf";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { HawserError, type TransactionalMessage } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { compileSchemas, messageIn } from "../typed/support/compile.js";
import { gate } from "./support/gate.js";
import { Log } from "./support/log.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

let registry: FileRegistry;
let placed: DescMessage;
let cancelled: DescMessage;

beforeAll(async () => {
  registry = await compileSchemas({
    "acme/v1/orders.proto": `syntax = "proto3"; package acme.v1;
      import "buf/validate/validate.proto"; import "hawser/v1/topic.proto";
      message OrderPlaced {
        option (hawser.v1.topic) = {topic: "orders" key: "order_id" message_id: "order_id"};
        string order_id = 1 [(buf.validate.field).string.min_len = 2];
        int64 cents = 2;
      }
      message OrderCancelled { option (hawser.v1.topic) = {topic: "orders"}; string order_id = 1; }
      message OrderShipped { option (hawser.v1.topic) = {topic: "orders"}; string order_id = 1; }
      message OnlyNats { option (hawser.v1.topic) = {subject: "orders"}; string order_id = 1; }
      message Unsupported { option (hawser.v1.topic) = {topic: "orders"}; Part part = 1; }
      message Part { string text = 1 [(buf.validate.field).string.pattern = "a"]; }`,
  });
  placed = messageIn(registry, "acme.v1.OrderPlaced");
  cancelled = messageIn(registry, "acme.v1.OrderCancelled");
});

const orderIdOf = (order: object) => (order as { orderId: string }).orderId;
/** Batches of so many messages, no fewer. */
const batchOf = (maxMessages: number) => ({ maxMessages, waitMs: 60_000 });

const deadLetters = () =>
  world.query<{ error_code: string; error_message: string; attempts: number }>(
    "SELECT error_code, error_message, attempts FROM hawser_data.dead_letters ORDER BY id",
  );

describe("send and handle of a schema", () => {
  it("have a concurrency for each type, and nothing waits for that of a handler that has stopped", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    const held = gate();
    const [started, others] = [new Log<string>(), new Log<string>()];
    const subscription = await b.handle(placed, { concurrency: 1 }, async (order) => {
      started.push(orderIdOf(order));
      await held.opened;
    });
    await b.handle(cancelled, (order) => others.push(orderIdOf(order)));
    await b.start();
    const sent = ["o-1", "o-2"].map((orderId) => a.send(placed, { orderId }));
    await started.length(1);
    void a.send(cancelled, { orderId: "o-3" });
    await others.length(1);
    await subscription.stop();
    await eventually("the second is a dead letter", async () => (await deadLetters()).length === 1);
    held.open();
    await Promise.all(sent);
    expect(started.all).toEqual(["o-1"]);
    expect(await deadLetters()).toMatchObject([{ error_code: "invalid_message" }]);
  });

  it("carry messages of several types on one topic, with key and id from their fields", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    const received = new Log<unknown>();
    await Promise.all([
      b.handle(placed, (order, message) => received.push([order, message.key, message.id, [...message.headers]])),
      b.handle(cancelled, (order, message) => received.push([order, message.key])),
    ]);
    await b.start();
    expect(await a.send(placed, { orderId: "o-1", cents: 7n })).toEqual({ outcome: "delivered", peer: "b-1" });
    await a.send(cancelled, { orderId: "o-1" });
    await a.send(placed, { orderId: "o-2" }, { format: "json", headers: { trace: "1" }, key: "k" });
    expect(received.all).toEqual([
      [
        { $typeName: "acme.v1.OrderPlaced", orderId: "o-1", cents: 7n },
        "o-1",
        "acme.v1.OrderPlaced:o-1",
        expect.arrayContaining([["content-type", "application/x-protobuf; type=acme.v1.OrderPlaced"]]),
      ],
      [{ $typeName: "acme.v1.OrderCancelled", orderId: "o-1" }, undefined],
      [
        { $typeName: "acme.v1.OrderPlaced", orderId: "o-2", cents: 0n },
        "k",
        "acme.v1.OrderPlaced:o-2",
        expect.arrayContaining([
          ["content-type", "application/json; type=acme.v1.OrderPlaced"],
          ["trace", "1"],
        ]),
      ],
    ]);
  });

  it("take what was sent by others: of the only type, without a content type", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    const received = new Log<unknown>();
    await b.handle(cancelled, (order) => received.push(order));
    await b.start();
    await a.send("orders", toBinary(cancelled, { $typeName: cancelled.typeName, orderId: "o-1" } as never));
    await a.send("orders", '{"orderId": "o-2"}', { headers: { "content-type": "application/json" } });
    expect(received.all).toMatchObject([{ orderId: "o-1" }, { orderId: "o-2" }]);
  });

  it("make a dead letter at the first try of what cannot be read, with the reason", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    const calls = new Log<unknown>();
    await Promise.all([
      b.handle(placed, (order) => calls.push(order)),
      b.handle(cancelled, (order) => calls.push(order)),
    ]);
    await b.start();
    const send = (payload: string | Uint8Array, type?: string) =>
      a.send("orders", payload, type === undefined ? {} : { headers: { "content-type": type } });
    await send(Buffer.from("0a0161", "hex"), "application/x-protobuf; type=acme.v1.OrderPlaced");
    await send(Buffer.from("0a0561", "hex"), "application/x-protobuf; type=acme.v1.OrderPlaced");
    await a.send(messageIn(registry, "acme.v1.OrderShipped"), { orderId: "o-1" });
    await send("x");
    await send("x", "text/plain");
    expect(calls.all).toEqual([]);
    expect(await deadLetters()).toEqual(
      [
        'acme.v1.OrderPlaced.order_id "a": must have at least 2 characters (string.min_len)',
        "acme.v1.OrderPlaced.order_id: cannot be decoded from Protobuf: the message ends in the middle of a field",
        'a message of acme.v1.OrderShipped: the types that the topic "orders" has here are acme.v1.OrderPlaced, acme.v1.OrderCancelled',
        'a message without a content-type, which must say the type: the types that the topic "orders" has here are acme.v1.OrderPlaced, acme.v1.OrderCancelled',
        'content-type "text/plain": must be application/x-protobuf or application/json',
      ].map((error_message) => ({ error_code: "invalid_message", error_message, attempts: 1 })),
    );
  });

  it("refuse values and schemas before anything is sent", async () => {
    const a = await world.started("a-1");
    const failure = async (name: string, value: Record<string, unknown>, options?: object) => {
      const error = await a.send(messageIn(registry, `acme.v1.${name}`), value, options).catch((e: unknown) => e);
      return error instanceof HawserError ? `${error.code}: ${error.message}` : error;
    };
    expect(await failure("OrderPlaced", { orderId: "a" })).toBe(
      'invalid_argument: acme.v1.OrderPlaced.order_id "a": must have at least 2 characters (string.min_len)',
    );
    expect(await failure("OrderPlaced", { orderId: "o 1" })).toBe(
      `invalid_argument: acme.v1.OrderPlaced.order_id "o 1": follows the name of the type in the message's id: it must not contain white space or control characters`,
    );
    expect(await failure("OnlyNats", {})).toBe(
      "invalid_schema: acme.v1.OnlyNats: its option has no topic; set one to use peers",
    );
    expect(await failure("Part", {})).toMatch(/^invalid_schema: acme.v1.Part: it has no option/);
    const unsupported = messageIn(registry, "acme.v1.Unsupported");
    await expect(a.handle(unsupported, () => undefined)).rejects.toMatchObject({ code: "invalid_schema" });
    expect(await failure("Unsupported", {})).toMatch(
      /^invalid_schema: acme.v1.Part.text: rule string.pattern: "a" must/,
    );
    expect(await failure("OrderPlaced", { orderId: "o-1" }, { format: "xml" })).toBe(
      'invalid_argument: format xml: must be "binary" or "json"',
    );
    expect(await failure("OrderPlaced", { orderId: "o-1" }, { ttl: 1 })).toMatch(
      /^invalid_argument: "ttl" is not an option of a send; did you mean ttlMs\? The options are delivery, /,
    );
  });
});

describe("handle and handleBatch of a schema", () => {
  beforeEach(() => world.query("CREATE TABLE ledger (what text)"));

  const ledger = async () => (await world.query<{ what: string }>("SELECT what FROM ledger")).map(({ what }) => what);

  it("have options for each type of a topic", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    const retry = { attempts: 3, delayMs: 1 };
    await Promise.all([
      b.handle(placed, { transactional: true, retry }, async (order, message) => {
        await message.client.query("INSERT INTO ledger VALUES ($1)", [orderIdOf(order)]);
        if (message.attempt < 3) throw new Error("not yet");
      }),
      b.handle(cancelled, { retry: { attempts: 1 } }, (_, message) => {
        expect(() => (message as TransactionalMessage).client).toThrow("needs a transactional handler");
        throw new Error("no room");
      }),
    ]);
    await b.start();
    await a.send(placed, { orderId: "o-1" });
    await a.send(cancelled, { orderId: "o-2" });
    await world.handled();
    expect(await ledger()).toEqual(["o-1"]);
    expect(await deadLetters()).toEqual([
      { error_code: "handler_failed", error_message: expect.stringContaining("no room"), attempts: 1 },
    ]);
  });

  it("hand over the values of a batch with their messages, and leave out what cannot be read", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    const batches = new Log<unknown>();
    await b.handleBatch(placed, { ...batchOf(2), transactional: true }, async (orders, { messages, client }) => {
      await client.query("INSERT INTO ledger SELECT unnest($1::text[])", [orders.map(orderIdOf)]);
      batches.push(orders.map((order, index) => [orderIdOf(order), messages[index]!.key]));
    });
    await b.start();
    const headers = { "content-type": "application/x-protobuf; type=acme.v1.OrderPlaced" };
    await a.send("orders", Buffer.from("0a0161", "hex"), { headers });
    await world.handled();
    expect(await deadLetters()).toMatchObject([{ error_code: "invalid_message", attempts: 1 }]);
    await Promise.all(["o-1", "o-2"].map((orderId) => a.send(placed, { orderId })));
    await world.handled();
    expect(batches.all).toEqual([
      [
        ["o-1", "o-1"],
        ["o-2", "o-2"],
      ],
    ]);
    expect(await ledger()).toEqual(["o-1", "o-2"]);
  });

  it("end one type at a time, and the topic with the last", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    const seen: string[] = [];
    const [first, second, third] = [
      await b.handle(placed, () => void seen.push("first")),
      await b.handle(cancelled, () => void seen.push("second")),
      await b.handle(placed, () => void seen.push("third")),
    ];
    expect(first.topics).toEqual(["orders"]);
    await first.closed; // replaced
    await first.stop();
    await b.start();
    await a.send(placed, { orderId: "o-1" });
    await second.stop();
    await second.closed;
    await a.send(placed, { orderId: "o-2" });
    await a.send(cancelled, { orderId: "o-3" });
    expect(seen).toEqual(["third", "third"]);
    expect(await deadLetters()).toMatchObject([{ error_code: "invalid_message" }]);
    await third.stop();
    await third.stop();
    await eventually(
      "nobody serves the topic",
      async () => (await a.listenersOf("orders", { refresh: true })).length > 0 === false,
    );
  });

  it("refuse a topic that has a handler for all its messages", async () => {
    const b = world.peer("b-1");
    const plain = await b.handle("orders", () => undefined);
    const refused = await b.handle(placed, () => undefined).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "already_running" });
    await plain.stop();
    await plain.closed;
    await using typed = await b.handle(placed, () => undefined);
    expect(typed.topics).toEqual(["orders"]);
  });
});
