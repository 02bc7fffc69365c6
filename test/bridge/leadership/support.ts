/**
 * Leads of several processes over one Postgres, each with a session of its own, for tests that run side by side.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import type { TestContext } from "vitest";
import { Leadership } from "../../../src/nats/bridge/leadership/index.js";
import { testDatabase } from "../../support/database.js";
import { eventually } from "../../support/eventually.js";
import { onServer, rowsOf } from "../../support/on-server.js";
import { keptLog } from "../role/log.js";

export type TestLead = ReturnType<typeof newLead>;

/** Starts a leadership that records its events, and stops it at the end of the test. */
export function newLead(
  { onTestFinished }: TestContext,
  databaseUrl: string,
  messages: { oldest?: number; behind?: ReadonlyMap<bigint, number>; completeSince?: number } = {},
) {
  const told: { readonly what: string; readonly at: number }[] = [];
  const progress: (number | undefined)[] = [];
  const behind: (ReadonlyMap<bigint, number> | undefined)[] = [];
  const log = keptLog();
  const tell = (what: string) => told.push({ what, at: performance.now() });
  const lead = new Leadership({
    databaseUrl,
    logger: log.logger,
    candidate: {
      unfinished: () => ({ oldestAt: messages.oldest, behind: messages.behind ?? new Map() }),
      completeSince: () => messages.completeSince ?? Number.NEGATIVE_INFINITY,
      receivedSince: () => 0,
      receivedUntil: () => undefined,
      isReceiving: () => true,
      canRun: () => true,
      onLeading: (_, { afterCleanEnd }) => tell(afterCleanEnd ? "leading after a clean end" : "leading"),
      onDeposed: () => tell("deposed"),
      onWaiting: () => tell("waiting"),
      onProgress: (known) => {
        progress.push(known?.doneBefore);
        behind.push(known?.behind);
      },
    },
  });
  onTestFinished(() => lead.stop());
  return { lead, told, progress, behind, log, messages, words: () => told.map(({ what }) => what) };
}

/** Starts them one after another: the first leads, and the others know it. */
export async function startInTurn(...leads: readonly TestLead[]): Promise<void> {
  for (const { lead, told } of leads) {
    await lead.start();
    // Where Postgres has not answered in time, it is asked again.
    await eventually("it leads, or knows who does", () => told.length > 0);
  }
}

export const leads = (one: TestLead) => eventually("it leads", () => one.lead.epoch !== undefined);
export const knowsProgress = (one: TestLead) =>
  eventually("the progress is known", () => one.progress.at(-1) !== undefined);

/** A database of the test's own. */
export async function ownDatabase({ onTestFinished }: TestContext): Promise<string> {
  const database = await testDatabase();
  onTestFinished(() => database.drop());
  return database.url;
}

/** The URL by which a login of `hawser serve` connects that can do no more than it has to. */
export async function limitedUrl({ onTestFinished }: TestContext, databaseUrl: string): Promise<string> {
  const url = new URL(databaseUrl);
  url.username = `hawser_test_${randomBytes(6).toString("hex")}`;
  url.password = "limited";
  await onServer(databaseUrl, `CREATE ROLE ${url.username} LOGIN PASSWORD 'limited' IN ROLE hawser_bridge`);
  onTestFinished(() => onServer(databaseUrl, `DROP ROLE ${url.username}`));
  return url.href;
}

/** A session of the login that runs batches, or of another one. */
export async function session({ onTestFinished }: TestContext, url: string): Promise<pg.Client> {
  const client = new pg.Client(url);
  client.on("error", () => undefined);
  await client.connect();
  onTestFinished(() => client.end().catch(() => undefined));
  return client;
}

export async function executorSession(test: TestContext, databaseUrl: string): Promise<pg.Client> {
  const [made] = await rowsOf(databaseUrl, "SELECT user_name, password FROM hawser_bridge_data.executor_login");
  const url = new URL(databaseUrl);
  url.username = String(made!["user_name"]);
  url.password = String(made!["password"]);
  return session(test, url.href);
}

export const fenceHeld = async (client: pg.Client, epoch: bigint) =>
  (await client.query<{ held: boolean }>("SELECT held FROM hawser.fence_batch($1)", [epoch])).rows[0]!.held;

/** Has a batch of that epoch hang. @returns the error by which it ends */
export async function hangingBatch(batch: pg.Client, epoch: bigint): Promise<{ readonly ended: Promise<unknown> }> {
  await batch.query("BEGIN");
  if (!(await fenceHeld(batch, epoch))) throw new Error(`the fence refused epoch ${epoch}`);
  return { ended: batch.query("SELECT pg_sleep(60)").catch((error: pg.DatabaseError) => error.code) };
}
