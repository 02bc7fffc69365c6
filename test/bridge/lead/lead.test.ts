/**
 * Leading on a real Postgres: several processes' leads, each with a session of its own.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { describe, expect, it, onTestFinished } from "vitest";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { Lead } from "../../../src/bridge/lead/index.js";
import { install } from "../../../src/store/index.js";
import { ownPostgres } from "../../faults/support/own-postgres.js";
import { login } from "../../store/nats/support/logins.js";
import { testDatabase } from "../../support/database.js";
import { eventually } from "../../support/eventually.js";
import { onServer, rowsOf } from "../../support/on-server.js";
import { startProgram } from "../../support/program.js";
import { startPrimaryAndStandby } from "../../support/standby.js";
import { keptLog } from "../role/log.js";

/** How soon a leader that was killed is to be replaced. */
const takeoverLimitMs = 10_000;
/** How soon one that has ended in good order is: none waits for the silence of a dead one. */
const cleanTakeoverLimitMs = bridgeConstants.leadExpiryMs / 2;

type Told = { readonly what: string; readonly at: number };

/** One that keeps what it is told. It ends with the test. */
function newLead(
  databaseUrl: string,
  messages: { oldest?: number; completeSince?: number; isReceiving?: boolean } = {},
) {
  const told: Told[] = [];
  const progress: (number | undefined)[] = [];
  const log = keptLog();
  const tell = (what: string) => told.push({ what, at: performance.now() });
  const lead = new Lead({
    databaseUrl,
    logger: log.logger,
    oldestUnfinishedAt: () => messages.oldest,
    completeSince: () => messages.completeSince ?? Number.NEGATIVE_INFINITY,
    isReceiving: () => messages.isReceiving ?? true,
    onLeading: (_, { afterCleanEnd }) => tell(afterCleanEnd ? "leading after a clean end" : "leading"),
    onDeposed: () => tell("deposed"),
    onWaiting: () => tell("waiting"),
    onProgress: (doneBefore) => progress.push(doneBefore),
  });
  onTestFinished(() => lead.stop());
  return { lead, told, progress, log, messages, words: () => told.map(({ what }) => what) };
}

type TestLead = ReturnType<typeof newLead>;

/** Starts them one after another: the first leads, and the others know it. */
async function startInTurn(...leads: readonly TestLead[]): Promise<void> {
  for (const { lead, told } of leads) {
    await lead.start();
    // Where Postgres has not answered in time, it is asked again.
    await eventually("it leads, or knows who does", () => told.length > 0);
  }
}

async function preparedDatabase() {
  const database = await testDatabase();
  onTestFinished(() => database.drop());
  await install({ databaseUrl: database.url });
  return database;
}

/** The URL by which a login of `hawser serve` connects that can do no more than it has to. */
async function limitedUrl(databaseUrl: string): Promise<string> {
  const url = new URL(databaseUrl);
  url.username = `hawser_test_${randomBytes(6).toString("hex")}`;
  url.password = "limited";
  await onServer(databaseUrl, `CREATE ROLE ${url.username} LOGIN PASSWORD 'limited' IN ROLE hawser_bridge`);
  onTestFinished(() => onServer(databaseUrl, `DROP ROLE ${url.username}`));
  return url.href;
}

/** A session of the login that runs batches. */
async function executorSession(databaseUrl: string): Promise<pg.Client> {
  const [made] = await rowsOf(databaseUrl, "SELECT user_name, password FROM hawser.executor_login");
  const url = new URL(databaseUrl);
  url.username = String(made!["user_name"]);
  url.password = String(made!["password"]);
  const client = new pg.Client(url.href);
  client.on("error", () => undefined);
  await client.connect();
  onTestFinished(() => client.end().catch(() => undefined));
  return client;
}

const fenceHeld = async (client: pg.Client, epoch: bigint) =>
  (await client.query<{ held: boolean }>("SELECT held FROM hawser.fence_batch($1)", [epoch])).rows[0]!.held;

const leadRow = async (databaseUrl: string) =>
  (await rowsOf(databaseUrl, "SELECT epoch, owner, beat, progress_at FROM hawser.bridge_lead"))[0]!;

