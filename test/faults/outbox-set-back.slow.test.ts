/**
 * The store of NATS is an older copy of itself, as after a power cut: a replay brings back what is missing, and nothing
 * twice, each key in order.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { expect, it } from "vitest";
import { serve as startServer } from "../../src/nats/serve/index.js";
import { hawser } from "../cli/support/hawser.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { audit, problems, type Sent } from "./support/ledger.js";
import { countIn, textsIn } from "./support/outbox-stream.js";
import { sqlDatabase } from "./support/sql-database.js";

const perPart = 3_000;
const keys = 20;

/** The messages of a part: each has a key and one of three subjects. */
const partOf = (part: number): Sent[] =>
  Array.from({ length: perPart }, (_, index) => {
    const n = index + 1;
    return { id: `${part} ${n}`, consumers: ["stream"], lane: `${n % 3} ${n % keys}` };
  });

it("a replay brings back what a store that was set back has lost, once, in order for each key", {
  timeout: 120_000,
}, async () => {
  await using nats = await startNatsServer({ jetStream: true });
  await using database = await sqlDatabase(nats.url);
  const watcher = await connect({ servers: nats.url, maxReconnectAttempts: -1, reconnectTimeWait: 50 });
  try {
    await (await jetstreamManager(watcher)).streams.add({ name: "OUT", subjects: ["out.>"] });
    const has = (count: number) =>
      eventually(`the stream has ${count}`, async () => (await countIn(watcher, "OUT").catch(() => -1)) === count);
    const enqueue = (part: number) =>
      onServer(
        database.url,
        `SELECT hawser.enqueue('out.' || n % 3, format('%s %s', ${part}, n), stream => true, key => 'k' || n % ${keys})
           FROM generate_series(1, ${perPart}) AS n`,
      );
    const nothingWaits = () =>
      eventually("nothing waits", async () => {
        const [row] = await rowsOf(database.url, "SELECT waiting FROM hawser.outbox_status WHERE kind = 'nats'");
        return row!["waiting"] === "0";
      });
    {
      await using serve = await startServer({ listen: "127.0.0.1:0", databaseUrl: database.url });
      expect(serve.sessionCount).toBe(0);
      await enqueue(1);
      await has(perPart);
      await nats.stop();
      nats.copyStore();
      await nats.restart();
      await enqueue(2);
      await has(2 * perPart);
      // Messages in flight would arrive before those that are published again.
      await nothingWaits();
      await nats.kill();
      nats.setStoreBack();
    }
    await nats.restart();
    await has(perPart);
    const { status, stdout } = await hawser(["outbox", "replay", "--since", "1h"], { databaseUrl: database.url });
    expect([status, stdout]).toEqual([0, expect.stringContaining(`Enqueued ${2 * perPart} messages`)]);
    await using serve = await startServer({ listen: "127.0.0.1:0", databaseUrl: database.url });
    expect(serve.sessionCount).toBe(0);
    await eventually("all is back", async () => (await countIn(watcher, "OUT")) >= 2 * perPart);
    await nothingWaits();
    const found = (await textsIn(watcher, "OUT")).map((id) => ({ consumer: "stream", id }));
    expect(problems(audit([...partOf(1), ...partOf(2)], found))).toEqual([]);
  } finally {
    await watcher.close();
  }
});
