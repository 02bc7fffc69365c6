/**
 * The rules of `saved.test.ts` under a real overload: thousands of small messages, and where there is no room at all.
 */
import { describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { bridgeWorld } from "./support/bridge-world.js";
import {
  bufferBytes,
  lock,
  metricsOf,
  numbers,
  overloadLosesNothing,
  receivedBy,
  slowRoleLeavesRoom,
  subscriberTimeoutMs,
  takeSql,
} from "./support/overload.js";

describe("an overload", () => {
  it("loses nothing: the table takes what memory has no room for, and all is run in order", () =>
    overloadLosesNothing({ messages: 1_200, messageBytes: 1_000 }));

  it("of one role leaves room in the table for the messages of the others", () =>
    slowRoleLeavesRoom({ messages: 6_000, messageBytes: 1_000 }, 4 * bufferBytes));

  it("for which the table has no room either runs and counts what was published, and nothing else", async () => {
    const options = { bufferBytes, tuning: { savedBytes: 300_000 }, monitor: "127.0.0.1:0" };
    await using world = await bridgeWorld({ sql: takeSql, subscriberTimeoutMs, ...options });
    const subject = `${world.prefix}.full`;
    await world.subscribe(subject, "take(bytea)");
    const locked = await lock(world);
    const messages = 500;
    for (let n = 1; n <= messages; n += 1) {
      world.nats.publish(subject, `${n}`.padEnd(4_000));
      if (n % 25 > 0) continue;
      await world.nats.flush();
      await eventually("they are there", async () => (await receivedBy(world.serve)) >= n);
    }
    const saved =
      "SELECT sum(octet_length(payload) + octet_length(subject) + 256) FROM hawser_bridge_data.saved_messages";
    let bytes = 0;
    // What has come last is written a moment later.
    await eventually("the table is nearly full", async () => (bytes = await world.count(saved)) > 150_000);
    expect(bytes).toBeLessThanOrEqual(300_000);
    await locked.query("ROLLBACK");
    await locked.end();
    const discarded = async () => {
      const metrics = await metricsOf(world);
      return Number(/^hawser_bridge_messages_discarded_total\{.*buffer_full.*\} (\d+)/m.exec(metrics)?.[1]);
    };
    await eventually(
      "nothing waits",
      async () => {
        return (await world.count("SELECT count(*) FROM ran")) + (await discarded()) === messages;
      },
      60_000,
    );
    const ran = await numbers(world);
    expect(ran).toEqual([...ran].sort((one, other) => one - other));
    expect(new Set(ran).size).toBe(messages - (await discarded()));
    expect(await discarded()).toBeGreaterThan(0);
    // It says so, now and then, and at its end.
    await world.serve.stop();
    const said = world.log.lines.findLast(({ details }) => (details as { inAll?: number }).inAll !== undefined);
    expect(said).toMatchObject({ level: "error", details: { bySubject: { [subject]: expect.any(Number) } } });
  });
});
