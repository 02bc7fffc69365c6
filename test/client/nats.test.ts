/**
 * Typed messages over NATS: core, a stream, and in a transaction.
 */
import { randomUUID } from "node:crypto";
import { create, type DescMessage, toBinary } from "@bufbuild/protobuf";
import { jetstreamManager } from "@nats-io/jetstream";
import { headers, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { Reject, RetryAfter } from "../../src/foundation/errors/index.js";
import { enqueue } from "../../src/jobs-and-peers/peer/index.js";
import { consume, publish, subscribe, typed } from "../../src/nats/client/index.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { testGateway } from "../support/gateway.js";
import { natsClient } from "../support/nats-client.js";
import { compileSchemas, messageIn } from "../typed/support/compile.js";

/** The server is shared: subjects of this file's own. */
const root = `typed${randomUUID().replaceAll("-", "")}`;
let connection: NatsConnection;
let placed: DescMessage;
let cancelled: DescMessage;
let stored: DescMessage;
type DescMessages = [DescMessage, DescMessage, DescMessage, DescMessage, DescMessage, DescMessage, DescMessage];
let noSubject: DescMessage;
let numbered: DescMessage;
let moved: DescMessage;
let billed: DescMessage;

beforeAll(async () => {
  const registry = await compileSchemas({
    "acme/v1/orders.proto": `syntax = "proto3"; package acme.v1;
      import "buf/validate/validate.proto"; import "hawser/v1/topic.proto";
      message OrderPlaced {
        option (hawser.v1.topic) = {subject: "${root}.{tenant}.orders"};
        string tenant = 1;
        string order_id = 2 [(buf.validate.field).string.min_len = 2];
      }
      message OrderNumbered {
        option (hawser.v1.topic) = {subject: "${root}.numbered" message_id: "number"}; int64 number = 1;
      }
      message Moved { option (hawser.v1.topic) = {subject: "{area}.moved"}; string area = 1; }
      message OrderCancelled { option (hawser.v1.topic) = {subject: "${root}.{tenant}.orders"}; string tenant = 1; }
      message OrderStored {
        option (hawser.v1.topic) = {subject: "${root}.stored" stream: true key: "order_id" message_id: "order_id"};
        string order_id = 1 [(buf.validate.field).string.min_len = 2];
      }
      message OrderBilled {
        option (hawser.v1.topic) = {subject: "${root}.stored" stream: true message_id: "order_id"};
        string order_id = 1;
      }
      message NoSubject { option (hawser.v1.topic) = {topic: "orders"}; }`,
  });
  const names = ["OrderPlaced", "OrderCancelled", "OrderStored", "NoSubject", "OrderNumbered", "Moved", "OrderBilled"];
  const schemas = names.map((name) => messageIn(registry, `acme.v1.${name}`));
  [placed, cancelled, stored, noSubject, numbered, moved, billed] = schemas as DescMessages;
  connection = await natsClient({ servers: testNatsUrl() });
  const manager = await jetstreamManager(connection);
  await manager.streams.add({ name: root, subjects: [`${root}.stored`] });
});

beforeEach(async () => {
  await (await jetstreamManager(connection)).streams.purge(root);
});

afterAll(async () => {
  await (await jetstreamManager(connection)).streams.delete(root);
  await connection.close();
});

describe("core NATS", () => {
  it("carries messages of several types on one subject", async () => {
    const received: unknown[] = [];
    await using subscription = await subscribe(
      connection,
      [
        typed(placed, (order, message) => received.push([order, message.subject])),
        typed(cancelled, (order) => received.push(order)),
      ],
      { onFailure: (error) => received.push(error) },
    );
    expect(subscription.topics).toEqual([`${root}.*.orders`]);
    expect(await publish(connection, placed, { tenant: "acme", orderId: "o-1" })).toEqual({
      subject: `${root}.acme.orders`,
    });
    await publish(connection, cancelled, { tenant: "b" }, { format: "json", headers: { trace: ["1", "2"] } });
    await subscription.stop();
    await subscription.closed;
    expect(received).toEqual([
      [{ $typeName: "acme.v1.OrderPlaced", tenant: "acme", orderId: "o-1" }, `${root}.acme.orders`],
      { $typeName: "acme.v1.OrderCancelled", tenant: "b" },
    ]);
  });

  it("shares messages within a queue group, and tells what could not be handled", async () => {
    const counts = [0, 0];
    const failures: string[] = [];
    const members = await Promise.all(
      counts.map((_, index) =>
        subscribe(
          connection,
          typed(placed, () => (counts[index]! += 1)),
          {
            queue: "billing",
            onFailure: (error, message) => failures.push(`${message.subject}: ${(error as Error).message}`),
          },
        ),
      ),
    );
    for (let count = 0; count < 50; count++) await publish(connection, placed, { tenant: "a", orderId: "o-1" });
    const type = headers();
    type.set("content-type", "application/x-protobuf; type=acme.v1.OrderPlaced");
    connection.publish(`${root}.a.orders`, toBinary(placed, create(placed, { orderId: "x" })), { headers: type });
    connection.publish(`${root}.a.orders`, new Uint8Array([255]));
    await connection.flush();
    for (const member of members) await member.stop();
    expect(counts[0]! + counts[1]!).toBe(50);
    expect(failures.sort()).toEqual([
      `${root}.a.orders: acme.v1.OrderPlaced.order_id "x": must have at least 2 characters (string.min_len)`,
      `${root}.a.orders: acme.v1.OrderPlaced: cannot be decoded from Protobuf: the message ends in the middle of a field`,
    ]);
  });

  it("refuses values, types and options before anything is sent", async () => {
    await expect(publish(connection, placed, { tenant: "a.b", orderId: "o-1" })).rejects.toMatchObject({
      code: "invalid_argument",
    });
    await expect(publish(connection, placed, { tenant: "a", orderId: "x" })).rejects.toThrow(/\(string.min_len\)$/);
    await expect(publish(connection, noSubject, {})).rejects.toThrow(
      "acme.v1.NoSubject: its option has no subject; set one to use NATS",
    );
    await expect(publish(connection, placed, {}, { fromat: "json" } as object)).rejects.toThrow(/did you mean format/);
    await expect(publish(connection, placed, {}, { format: "xml" as never })).rejects.toThrow(
      'format xml: must be "binary" or "json"',
    );
    const both = [typed(placed, () => undefined), typed(stored, () => undefined)];
    await expect(subscribe(connection, both as never, { onFailure: () => undefined })).rejects.toThrow(
      `the types have the subjects ${root}.*.orders and ${root}.stored; subscribe to each subject with its own call`,
    );
  });
});

describe("a stream", () => {
  it("keeps a message once, handles it until it succeeds, and never again what is rejected", async () => {
    const first = await publish(connection, stored, { orderId: "o-1" });
    expect(first).toMatchObject({ subject: `${root}.stored`, stream: { name: root, duplicate: false } });
    expect(await publish(connection, stored, { orderId: "o-1" })).toMatchObject({ stream: { duplicate: true } });
    await publish(connection, stored, { orderId: "o-reject" });
    await publish(connection, stored, { orderId: "o-fail" });
    await publish(connection, stored, { orderId: "o-later" });
    connection.publish(`${root}.stored`, new Uint8Array([255]));
    const seen: string[] = [];
    const failures: string[] = [];
    let retryAt = 0;
    let laterAt = 0;
    const handling = typed(stored, (value) => {
      const { orderId } = value as unknown as { orderId: string };
      seen.push(orderId);
      if (orderId === "o-later") {
        laterAt = Date.now();
        if (retryAt > 0) return;
        const later = new RetryAfter(300, { reason: "not yet" });
        retryAt = later.retryAt.getTime();
        throw later;
      }
      if (orderId === "o-reject") throw new Reject("sold out");
      if (orderId === "o-fail" && seen.filter((each) => each === orderId).length < 3) throw new Error("no room");
    });
    await using reading = await consume(connection, handling, {
      stream: root,
      durable: "billing",
      retryDelayMs: 10,
      onFailure: (error) => failures.push((error as Error).message),
    });
    await eventually("all are handled", async () => {
      const info = await (await jetstreamManager(connection)).consumers.info(root, "billing");
      return info.num_pending + info.num_ack_pending === 0;
    });
    await reading.stop();
    expect(seen.toSorted()).toEqual(["o-1", "o-fail", "o-fail", "o-fail", "o-later", "o-later", "o-reject"]);
    // The server has its own clock, of the same machine.
    expect(laterAt).toBeGreaterThanOrEqual(retryAt - 50);
    expect(failures.toSorted()).toEqual([
      "acme.v1.OrderStored: cannot be decoded from Protobuf: the message ends in the middle of a field",
      "no room",
      "no room",
      "not yet",
      "sold out",
    ]);
  });

  it("keeps messages of two types whose fields have the same id", async () => {
    const order = { orderId: "o-2" };
    expect(await publish(connection, stored, order)).toMatchObject({ stream: { duplicate: false } });
    expect(await publish(connection, billed, order)).toMatchObject({ stream: { duplicate: false } });
    expect(await publish(connection, billed, order)).toMatchObject({ stream: { duplicate: true } });
    await expect(publish(connection, billed, { orderId: "o".repeat(237) })).rejects.toThrow(
      /^acme\.v1\.OrderBilled\.order_id "o+[^:]*: follows the name of the type in the message's id: it must be 1 to 235 bytes/,
    );
  });

  it("is told that a handler works that takes longer than ack_wait", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    onTestFinished(() => void vi.useRealTimers());
    const seen: string[] = [];
    let end = (): void => {};
    const handling = typed(stored, async (value) => {
      seen.push((value as unknown as { orderId: string }).orderId);
      await new Promise<void>((resolve) => {
        end = resolve;
      });
    });
    const acks: string[] = [];
    const listening = connection.subscribe(`$JS.ACK.${root}.slow.>`, {
      callback: (_, message) => void acks.push(message.string()),
    });
    await using _ = await consume(connection, handling, {
      stream: root,
      durable: "slow",
      onFailure: () => undefined,
      config: { ack_wait: 60_000_000_000, deliver_policy: "new" as never },
    });
    await publish(connection, stored, { orderId: "o-slow" });
    await eventually("it is being handled", () => seen.length > 0);
    expect(acks).toEqual([]);
    vi.advanceTimersByTime(45_000);
    await eventually("it is told", () => acks.includes("+WPI"));
    end();
    listening.unsubscribe();
    await eventually("it is handled", async () => {
      const info = await (await jetstreamManager(connection)).consumers.info(root, "slow");
      return seen.length > 0 && info.num_ack_pending === 0;
    });
    expect(seen).toEqual(["o-slow"]);
  });

  it("is refused without explicit acks", async () => {
    const manager = await jetstreamManager(connection);
    await manager.consumers.add(root, { durable_name: "none", ack_policy: "none" as never });
    const options = { stream: root, durable: "none", onFailure: () => undefined };
    await expect(
      consume(
        connection,
        typed(stored, () => undefined),
        options,
      ),
    ).rejects.toMatchObject({
      code: "invalid_argument",
    });
  });
});

