/**
 * A process that leads, with a batch under way that hangs. Prints its epoch when both are so.
 *
 *     HAWSER_DATABASE_URL=<database URL> node --import tsx test/bridge/leadership/programs/leader.ts
 */
import pg from "pg";
import { silentLogger } from "../../../../src/foundation/runtime/index.js";
import { Leadership } from "../../../../src/nats/bridge/leadership/index.js";

const url = new URL(process.env["HAWSER_DATABASE_URL"]!);

async function hang(epoch: bigint): Promise<void> {
  const owner = new pg.Client(url.href);
  await owner.connect();
  const { rows } = await owner.query("SELECT user_name, password FROM hawser_bridge_data.executor_login");
  await owner.end();
  const executor = new URL(url);
  executor.username = rows[0].user_name;
  executor.password = rows[0].password;
  const batch = new pg.Client(executor.href);
  await batch.connect();
  await batch.query("BEGIN");
  const fence = await batch.query("SELECT held FROM hawser.fence_batch($1)", [epoch]);
  if (fence.rows[0].held !== true) throw new Error(`the fence refused epoch ${epoch}`);
  void batch.query("SELECT pg_sleep(60)").catch(() => undefined);
  console.log(`${epoch}`);
}

const lead = new Leadership({
  databaseUrl: url.href,
  logger: silentLogger,
  candidate: {
    unfinished: () => ({ oldestAt: undefined, behind: new Map() }),
    completeSince: () => Number.NEGATIVE_INFINITY,
    receivedSince: () => 0,
    receivedUntil: () => undefined,
    isReceiving: () => true,
    canRun: () => true,
    onLeading: (epoch) => void hang(epoch),
    onDeposed: () => undefined,
    onWaiting: () => undefined,
    onProgress: () => undefined,
  },
});
await lead.start();
