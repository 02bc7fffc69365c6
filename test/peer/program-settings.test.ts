/** Settings that a program makes for all of node-postgres, or for all of its values. */
import pg from "pg";
import { afterEach, beforeEach, expect, it } from "vitest";
import {
  cancel,
  enqueue,
  enqueueBatch,
  job,
  Peer,
  pauseTopic,
  resumeTopic,
  waitFor,
} from "../../src/jobs-and-peers/peer/index.js";
import { Log } from "./support/log.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld({ keepsConnections: false });

const { types } = pg;
const lastOid = 4_000;
const toJson = Object.getOwnPropertyDescriptor(Date.prototype, "toJSON")!;
let parsers: (readonly [oid: number, format: "text" | "binary", parser: unknown])[] = [];

beforeEach(() => {
  parsers = Array.from({ length: lastOid }, (_, oid) =>
    (["text", "binary"] as const).map((format) => [oid, format, types.getTypeParser(oid, format as "text")] as const),
  ).flat();
  for (const [oid, format] of parsers.filter(([oid]) => oid !== types.builtins.TEXT))
    types.setTypeParser(oid as never, format as "text", (value: string) => `the program's ${value}`);
  pg.defaults.binary = true;
  pg.defaults.client_encoding = "latin1";
  pg.defaults.query_timeout = 1;
  pg.defaults.parseInputDatesAsUTC = true;
  Object.defineProperty(Date.prototype, "toJSON", { ...toJson, value: () => "the program's" });
});

afterEach(() => {
  for (const [oid, format, parser] of parsers) types.setTypeParser(oid as never, format as "text", parser as never);
  pg.defaults.binary = false;
  pg.defaults.client_encoding = "";
  pg.defaults.query_timeout = 0;
  pg.defaults.parseInputDatesAsUTC = false;
  Object.defineProperty(Date.prototype, "toJSON", toJson);
});

it.each(["a URL", "a pool"])("change nothing for a peer with %s, and for what is asked of it", async (source) => {
  await using pool = new (class extends pg.Pool {
    [Symbol.asyncDispose] = () => this.end();
  })({ connectionString: world.url, query_timeout: 60_000 });
  pool.on("error", () => undefined);
  const from = source === "a URL" ? { databaseUrl: world.url } : { pool };
  await using peer = new Peer({ name: "a-1", ...from });
  const got = new Log<string>();
  const bytes = new Uint8Array([0, 1, 92, 255]);
  await peer.handle("plain", (message) => {
    got.push(`${message.key} ${message.headers.get("h")} ${message.text()}`);
    return { n: 1 };
  });
  await peer.handle("exact", { transactional: true }, async (message) => {
    const { rows } = await message.client.query("SELECT 7::int4 AS n");
    got.push(`${rows[0].n} ${Buffer.from(message.payload).toString("hex")}`);
  });
  await peer.start();
  const id = await enqueue(pool, "plain", "ü 1", { key: "k", headers: { h: "ü" }, keepMs: 60_000 });
  await got.length(1);
  await enqueueBatch(pool, "exact", [bytes, bytes], { key: "k" });
  await got.length(3);
  expect(got.all).toEqual(["k ü ü 1", ...Array(2).fill("the program's 7 00015cff")]);
  expect(await peer.send("plain", "sent", { key: "s", headers: { h: "h" } })).toMatchObject({ outcome: "delivered" });
  expect(got.all.at(-1)).toBe("s h sent");

  const done = await waitFor(source === "a URL" ? world.url : pool, id);
  expect(done).toMatchObject({ state: "done", result: { n: 1 }, attempts: 1, durationMs: expect.any(Number) });
  expect(done.endedAt!.getTime()).toBeGreaterThan(Date.now() - 60_000);
  const deliverAt = new Date(Date.now() + 3_600_000);
  const later = await enqueue(pool, "plain", "later", { deliverAt, priority: 30_000 });
  expect(await job(pool, later)).toMatchObject({ state: "later", dueAt: deliverAt });
  expect(await cancel(pool, later)).toBe("cancelled");
  expect(await pauseTopic(pool, "exact")).toMatchObject({ pausedAt: expect.any(Date), changed: true });
  expect(await resumeTopic(pool, "exact")).toBe(true);
});