it("is published if, and only if, the transaction commits", async () => {
  await using gateway = await testGateway();
  const received: unknown[] = [];
  const onFailure = (error: unknown) => received.push(error);
  await using core = await subscribe(
    connection,
    typed(placed, (order) => received.push(order)),
    { onFailure },
  );
  await using stream = await consume(
    connection,
    typed(stored, (order) => received.push(order)),
    {
      stream: root,
      durable: "transactions",
      config: { deliver_policy: "new" as never },
      onFailure,
    },
  );
  for (const [end, orderId] of [
    ["ROLLBACK", "o-back"],
    ["COMMIT", "o-there"],
  ]) {
    await gateway.client.query("BEGIN");
    await enqueue(gateway.client, placed, { tenant: "acme", orderId: orderId! });
    expect(await enqueue(gateway.client, stored, { orderId: orderId! })).toEqual(expect.any(BigInt));
    await gateway.client.query(end!);
  }
  await gateway.client.query("BEGIN");
  for (const schema of [stored, billed]) await enqueue(gateway.client, schema, { orderId: "o-back" });
  const { rows } = await gateway.client.query(
    "SELECT message_id FROM hawser_data.outbox WHERE message_id LIKE '%o-back'",
  );
  expect(rows).toEqual([{ message_id: "acme.v1.OrderStored:o-back" }, { message_id: "acme.v1.OrderBilled:o-back" }]);
  await gateway.client.query("ROLLBACK");
  // Core NATS has no ids: that of the option is for peers.
  expect(await enqueue(gateway.client, numbered, { number: 7n })).toEqual(expect.any(BigInt));
  await expect(enqueue(gateway.client, numbered, { number: 7n }, { messageId: "7" })).rejects.toMatchObject({
    code: "invalid_argument",
    message: "messageId 7: needs stream: true; core NATS has no ids",
  });
  await expect(enqueue(gateway.client, moved, { area: "$KV" })).rejects.toMatchObject({
    code: "invalid_argument",
    message:
      "acme.v1.Moved.area \"$KV\": is the first token of the subject and must not begin with '$': such subjects belong to NATS",
  });
  await expect(enqueue(gateway.client, stored, { orderId: "x" })).rejects.toMatchObject({ code: "invalid_argument" });
  await eventually("both have come", () => received.length === 2);
  expect(received).toEqual(
    expect.arrayContaining([
      { $typeName: "acme.v1.OrderPlaced", tenant: "acme", orderId: "o-there" },
      { $typeName: "acme.v1.OrderStored", orderId: "o-there" },
    ]),
  );
  expect([...core.topics, ...stream.topics]).toEqual([`${root}.*.orders`, `${root}.stored`]);
});
