/**
 * Programs as users write them, and misuses that must not compile.
 */
import { create, type DescMessage } from "@bufbuild/protobuf";
import { StringValueSchema } from "@bufbuild/protobuf/wkt";
import { sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { integer, pgTable } from "drizzle-orm/pg-core";
import { Kysely, PostgresDialect } from "kysely";
import pg from "pg";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type ErrorCode, enqueue, fromDrizzle, Peer, Worker } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { Log } from "./support/log.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();
let pool: pg.Pool;

beforeEach(() => {
  pool = new pg.Pool({ connectionString: world.url });
  // The world ends its sessions after each test.
  pool.on("error", () => undefined);
});
afterEach(() => pool.end());

describe("a program", () => {
  it("enqueues in a transaction of Drizzle, and handles it in one of its own, with one pool", async () => {
    await world.query("CREATE TABLE orders (id integer)");
    await world.query("CREATE TABLE bookings (id integer)");
    const orders = pgTable("orders", { id: integer() });
    const bookings = pgTable("bookings", { id: integer() });
    const mails = new Log<unknown>();
    const warehouse = new Worker({ pool });
    await warehouse.handle(
      "warehouse",
      { transactional: true, retry: { attempts: 10, delayMs: 1 } },
      async (message) => {
        const { id } = message.json();
        await drizzle(message.client).insert(bookings).values({ id });
        await warehouse.enqueue(message.client, "mail", { booked: id });
        if (message.attempt < 3) throw new Error("not yet");
      },
    );
    await warehouse.handle("mail", (message) => void mails.push([message.json(), message.headers.get("content-type")]));
    await warehouse.start();

    const db = drizzle(pool);
    await db.transaction(async (tx) => {
      await tx.insert(orders).values({ id: 17 });
      await enqueue(fromDrizzle(tx, sql), "warehouse", { id: 17 }, { key: "order-17" });
    });
    await mails.length(1);
    expect(mails.all).toEqual([[{ booked: 17 }, "application/json"]]);
    await warehouse.stop();
    expect(await db.select().from(bookings)).toEqual([{ id: 17 }]);
    expect(pool.idleCount).toBe(pool.totalCount);
  });

  it("writes with Kysely in the transaction of a handler", async () => {
    const { url: databaseUrl } = world;
    await world.query("CREATE TABLE bookings (id integer)");
    const attempts = new Log<number>();
    await using warehouse = new Worker({ databaseUrl });
    const options = { transactional: true, retry: { attempts: 3, delayMs: 1 } } as const;
    await warehouse.handle("warehouse", options, async ({ client, attempt }) => {
      const onClient = { connect: async () => client, end: async () => undefined };
      const db = new Kysely<{ bookings: { id: number } }>({ dialect: new PostgresDialect({ pool: onClient }) });
      for (const id of [1, 2]) await db.insertInto("bookings").values({ id }).execute();
      attempts.push(attempt);
      if (attempt === 1) throw new Error("not yet");
    });
    await warehouse.start();
    await enqueue(pool, "warehouse", "order 1");
    await attempts.length(2);
    await eventually("the effects are committed", async () => (await world.query("SELECT FROM bookings")).length > 0);
    expect(await world.query("SELECT id FROM bookings ORDER BY id")).toEqual([{ id: 1 }, { id: 2 }]);
  });
});

it("misuses do not compile", () => {
  const peer = new Peer({ name: "a-1", databaseUrl: world.url });
  const typed: DescMessage = StringValueSchema;
  const compiled = (code: ErrorCode): unknown[] => [
    peer.handle("a", { transactional: true }, ({ client }) => drizzle(client)),
    peer.handle(StringValueSchema, ({ value }, { sender }) => [value, sender]),
    peer.send(StringValueSchema, { value: "x" }, { format: "json" }),
    peer.send("a", { any: "object" }, { key: "k" }).then(({ outcome }) => outcome satisfies "delivered" | "stored"),
    peer.send("a", "x", { delivery: "at-most-once" }).then(({ outcome }) => outcome satisfies "sent" | "dropped"),
    peer.send(typed, create(typed)),
    peer.on("status", (status) => status.kind === "attempt_failed" && status.attempt),
    // @ts-expect-error only a transactional handler has a client
    peer.handle("a", ({ client }) => client),
    // @ts-expect-error only a transactional handler has a client
    peer.respond("a", { timeoutMs: 5 }, ({ client }) => client),
    // @ts-expect-error no such option
    peer.handle("a", { transactionl: true }, () => undefined),
    // @ts-expect-error a request is handled once
    peer.respond("a", { retry: { attempts: 2 } }, () => "x"),
    // @ts-expect-error options of handlers are under defaults
    () => new Peer({ name: "a-1", transactional: true }),
    // @ts-expect-error each topic says so for itself
    () => new Peer({ name: "a-1", defaults: { transactional: true } }),
    // @ts-expect-error it is under tuning
    () => new Peer({ name: "a-1", ackTimeoutMs: 500 }),
    // @ts-expect-error a name is required
    () => new Peer({ topic: "a" }),
    // @ts-expect-error a delivered message is not dropped
    peer.send("a", "x").then(({ outcome }) => outcome === "dropped"),
    // @ts-expect-error no field of the message
    peer.send(StringValueSchema, { text: "x" }),
    // @ts-expect-error a number is no payload
    peer.send("a", 7),
    // @ts-expect-error of enqueue
    peer.send("a", "x", { deliverAt: new Date() }),
    // @ts-expect-error no such code
    code === "no_adress",
    // @ts-expect-error no such event
    peer.on("stats", () => undefined),
    // @ts-expect-error the handler comes last
    peer.handle("a", () => undefined, { transactional: true }),
  ];
  expect(compiled).toBeTypeOf("function");
});
