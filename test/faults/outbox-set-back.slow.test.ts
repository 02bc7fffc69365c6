/**
 * The store of NATS is an older copy of itself, as after a power cut: a replay brings back what is missing, and nothing
 * twice, each key in order.
 */
import { DeliverPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { serve as startServer } from "../../src/serve/index.js";
import { hawser } from "../cli/support/hawser.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { sqlDatabase } from "./support/sql-database.js";

const perPart = 3_000;
const keys = 20;

it("a replay brings back what a store that was set back has lost, once, in order for each key", {
  timeout: 120_000,
}, async () => {
  await using nats = await startNatsServer({ jetStream: true });
  const database = await sqlDatabase(nats.url);
  const watcher = await connect({ servers: nats.url, maxReconnectAttempts: -1, reconnectTimeWait: 50 });
  const client = new pg.Client(database.url);
  await client.connect();
  try {
    const manager = await jetstreamManager(watcher);
    await manager.streams.add({ name: "OUT", subjects: ["out.>"] });
    const stored = async (): Promise<number> => (await manager.streams.info("OUT")).state.messages;
    const enqueue = async (part: number): Promise<void> => {
      await client.query(
        `SELECT hawser.enqueue('out.' || n % 3, format('%s %s', $1::text, n), stream => true, key => 'k' || n % ${keys})
           FROM generate_series(1, ${perPart}) AS n`,
        [part],
      );
    };
    const nothingWaits = async (): Promise<void> =>
      await eventually(
        "nothing waits",
        async () => {
          const { rows } = await client.query("SELECT waiting FROM hawser.outbox_status WHERE kind = 'nats'");
          return rows[0].waiting === "0";
        },
        60_000,
      );
    {
      await using serve = await startServer({ listen: "127.0.0.1:0", databaseUrl: database.url });
      expect(serve.sessionCount).toBe(0);
      await enqueue(1);
      await eventually("the first part is there", async () => (await stored()) === perPart, 60_000);
      await nats.stop();
      nats.copyStore();
      await nats.restart();
      await enqueue(2);
      await eventually("both parts are there", async () => (await stored().catch(() => 0)) === 2 * perPart, 60_000);
      // Messages in flight would arrive before those that are published again.
      await nothingWaits();
      await nats.kill();
      nats.setStoreBack();
    }
    await nats.restart();
    await eventually("the server answers", async () => (await stored().catch(() => -1)) === perPart);
    const { status, stdout } = await hawser(["outbox", "replay", "--since", "1h"], { databaseUrl: database.url });
    expect([status, stdout]).toEqual([0, expect.stringContaining(`Enqueued ${2 * perPart} messages`)]);
    await using serve = await startServer({ listen: "127.0.0.1:0", databaseUrl: database.url });
    expect(serve.sessionCount).toBe(0);
    await eventually("all is back", async () => (await stored()) >= 2 * perPart, 60_000);
    await nothingWaits();
    const texts: string[] = [];
    const consumer = await jetstream(watcher).consumers.get("OUT", { deliver_policy: DeliverPolicy.All });
    for await (const message of await consumer.consume()) {
      texts.push(message.string());
      if (message.info.pending === 0) break;
    }
    expect(texts.length).toBe(2 * perPart);
    expect(new Set(texts).size).toBe(2 * perPart);
    // The key of each is its number modulo `keys`, on one of three subjects.
    const last = new Map<string, number>();
    for (const text of texts) {
      const [part, n] = text.split(" ").map(Number) as [number, number];
      const lane = `${n % 3} ${n % keys}`;
      const place = part * perPart + n;
      expect(place).toBeGreaterThan(last.get(lane) ?? 0);
      last.set(lane, place);
    }
  } finally {
    await client.end();
    await watcher.close();
    await database.drop();
  }
});