describe("a lead", () => {
  it("is one process's alone, which beats, and says to the others what is done", async () => {
    const { url } = await preparedDatabase();
    const leads = [newLead(url), newLead(url), newLead(url)];
    await Promise.all(leads.map(({ lead }) => lead.start()));
    await eventually(
      "one leads, and the others know it",
      () =>
        leads.every(({ told }) => told.length > 0) && leads.filter(({ lead }) => lead.epoch !== undefined).length === 1,
    );
    const leader = leads.find(({ lead }) => lead.epoch !== undefined)!;
    await eventually("it is sure", () => leader.lead.isConfirmed);
    const { epoch, owner } = await leadRow(url);
    expect(leader.log.lines.find(({ message }) => message === "leads the subscriptions")!.details).toMatchObject({
      epoch: BigInt(epoch as string),
      owner,
    });
    const client = await executorSession(url);
    expect(await fenceHeld(client, leader.lead.epoch!)).toBe(true);
    expect(await fenceHeld(client, leader.lead.epoch! - 1n)).toBe(false);
    const other = leads.find((one) => one !== leader)!;
    // Processes of one machine have the same clock, so that the bounds can be compared.
    const age = (since: number) => since - (other.progress.at(-1) ?? Number.NEGATIVE_INFINITY);
    await eventually("its progress is known", () => age(performance.now()) < 4_000);
    expect(age(performance.now())).toBeGreaterThan(0);
    const stuckAt = performance.now();
    leader.messages.oldest = stuckAt;
    const seen = other.progress.length;
    // What it knows is no more exact than how long Postgres takes to answer.
    await eventually("three more looks", () => other.progress.length >= seen + 3 && age(stuckAt) < 1_000);
    expect(Math.max(...other.progress.slice(seen).map((bound) => bound ?? 0))).toBeLessThanOrEqual(stuckAt);
    expect(leads.map(({ words }) => words().join()).sort()).toEqual([
      "leading after a clean end",
      "waiting",
      "waiting",
    ]);
  });

  it("passes on at once when it is given back", async () => {
    const { url } = await preparedDatabase();
    const took: number[] = [];
    for (let round = 0; round < 3; round++) {
      const [first, second] = [newLead(url), newLead(url)];
      await startInTurn(first, second);
      const { epoch } = first.lead;
      expect([epoch !== undefined, second.lead.epoch]).toEqual([true, undefined]);
      await eventually("the progress is known", () => second.progress.at(-1) !== undefined);
      const stoppedAt = performance.now();
      await first.lead.stop();
      await eventually("the other one leads", () => second.lead.epoch !== undefined);
      took.push(second.told.at(-1)!.at - stoppedAt);
      expect(second.words()).toEqual(["waiting", "leading after a clean end"]);
      expect(second.lead.epoch).toBeGreaterThan(epoch!);
      expect(first.words()).toEqual(["leading after a clean end"]);
      await second.lead.stop();
    }
    expect(Math.min(...took)).toBeLessThan(cleanTakeoverLimitMs);
  });

  it("is taken first by those who have what is not done", async () => {
    const { url } = await preparedDatabase();
    const leader = newLead(url);
    const lacking = newLead(url, { completeSince: Number.POSITIVE_INFINITY });
    const complete = newLead(url);
    await startInTurn(leader, lacking, complete);
    await eventually("the progress is known", () => complete.progress.at(-1) !== undefined);
    await leader.lead.stop();
    await eventually("the complete one leads", () => complete.lead.epoch !== undefined);
    await complete.lead.stop();
    // Nobody else is left: so that it has to be.
    await eventually("the other one leads", () => lacking.lead.epoch !== undefined);
  });

  it("is lost to whoever took it while the process stood still, whose batches are refused then", async () => {
    const { url } = await preparedDatabase();
    const leader = newLead(url);
    await startInTurn(leader);
    const epoch = leader.lead.epoch!;
    await onServer(
      url,
      "UPDATE hawser.bridge_lead SET epoch = epoch + 1, owner = 'another', beat = 0",
      "UPDATE hawser.bridge_fence SET epoch = epoch + 1",
    );
    expect(await fenceHeld(await executorSession(url), epoch)).toBe(false);
    leader.lead.refused();
    await eventually("it is deposed", () => leader.words().includes("deposed"));
    await eventually("the silent one is replaced", () => leader.lead.epoch !== undefined);
    expect(leader.words()).toEqual(["leading after a clean end", "deposed", "waiting", "leading"]);
    expect(leader.told[3]!.at - leader.told[1]!.at).toBeGreaterThan(3_900);
  });

  it("is taken again at once if a failover has lost its fence", async () => {
    const { url } = await preparedDatabase();
    const leader = newLead(url);
    await startInTurn(leader);
    const epoch = leader.lead.epoch!;
    await onServer(url, "UPDATE hawser.bridge_fence SET epoch = 0");
    leader.lead.refused();
    await eventually("it leads in another epoch", () => leader.lead.epoch !== undefined && leader.lead.epoch > epoch);
    expect(await fenceHeld(await executorSession(url), leader.lead.epoch!)).toBe(true);
  });
});

