/**
 * The queue over a planned switchover, and over a failover to a standby that lacks the last commits: relative to the messages that
 * the new primary has, each has its effects once, and keys are in order.
 */
import pg from "pg";
import { expect, it } from "vitest";
import { migrate } from "../../src/jobs-and-peers/migrations/index.js";
import { enqueue, Worker } from "../../src/jobs-and-peers/peer/index.js";
import { startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startPrimaryAndStandby } from "../support/standby.js";
import { patienceMs } from "./support/kills.js";

const keys = 5;

it("what is enqueued has its effects once over a switchover and a failover, in the order of its keys", {
  timeout: patienceMs,
}, async () => {
  await using servers = await startPrimaryAndStandby();
  await migrate({ databaseUrl: servers.primary.url });
  await onServer(
    servers.primary.url,
    "CREATE TABLE sent (number integer)",
    "CREATE TABLE effects (id bigserial, number integer)",
  );
  await using proxy = await startProxy(servers.primary.url);
  const workers = ["b-1", "b-2"].map(
    (name) => new Worker({ name, databaseUrl: proxy.url, concurrency: 8, defaults: { takeoverMs: 1_000 } }),
  );
  try {
    let begun = 0;
    for (const worker of workers) {
      await worker.handle("b", { transactional: true, retry: { attempts: 1_000, delayMs: 10 } }, async (message) => {
        begun += 1;
        await message.client.query("INSERT INTO effects (number) VALUES ($1)", [Number(message.text())]);
      });
      await worker.start();
    }
    let number = 0;
    /** Enqueues that many messages; after an error it goes on with the next one. */
    const load = async (count: number): Promise<void> => {
      for (const end = number + count; number < end; ) {
        const client = new pg.Client({ connectionString: proxy.url });
        client.on("error", () => undefined);
        try {
          await client.connect();
          while (number < end) {
            number += 1;
            await client.query("BEGIN");
            await client.query("INSERT INTO sent (number) VALUES ($1)", [number]);
            await enqueue(client, "b", `${number}`, number % 2 === 0 ? { key: `${number % keys}` } : {});
            await client.query("COMMIT");
          }
        } catch {
          // It may have been committed.
        } finally {
          await client.end().catch(() => undefined);
        }
      }
    };
    const numbersIn = async (table: string): Promise<number[]> => {
      const rows = await rowsOf(
        servers.primary.url,
        `SELECT number FROM ${table} ORDER BY ${table === "sent" ? 1 : "id"}`,
      );
      return rows.map((row) => Number(row["number"]));
    };
    const settled = async (): Promise<void> => {
      await eventually(
        "nothing is left",
        async () => (await rowsOf(servers.primary.url, "SELECT FROM hawser_data.queue")).length === 0,
        patienceMs / 4,
      );
      const [sent, effects] = [await numbersIn("sent"), await numbersIn("effects")];
      expect(effects.toSorted((one, other) => one - other)).toEqual(sent);
      for (let key = 0; key < keys; key++) {
        const ofKey = effects.filter((each) => each % 2 === 0 && each % keys === key);
        expect(ofKey).toEqual(ofKey.toSorted((one, other) => one - other));
      }
      expect(await rowsOf(servers.primary.url, "SELECT FROM hawser_data.dead_letters")).toEqual([]);
    };

    await load(100);
    const before = begun;
    const during = load(400);
    await eventually("they are handled meanwhile", () => begun > before + 20);
    await servers.switchOver();
    proxy.leadTo(servers.primary.url);
    proxy.cut();
    await during;
    await settled();

    await servers.rejoin();
    await load(50);
    await servers.caughtUp();
    await servers.cutOff();
    const lost = load(300);
    const lostFrom = begun;
    await eventually("more are handled, which will be lost", () => begun > lostFrom + 50);
    await servers.failOver();
    proxy.leadTo(servers.primary.url);
    proxy.cut();
    await lost;
    await settled();
    console.log(`${number} messages, ${(await numbersIn("sent")).length} of them survived; ${begun} starts`);
  } finally {
    await Promise.all(workers.map((worker) => worker.stop({ timeoutMs: 2_000 })));
  }
});
