/**
 * Program versions that know different schemas, on one database, as docs/compatibility.md says.
 */
import { describe, expect, it } from "vitest";
import { tables } from "../../generated/ts/rows/peer.js";
import { migrate } from "../../src/store/index.js";
import { type Migration, migrations } from "../../src/store/migrations.js";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { peerProcess, runningPeer } from "../scenarios/support/peer-process.js";
import { eventually } from "../support/eventually.js";
import { startProgram } from "../support/program.js";

const names = Object.values(tables).filter((name) => name !== tables.migration);
const next = migrations.length + 1;

/** What a step may do: columns with defaults in every table, a function, a table. */
const additions = [
  ...names.flatMap((name) => [
    `ALTER TABLE ${name} ADD COLUMN added_later integer NOT NULL DEFAULT 7`,
    `ALTER TABLE ${name} ADD COLUMN added_too text`,
  ]),
  "CREATE TABLE hawser.later (id integer PRIMARY KEY)",
  "CREATE FUNCTION hawser.later() RETURNS integer LANGUAGE sql AS 'SELECT 7'",
].join(";\n");

/** A program of the next version knows one step more. */
const laterMigrations: readonly Migration[] = [...migrations, { id: next, name: "a later step", sql: additions }];

async function recordLaterStep(world: PeerWorld): Promise<void> {
  await world.query(
    `INSERT INTO hawser.migrations (id, name, checksum) VALUES (${next}, 'a later step', repeat('0', 64))`,
  );
}

/** Everything that peers do with the tables, with peers that meet each other for the first time. */
async function exchange(world: PeerWorld, suffix: string): Promise<void> {
  const orders = await world.started(`orders-${suffix}`, { maxAttempts: 1 }, async (message) => {
    const text = Buffer.from(message.payload).toString();
    if (text === "poison") throw new Error("never");
    if (text === "answer me") await message.reply("yes");
  });
  const shop = await world.started(`shop${suffix}-1`);
  await eventually("the channel is live", async () => (await shop.sendTo("orders", "hello")).outcome === "delivered");
  await shop.sendTo("orders", "answer me");
  await eventually("the answer is there", () => shop.texts.includes("yes"));
  await shop.sendTo("orders", "poison");
  await shop.subscribe("news");
  await orders.sendTo("news", "noon");
  await eventually("the news are there", () => shop.texts.includes("noon"));
  await shop.unsubscribe("news");
  await orders.stop();
  expect((await shop.sendTo("orders", "while away")).outcome).toBe("stored");
  expect(await shop.pendingCount()).toBe(1);
  await orders.record();
  await eventually("what was stored is handled", () => orders.texts.includes("while away"));
  await eventually("nothing is left", async () => (await world.storedMessages()) === 0);
  await orders.stop();
  await shop.stop();
}

describe("a schema that is newer than the program", () => {
  it("is refused at the start, by a clear error, and nothing is left behind", async () => {
    await using world = await peerWorld();
    await recordLaterStep(world);
    const peer = peerProcess(world.url, "orders-1");
    const refused = peer.call("run");
    await expect(refused).rejects.toMatchObject({ code: "schema_too_new" });
    await expect(refused).rejects.toThrow(
      `the database has migration ${next} (a later step), and this version knows only ${migrations.length}; upgrade the program`,
    );
    expect(await world.query("SELECT name FROM hawser.peers")).toEqual([]);
    expect(await world.query("SELECT addr FROM hawser.topic_addr")).toEqual([]);
    expect((await peer.finish()).status).toBe(0);
  });

  it("is refused by the command with its exit status", async () => {
    await using world = await peerWorld();
    await recordLaterStep(world);
    const env = { HAWSER_DATABASE_URL: world.url, HAWSER_NATS_URL: process.env["HAWSER_TEST_NATS_URL"], NO_COLOR: "1" };
    const { status, stderr } = await startProgram("src/cli/main.ts", ["dev", "--json"], { env }).ended;
    expect(status).toBe(78);
    expect(stderr).toContain("upgrade the program [schema_too_new]");
  });

  it("does not disturb programs that run already", async () => {
    await using world = await peerWorld();
    const orders = await runningPeer(world.url, "orders-1");
    const shop = await runningPeer(world.url, "shop-1");
    await recordLaterStep(world);
    expect((await shop.call("sendTo", "orders", "one")).outcome).toMatch(/delivered|stored/);
    await orders.messages.find(({ text }) => text === "one");
    await expect(peerProcess(world.url, "orders-2").call("run")).rejects.toMatchObject({ code: "schema_too_new" });
  });
});

describe("a later program that migrates", () => {
  it("adds its columns while older programs send and receive, and they go on", async () => {
    await using world = await peerWorld();
    const orders = await runningPeer(world.url, "orders-1");
    const shop = await runningPeer(world.url, "shop-1");
    await shop.call("beginStream", { topic: "orders", prefix: "n", window: 50, perSecond: 500 });
    await shop.confirmed.find(({ number }) => number >= 100);
    expect((await migrate({ databaseUrl: world.url }, laterMigrations)).applied).toEqual([next]);
    const confirmed = shop.confirmed.all.at(-1)?.number ?? 0;
    await shop.confirmed.find(({ number }) => number >= confirmed + 300);
    const last = await shop.call("endStream");
    await eventually("everything has arrived", () => orders.messages.all.length >= last);
    const texts = [...new Set(orders.messages.all.map(({ text }) => text))];
    expect(texts).toEqual(Array.from({ length: last }, (_, index) => `n ${index + 1}`));
    expect(shop.unconfirmed.all).toEqual([]);
    // Programs that run meet new peers, too: the routes and channels of a further topic are written by the old one.
    await world.query(`DELETE FROM hawser.migrations WHERE id = ${next}`);
    const news = await runningPeer(world.url, "news-1");
    expect((await shop.call("sendTo", "news", "to a stranger")).outcome).toMatch(/delivered|stored/);
    await news.messages.find(({ text }) => text === "to a stranger");
    expect((await news.finish()).status).toBe(0);
    expect((await shop.finish()).status).toBe(0);
    expect((await orders.finish()).status).toBe(0);
  });
});

describe("columns that a program does not know", () => {
  it("are left to their defaults, whatever a peer does", async () => {
    await using world = await peerWorld();
    await exchange(world, "1");
    for (const addition of additions.split(";\n")) await world.query(addition);
    await exchange(world, "2");
    const [added] = await world.query<{ added: number }>(
      `SELECT count(*) FILTER (WHERE added_later <> 7) AS added FROM hawser.sender_listener`,
    );
    expect(added).toEqual({ added: 0 });
    expect(await world.query("SELECT error_code FROM hawser.dead_letters")).toHaveLength(2);
  });

  it("do not keep an operator's short insert from working", async () => {
    await using world = await peerWorld();
    for (const addition of additions.split(";\n")) await world.query(addition);
    const orders = await world.started("orders-1");
    await orders.stop();
    await orders.record();
    await world.query("INSERT INTO hawser.topic_addr (topic, addr, client_name) VALUES ('rush', $1, 'orders-1')", [
      orders.boundListenAddress,
    ]);
    const shop = await world.started("shop-1");
    await eventually("it is reached", async () => (await shop.sendTo("orders", "one")).outcome === "delivered");
    expect((await shop.listAddresses("rush")).map(({ name }) => name)).toEqual(["orders-1"]);
  });
});
