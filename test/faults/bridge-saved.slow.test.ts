/**
 * Received messages survive a graceful restart, a function that is too slow, and faults of processes and Postgres while
 * messages are saved and read back. One subscription, numbered messages, and a table that shows the order of the runs.
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
const rounds = atDepth(1);

describe("a restart in order while a backlog stands", () => {
  // Two pages of the table.
  const backlog = 2_000;

  it("of three processes, one after the other, loses nothing and keeps the order", {
    timeout: patienceMs + rounds * 300_000,
  }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 2);
    const serves = await start(slow, 3);
    slow.keepWaiting(backlog);
    for (let round = 0; round < rounds; round += 1) {
      for (const serve of serves) {
        const before = await received(serve);
        await eventually("it has a backlog", async () => (await received(serve)) >= before + backlog / 2);
        await stop(serve);
        await serve.start();
        await hears(serve);
      }
    }
    await slow.ends();
    await slow.done(60_000 + slow.published * 5);
    const [audit, saved] = [await slow.audit(), await slow.saved()];
    console.log(
      `rolling restart, ${rounds} rounds: ${slow.published} messages, ${saved} saved, ${JSON.stringify(audit)}`,
    );
    expect(audit).toMatchObject(nothingWrong);
  });

  it("of a process that is alone, and again before it has run all of that, loses nothing that it had received", {
    timeout: patienceMs + rounds * 120_000,
  }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 1);
    const [serve] = (await start(slow, 1)) as [ServeProcess];
    for (let round = 0; round < 2 * rounds; round += 1) {
      const before = await received(serve);
      await slow.publish(backlog, 20_000);
      await eventually("it has received them", async () => (await received(serve)) >= before + backlog);
      await stop(serve);
      expect(serve.log.filter(({ level }) => level === "error")).toEqual([]);
      await serve.start();
      await eventually("it receives", async () => {
        await slow.probe();
        return (await received(serve)) > 0;
      });
    }
    await slow.done(60_000 + slow.published * 5);
    const [audit, saved] = [await slow.audit(), await slow.saved()];
    console.log(
      `restarted alone, ${2 * rounds} times: ${slow.published} messages, ${saved} saved, ${JSON.stringify(audit)}`,
    );
    expect(audit).toMatchObject(nothingWrong);
  });
});

describe("messages that come far faster than they can be run", () => {
  const messages = Math.max(6_000, atDepth(6_000));
  const bytes = 1_000;
  /** Publishes them. None is run before the overload has come to that, and the others come while they are run. */
  const publish = async (slow: SlowFunction, what: string, isSo: () => Promise<boolean>): Promise<number> => {
    const gate = await slow.lock();
    const publishing = slow.publish(messages, 20_000, bytes);
    await eventually(what, isSo);
    await gate.end();
    return Math.round(await publishing);
  };
  const flags = (buffer: number, table: number) => ["--buffer", `${buffer}B`, "--tune", `savedBytes=${table}B`];

  it(`(${messages} in an instant, 0.4 ms for each) are all run, in order, with room in the table`, {
    timeout: patienceMs + messages * 6,
  }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 0.4);
    // They all fit in memory, of which the table takes what is over a half: nothing is discarded, however slow the disk is.
    const buffer = messages * (bytes + 500);
    const [serve] = (await start(slow, 1, flags(buffer, 2 ** 30))) as [ServeProcess];
    const perSecond = await publish(slow, "some are saved", async () => (await slow.saved()) > 0);
    await slow.done(60_000 + messages * 5);
    const [audit, saved] = [await slow.audit(), await slow.saved()];
    console.log(`overload: ${messages} messages, ${perSecond}/s, ${saved} were in the table, ${JSON.stringify(audit)}`);
    expect(audit).toEqual({ ...nothingWrong, repeated: 0 });
    expect(await serve.metric("hawser_bridge_messages_discarded_total")).toBe(0);
  });

  it("are run or counted, exactly, where the table may have 1 MiB", {
    timeout: patienceMs + messages * 6,
  }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 0.4);
    const [serve] = (await start(slow, 1, flags(2 ** 20, 2 ** 20))) as [ServeProcess];
    const discarded = () => serve.metric("hawser_bridge_messages_discarded_total");
    const perSecond = await publish(slow, "some are discarded", async () => (await discarded()) > 0);
    const ran = () => slow.count("SELECT count(*) FROM ran");
    await eventually(
      "each is run or counted",
      async () => (await ran()) + (await discarded()) === messages || (await delay(100, false)),
      60_000 + messages * 5,
    );
    const audit = await slow.audit();
    console.log(
      `overload with 1 MiB: ${messages} messages, ${perSecond}/s, ${await discarded()} discarded, ${JSON.stringify(audit)}`,
    );
    expect(audit).toEqual({ missing: await discarded(), disordered: 0, repeated: 0 });
    expect(audit.missing).toBeGreaterThan(0);
  });
});
