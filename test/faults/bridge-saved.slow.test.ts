/**
 * What was received is not lost by a restart in order, by a function that is too slow, nor by what happens to processes and to
 * Postgres while it is saved and read back. One subscription, numbered messages, and a table that shows the order of the runs.
 */
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { patienceMs } from "./support/kills.js";
import type { ServeProcess } from "./support/serve-process.js";
import { hears, received, SlowFunction, start, stop } from "./support/slow-function.js";
import { sqlDatabase } from "./support/sql-database.js";

const nothingWrong = { missing: 0, disordered: 0 };
// Ten, for which HAWSER_TEST_DEPTH is 5, take twenty minutes.
const rounds = Math.max(1, atDepth(2));

describe("a restart in order while a backlog stands", () => {
  it(`of three processes, one after the other, ${rounds} times at 2,000 messages/s and 2 ms for each, loses nothing and keeps the order`, {
    timeout: patienceMs + rounds * 300_000,
  }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 2);
    const serves = await start(slow, 3);
    slow.begin(2_000);
    for (let round = 0; round < rounds; round += 1) {
      for (const serve of serves) {
        await delay(1_000);
        await stop(serve);
        await serve.start();
        await hears(serve);
      }
    }
    await slow.ends();
    await slow.done(60_000 + slow.published * 5);
    const audit = await slow.audit();
    console.log(`rolling restart, ${rounds} rounds: ${slow.published} messages, ${JSON.stringify(audit)}`);
    expect(audit).toMatchObject(nothingWrong);
  });

  it(`of a process that is alone, ${rounds} times, loses nothing that it had received`, {
    timeout: patienceMs + rounds * 60_000,
  }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 2);
    const [serve] = (await start(slow, 1)) as [ServeProcess];
    for (let round = 0; round < rounds; round += 1) {
      const before = (await received(serve)) - slow.published;
      await slow.publish(4_000, 2_000);
      await eventually("it has received them", async () => (await received(serve)) - before >= slow.published);
      await stop(serve);
      expect(serve.log.filter(({ level }) => level === "error")).toEqual([]);
      await serve.start();
      await eventually("it receives", async () => {
        await slow.probe();
        return (await received(serve)) > 0;
      });
    }
    await slow.done(60_000 + slow.published * 5);
    const audit = await slow.audit();
    console.log(`restarted alone, ${rounds} rounds: ${slow.published} messages, ${JSON.stringify(audit)}`);
    expect(audit).toMatchObject(nothingWrong);
  });
});

describe("messages that come ten times as fast as they can be run", () => {
  // A minute, for which HAWSER_TEST_DEPTH is 6, takes a quarter of an hour to run.
  const seconds = Math.max(6, atDepth(10));
  const messages = seconds * 20_000;

  it(`(20,000/s for ${seconds} s) are all run, in order, with room in the table`, {
    timeout: patienceMs + messages * 4,
  }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 0.4);
    const [serve] = (await start(slow, 1)) as [ServeProcess];
    const perSecond = Math.round(await slow.publish(messages, 20_000));
    const saved = await serve.metric("hawser_bridge_saved_messages");
    await eventually("all are received", async () => (await received(serve)) >= messages, 60_000);
    expect(await serve.metric("hawser_bridge_messages_discarded_total")).toBe(0);
    await slow.done(60_000 + messages * 3);
    const audit = await slow.audit();
    console.log(
      `overload: ${messages} messages, ${perSecond}/s, ${saved} in the table at the end, ${JSON.stringify(audit)}`,
    );
    expect(saved).toBeGreaterThan(0);
    expect(audit).toEqual({ ...nothingWrong, repeated: 0 });
    expect(await serve.metric("hawser_bridge_messages_discarded_total")).toBe(0);
  });

  it("are run or counted, exactly, where the table may have 64 MiB", {
    timeout: patienceMs + messages * 4,
  }, async () => {
    const isFull = atDepth(10) >= 60;
    const [buffer, table] = isFull ? [67_108_864, 67_108_864] : [4_194_304, 4_194_304];
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 0.4);
    const limits = ["--buffer-bytes", `${buffer}`, "--saved-bytes", `${table}`];
    const [serve] = (await start(slow, 1, limits)) as [ServeProcess];
    const perSecond = Math.round(await slow.publish(messages, 20_000));
    const discarded = () => serve.metric("hawser_bridge_messages_discarded_total");
    const ran = () => slow.count("SELECT count(*) FROM ran");
    await eventually(
      "each is run or counted",
      async () => (await ran()) + (await discarded()) === messages || (await delay(500, false)),
      60_000 + messages * 3,
    );
    const audit = await slow.audit();
    console.log(
      `overload with ${table} bytes: ${messages} messages, ${perSecond}/s, ${await discarded()} discarded, ${JSON.stringify(audit)}`,
    );
    expect(audit).toEqual({ missing: await discarded(), disordered: 0, repeated: 0 });
    expect(audit.missing).toBeGreaterThan(0);
  });
});