describe("a takeover", () => {
  it("waits for a batch of the last leader, and ends it if that takes too long", async () => {
    const { url } = await preparedDatabase();
    const [first, second] = [newLead(url), newLead(await limitedUrl(url))];
    await startInTurn(first, second);
    const batch = await executorSession(url);
    await batch.query("BEGIN");
    expect(await fenceHeld(batch, first.lead.epoch!)).toBe(true);
    const hanging = batch.query("SELECT pg_sleep(60)").catch((error: pg.DatabaseError) => error.code);
    const stoppedAt = performance.now();
    await first.lead.stop();
    expect(await hanging).toBe("57P01");
    await eventually("the other one leads", () => second.lead.epoch !== undefined);
    expect(second.told.at(-1)!.at - stoppedAt).toBeGreaterThan(900);
    expect(second.told.at(-1)!.at - stoppedAt).toBeLessThan(takeoverLimitMs);
    expect(second.log.messages("warn")).toContain("ended sessions in which functions of the last leader still ran");
  });

  it("ends the sessions of a login that serve was given, too, also where init has made none", async () => {
    const { url } = await preparedDatabase();
    await using own = await login(url, "IN ROLE hawser_executor");
    await onServer(url, "DELETE FROM hawser.executor_login", `GRANT ${own.role} TO hawser_bridge`);
    const [first, second] = [newLead(url), newLead(await limitedUrl(url))];
    await startInTurn(first, second);
    const batch = new pg.Client(own.url);
    batch.on("error", () => undefined);
    await batch.connect();
    await batch.query("BEGIN");
    expect(await fenceHeld(batch, first.lead.epoch!)).toBe(true);
    const hanging = batch.query("SELECT pg_sleep(60)").catch((error: pg.DatabaseError) => error.code);
    await first.lead.stop();
    expect(await hanging).toBe("57P01");
    await eventually("the other one leads", () => second.lead.epoch !== undefined);
  });

  it("ends nobody's session but the executor's, and says who is in the way", async () => {
    const { url } = await preparedDatabase();
    const [first, second] = [newLead(url), newLead(url)];
    await startInTurn(first, second);
    const stranger = new pg.Client(url);
    await stranger.connect();
    onTestFinished(() => stranger.end());
    await stranger.query("BEGIN; SELECT FROM hawser.bridge_fence FOR SHARE");
    await first.lead.stop();
    await eventually("it says so", () =>
      second.log.messages("warn").some((message) => message.includes("keep this process from leading")),
    );
    expect(second.lead.epoch).toBeUndefined();
    const { beat } = await leadRow(url);
    await eventually("it goes on beating", async () => (await leadRow(url))["beat"] !== beat);
    await stranger.query("COMMIT");
    await eventually("it leads", () => second.lead.epoch !== undefined);
  });

  it("replaces a process that was killed while its batch hangs: within 10 s, three times", async () => {
    const { url } = await preparedDatabase();
    const took: number[] = [];
    for (let round = 0; round < 3; round++) {
      const program = startProgram("test/bridge/lead/programs/leader.ts", [url], { stdin: "ignore" });
      onTestFinished(() => void program.child.kill("SIGKILL"));
      const epoch = BigInt(await program.firstLine);
      const standby = newLead(url);
      await standby.lead.start();
      await eventually("it knows of the leader", () => standby.progress.at(-1) !== undefined);
      const killedAt = performance.now();
      program.child.kill("SIGKILL");
      await eventually("it leads", () => standby.lead.epoch !== undefined);
      took.push(Math.round(standby.told.at(-1)!.at - killedAt));
      expect(standby.words()).toEqual(["waiting", "leading"]);
      expect(standby.lead.epoch).toBeGreaterThan(epoch);
      const hanging = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
      expect(await rowsOf(url, hanging)).toEqual([]);
      await standby.lead.stop();
    }
    console.log(`A killed leader whose batch hung was replaced after ${took.join(", ")} ms.`);
    // The median: a machine with other work has its worst moments.
    expect(took.sort((one, other) => one - other)[1]).toBeLessThan(takeoverLimitMs);
  });
});

