/**
 * Ids that a saved position names as skipped: none is ever given to another message, not even when the message has been
 * truncated, and then the server crashes or its standby takes over.
 */
import { expect, it } from "vitest";
import { prepareForSql } from "../faults/support/sql-database.js";
import { rowsOf } from "../support/on-server.js";
import { type PrimaryAndStandby, startPrimaryAndStandby } from "../support/standby.js";

async function start(): Promise<PrimaryAndStandby> {
  const servers = await startPrimaryAndStandby();
  await prepareForSql(servers.primary.url);
  return servers;
}

/** Enqueues so many messages. @returns the last id */
async function enqueue(url: string, count: number): Promise<bigint> {
  await rowsOf(url, `SELECT hawser.enqueue('ids', 'x', stream => true) FROM generate_series(1, ${count})`);
  const [row] = await rowsOf(url, "SELECT max(id) AS last FROM hawser_data.outbox");
  return BigInt(String(row!["last"]));
}

const truncate = "TRUNCATE TABLE hawser_data.outbox_0, hawser_data.outbox_1, hawser_data.outbox_2";

it("an id is not given again after its segment was truncated and the server crashed", async () => {
  await using servers = await start();
  const { url } = servers.primary;
  const last = await enqueue(url, 5);
  await rowsOf(url, truncate);
  await servers.primary.kill("SIGKILL");
  await servers.primary.start();
  expect(await enqueue(url, 1)).toBeGreaterThan(last);
}, 120_000);

it("an id is not given again by a standby that had its message", async () => {
  await using servers = await start();
  const last = await enqueue(servers.primary.url, 100);
  await rowsOf(servers.primary.url, truncate);
  await servers.caughtUp();
  await servers.primary.kill("SIGKILL");
  await servers.promote();
  expect(await enqueue(servers.standby.url, 1)).toBeGreaterThan(last);
}, 120_000);
