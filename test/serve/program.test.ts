/**
 * The entry `hawser/nats` as a program uses it: its names, what it does on a real Postgres and NATS, and the mistakes that the
 * compiler finds.
 */
import type { Message } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import { jetstreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import pg from "pg";
import { afterAll, beforeAll, expect, expectTypeOf, it } from "vitest";
import * as entry from "../../src/nats/client/index.js";
import {
  consume,
  type NatsSql,
  natsSql,
  publish,
  serve,
  subscribe,
  type TypedHandler,
  typed,
} from "../../src/nats/client/index.js";
import { decode, encode } from "../../src/protobuf/typed/public.js";
import { type TestDatabase, testDatabase, testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { defineServer } from "../support/gateway.js";
import { natsClient } from "../support/nats-client.js";
import { compileSchemas, messageIn } from "../typed/support/compile.js";

type OrderPlaced = Message<"acme.v1.OrderPlaced"> & { tenant: string; orderId: string; pieces: bigint };

/** The server is shared: subjects of this file's own. */
const root = "program_orders";
let database: TestDatabase;
let connection: NatsConnection;
let pool: pg.Pool;
let OrderPlacedSchema: GenMessage<OrderPlaced>;

beforeAll(async () => {
  database = await testDatabase();
  connection = await natsClient({ servers: testNatsUrl() });
  pool = new pg.Pool({ connectionString: database.url });
  // Dropping the database may end a session that the pool is still closing.
  pool.on("error", () => undefined);
  const registry = await compileSchemas({
    "acme/v1/orders.proto": `syntax = "proto3"; package acme.v1; import "hawser/v1/topic.proto";
      message OrderPlaced {
        option (hawser.v1.topic) = {subject: "${root}.{tenant}.placed" stream: true message_id: "order_id"};
        string tenant = 1; string order_id = 2; int64 pieces = 3;
      }`,
  });
  OrderPlacedSchema = messageIn(registry, "acme.v1.OrderPlaced") as GenMessage<OrderPlaced>;
  const { streams } = await jetstreamManager(connection);
  await streams.add({ name: "PROGRAM_ORDERS", subjects: [`${root}.>`] });
});

afterAll(async () => {
  const { streams } = await jetstreamManager(connection);
  for (const name of ["PROGRAM_ORDERS", "KV_program_stock"]) await streams.delete(name).catch(() => undefined);
  await connection.close();
  await pool.end();
  await database.drop();
});

it("has 13 names, 6 of which are values", () => {
  expect(Object.keys(entry).toSorted()).toEqual(["consume", "natsSql", "publish", "serve", "subscribe", "typed"]);
  expect(Object.keys(natsSql(pool))).toHaveLength(33);
});

it("takes NATS to SQL and back", async () => {
  const client = await pool.connect();
  await defineServer(client, testNatsUrl());
  await client.query(`
    CREATE TABLE taken (subject text, payload bytea);
    CREATE FUNCTION take_order(payload bytea, subject text) RETURNS void LANGUAGE sql AS
      'INSERT INTO taken VALUES ($2, $1)'`);
  client.release();
  await using server = await serve({ databaseUrl: database.url, listen: "127.0.0.1:0", monitor: "127.0.0.1:0" });
  expect((await fetch(`http://${server.monitorAddress}/healthz`)).ok).toBe(true);
  const nats = natsSql(pool);
  await nats.reload();

  await nats.kvPut("program_stock", "rope", { metres: 180 });
  const { metres } = (await nats.kvGet("program_stock", "rope"))!.json();
  expect(metres).toBe(180);

  // The other tests publish into the stream, too.
  await (await jetstreamManager(connection)).streams.purge("PROGRAM_ORDERS");
  await nats.publish(OrderPlacedSchema, { tenant: "acme", orderId: "17" });
  await nats.subscribeStream("PROGRAM_ORDERS", "take_order", {
    name: "billing",
    filter: [`${root}.*.placed`],
    keyToken: 2,
  });
  const taken = () => pool.query<{ subject: string; payload: Buffer }>("SELECT * FROM taken");
  await eventually("the function has taken the order", async () => (await taken()).rows.length === 1);
  const [order] = (await taken()).rows;
  expect(order?.subject).toBe(`${root}.acme.placed`);
  expect(decode(OrderPlacedSchema, order!.payload)).toMatchObject({ tenant: "acme", orderId: "17" });
});

it("publishes, subscribes and consumes typed messages over a connection of the user", async () => {
  const received: string[] = [];
  const onFailure = (error: unknown) => received.push(String(error));
  const note = (how: string) =>
    typed(OrderPlacedSchema, ({ orderId }, { subject }) => received.push(`${how} ${subject} ${orderId}`));
  await using core = await subscribe(connection, note("core"), { queue: "log", onFailure });
  const config = { deliver_policy: "new" as never };
  await using stream = await consume(connection, note("stream"), {
    stream: "PROGRAM_ORDERS",
    durable: "billing",
    config,
    onFailure,
  });
  expect([...core.topics, ...stream.topics]).toEqual(new Array(2).fill(`${root}.*.placed`));
  const published = await publish(connection, OrderPlacedSchema, { tenant: "acme", orderId: "18" });
  expect(published.stream).toMatchObject({ name: "PROGRAM_ORDERS", duplicate: false });
  await eventually("both have the order", () => received.length === 2);
  expect(received.toSorted()).toEqual([`core ${root}.acme.placed 18`, `stream ${root}.acme.placed 18`]);
  await Promise.all([core.stop(), stream.stop()]);
  await Promise.all([core.closed, stream.closed]);
});

it("encodes and decodes by hand, with the entry hawser/protobuf", () => {
  const bytes = encode(OrderPlacedSchema, { tenant: "a", pieces: 2n });
  expect(decode(OrderPlacedSchema, bytes)).toMatchObject({ tenant: "a", orderId: "", pieces: 2n });
  const json = encode(OrderPlacedSchema, { orderId: "17" }, "json");
  expect(Buffer.from(json).toString()).toBe('{"orderId":"17"}');
  expect(decode(OrderPlacedSchema, json, "json").orderId).toBe("17");
});

/** Never called: the compiler refuses each of these calls, and `npm run lint` each comment of a call that it would take. */
const misuse = {
  natsSql: (nats: NatsSql) => [
    // @ts-expect-error a message has a payload
    nats.publish("a"),
    // @ts-expect-error a number is no payload
    nats.publish("a", 7),
    // @ts-expect-error publish knows no domain: only streams have one
    nats.publish("a", "b", { domain: "hub" }),
    // @ts-expect-error a header is a string, or several
    nats.publish("a", "b", { headers: { attempt: 1 } }),
    // @ts-expect-error without a schema there is no format
    nats.publish("a", {}, { format: "json" }),
    // @ts-expect-error the tenant is a string
    nats.publish(OrderPlacedSchema, { tenant: 7 }),
    // @ts-expect-error the type has no such field
    nats.publish(OrderPlacedSchema, { customer: "acme" }),
    // @ts-expect-error a batch has a list of payloads
    nats.publishBatch("a", "b"),
    // @ts-expect-error the answer to a typed request would have no type
    nats.request(OrderPlacedSchema, { tenant: "acme" }),
    // @ts-expect-error times have their unit in the name
    nats.request("a", "b", { timeout: 5 }),
    // @ts-expect-error a revision is a bigint
    nats.kvUpdate("stock", "rope", "1", 1),
    // @ts-expect-error the key may have no value
    nats.kvGet("stock", "rope").then((value) => value.json()),
    // @ts-expect-error a value has json(), and is none
    nats.kvGet("stock", "rope").then((value) => value!.metres),
    // @ts-expect-error a subscription to a stream has a name
    nats.subscribeStream("ORDERS", "take_order"),
    // @ts-expect-error filters are a list
    nats.subscribeStream("ORDERS", "take_order", { name: "billing", filter: "orders.>" }),
    // @ts-expect-error the outbox is another function: enqueue of hawser
    nats.enqueue("a", "b"),
  ],
  serve: () => [
    // @ts-expect-error it is listen
    serve({ gatewayListen: "127.0.0.1:0" }),
    // @ts-expect-error it is below tuning
    serve({ maxSessions: 10 }),
    // @ts-expect-error tuning has no public settings
    serve({ tuning: { callTimeoutMs: 5_000 } }),
  ],
  typed: (handler: TypedHandler) => [
    // @ts-expect-error the type has no such field
    typed(OrderPlacedSchema, ({ customer }) => customer),
    // @ts-expect-error nobody would hear of a failure
    subscribe(connection, handler, {}),
    // @ts-expect-error a consumer is durable
    consume(connection, handler, { stream: "ORDERS", onFailure: () => undefined }),
    // @ts-expect-error handlers are made by typed
    subscribe(connection, () => undefined, { onFailure: () => undefined }),
  ],
};

it("has types by which the compiler finds mistakes", () => {
  expectTypeOf(misuse).toHaveProperty("natsSql");
  expectTypeOf<NatsSql["publish"]>().toBeCallableWith("a", { id: 17 }, { headers: { lang: "en" } });
  expectTypeOf<NatsSql["publish"]>().returns.resolves.toBeVoid();
  expectTypeOf<NatsSql["kvPut"]>().returns.resolves.toBeBigInt();
});