describe("Postgres", () => {
  it("may restart: whoever led leads on, in the same epoch", async () => {
    await using server = await ownPostgres();
    await install({ databaseUrl: server.url });
    const leads = [newLead(server.url), newLead(server.url)];
    await startInTurn(...leads);
    const [leader, other] = leads as [(typeof leads)[0], (typeof leads)[0]];
    const { epoch } = leader.lead;
    for (const signal of ["SIGKILL", "SIGINT", "SIGKILL"] as const) {
      await server.kill(signal);
      await eventually("it is not sure any more", () => !leader.lead.isConfirmed);
      expect(leader.lead.epoch).toBe(epoch);
      await server.start();
      await eventually("it is sure again", () => leader.lead.isConfirmed);
      const seen = other.progress.length;
      await eventually("the other one sees it", () => other.progress.length > seen + 5);
    }
    expect(leader.lead.epoch).toBe(epoch);
    expect([leader.words(), other.words()]).toEqual([["leading after a clean end"], ["waiting"]]);
  });

  it("may hang for longer than a leader may be silent: whoever led leads on", async () => {
    await using server = await ownPostgres();
    await install({ databaseUrl: server.url });
    const leads = [newLead(server.url), newLead(server.url)];
    await startInTurn(...leads);
    const { epoch } = leads[0]!.lead;
    server.freeze();
    await eventually("it is not sure any more", () => !leads[0]!.lead.isConfirmed);
    const frozenAt = performance.now();
    const { lines } = leads[1]!.log;
    await eventually("others have tried again and again, for longer than that", () => {
      const tries = lines.filter(({ message }) => message.includes("is not known")).length;
      return tries >= 3 && performance.now() - frozenAt > bridgeConstants.leadExpiryMs;
    });
    server.resume();
    await eventually("it is sure again", () => leads[0]!.lead.isConfirmed);
    const seen = leads[1]!.progress.length;
    await eventually("the other one sees it", () => leads[1]!.progress.length > seen + 5);
    expect([leads[0]!.lead.epoch, leads[1]!.lead.epoch]).toEqual([epoch, undefined]);
  });

  it("has no leader while it is a standby, and one when it was promoted", async () => {
    await using servers = await startPrimaryAndStandby();
    await install({ databaseUrl: servers.primary.url });
    await servers.caughtUp();
    const onPrimary = newLead(servers.primary.url);
    await startInTurn(onPrimary);
    const onStandby = newLead(servers.standby.url);
    await onStandby.lead.start();
    await servers.caughtUp();
    const epoch = onPrimary.lead.epoch!;
    expect(onStandby.words()).toEqual([]);
    await servers.primary.kill("SIGKILL");
    await servers.promote();
    const promotedAt = performance.now();
    await eventually("it leads", () => onStandby.lead.epoch !== undefined);
    expect(onStandby.told.at(-1)!.at - promotedAt).toBeLessThan(takeoverLimitMs);
    expect(onStandby.lead.epoch).toBeGreaterThan(epoch);
    expect(onStandby.words()).toEqual(["waiting", "leading"]);
  });
});

describe("pausing", () => {
  it("ends leading, and resuming begins it again", async () => {
    const { url } = await preparedDatabase();
    const one = newLead(url);
    await startInTurn(one);
    const { epoch } = one.lead;
    one.lead.pause();
    expect([one.lead.epoch, one.words().at(-1)]).toEqual([undefined, "deposed"]);
    one.lead.resume();
    await eventually("it leads again", () => one.lead.epoch !== undefined);
    expect(one.lead.epoch).toBeGreaterThan(epoch!);
  });
});
