/**
 * Programs of versions that know different schemas, on one database, as docs/compatibility.md says.
 */
import { describe, expect, it } from "vitest";
import { migrate, migrations } from "../../src/jobs-and-peers/migrations/index.js";
import { peerWorld } from "../peer/support/world.js";
import { peerProcess, runningPeer } from "../scenarios/support/peer-process.js";
import { eventually } from "../support/eventually.js";
import { startProgram } from "../support/program.js";
import { laterProgram, next, recordLaterStep } from "./later-schema.js";

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
    expect(await world.query("SELECT name FROM hawser_peer_data.peers")).toEqual([]);
    expect(await world.query("SELECT addr FROM hawser_peer_data.listeners")).toEqual([]);
    expect((await peer.finish()).status).toBe(0);
  });

  it("is refused by the command with its exit status", async () => {
    await using world = await peerWorld();
    await recordLaterStep(world);
    const env = { HAWSER_DATABASE_URL: world.url, HAWSER_NATS_URL: process.env["HAWSER_TEST_NATS_URL"], NO_COLOR: "1" };
    const { status, stderr } = await startProgram("src/operating/cli/main.ts", ["dev", "--json"], { env }).ended;
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
    expect((await migrate({ databaseUrl: world.url }, laterProgram(migrations.length))).applied).toEqual([next]);
    const confirmed = shop.confirmed.all.at(-1)?.number ?? 0;
    await shop.confirmed.find(({ number }) => number >= confirmed + 300);
    const last = await shop.call("endStream");
    await eventually("everything has arrived", () => orders.messages.all.length >= last);
    const texts = [...new Set(orders.messages.all.map(({ text }) => text))];
    expect(texts).toEqual(Array.from({ length: last }, (_, index) => `n ${index + 1}`));
    expect(shop.unconfirmed.all).toEqual([]);
    // The step only adds, so that an older program starts, too, and meets those that run.
    const news = await runningPeer(world.url, "news-1");
    expect((await shop.call("sendTo", "news", "to a stranger")).outcome).toMatch(/delivered|stored/);
    await news.messages.find(({ text }) => text === "to a stranger");
    expect((await news.finish()).status).toBe(0);
    expect((await shop.finish()).status).toBe(0);
    expect((await orders.finish()).status).toBe(0);
  });
});
