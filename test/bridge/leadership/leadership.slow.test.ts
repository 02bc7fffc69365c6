/**
 * Leading on a real Postgres: several processes' leads, each with a session of its own. The tests wait for beats most of
 * the time, so that they run side by side.
 */
import { describe, expect, it } from "vitest";
import { login } from "../../installation/support/logins.js";
import { eventually } from "../../support/eventually.js";
import { onServer, rowsOf } from "../../support/on-server.js";
import {
  executorSession,
  fenceHeld,
  hangingBatch,
  knowsProgress,
  leads,
  limitedUrl,
  newLead,
  ownDatabase,
  session,
  startInTurn,
} from "./support.js";

const leadRow = async (databaseUrl: string) =>
  (await rowsOf(databaseUrl, "SELECT epoch, owner, beat, progress_at FROM hawser.bridge_lead"))[0]!;

const waitsForFence = `SELECT pid FROM pg_stat_activity WHERE datname = current_database()
  AND application_name = 'hawser serve: lead' AND wait_event_type = 'Lock'`;

describe.concurrent("leadership", () => {
  it("belongs to one process, which sends heartbeats and reports its progress", async (test) => {
    const url = await ownDatabase(test);
    const all = [newLead(test, url), newLead(test, url), newLead(test, url)];
    await Promise.all(all.map(({ lead }) => lead.start()));
    await eventually(
      "one leads, and the others know it",
      () => all.every(({ told }) => told.length > 0) && all.filter(({ lead }) => lead.epoch !== undefined).length === 1,
    );
    const leader = all.find(({ lead }) => lead.epoch !== undefined)!;
    await eventually("it is sure", () => leader.lead.state === "held");
    const { epoch, owner } = await leadRow(url);
    expect(
      leader.log.lines.find(({ message }) => message === "became the leader of the subscriptions")!.details,
    ).toMatchObject({
      epoch: BigInt(epoch as string),
      owner,
    });
    const client = await executorSession(test, url);
    expect(await fenceHeld(client, leader.lead.epoch!)).toBe(true);
    expect(await fenceHeld(client, leader.lead.epoch! - 1n)).toBe(false);
    const other = all.find((one) => one !== leader)!;
    // Processes of one machine have the same clock, so that the bounds can be compared.
    const age = (since: number) => since - (other.progress.at(-1) ?? Number.NEGATIVE_INFINITY);
    await eventually("its progress is known", () => age(performance.now()) < 4_000);
    expect(age(performance.now())).toBeGreaterThan(0);
    const stuckAt = performance.now();
    leader.messages.oldest = stuckAt;
    const seen = other.progress.length;
    // What it knows is no more exact than how long Postgres takes to answer.
    await eventually("three more readings", () => other.progress.length >= seen + 3 && age(stuckAt) < 1_000);
    expect(Math.max(...other.progress.slice(seen).map((bound) => bound ?? 0))).toBeLessThanOrEqual(stuckAt);
    expect(all.map(({ words }) => words().join()).sort()).toEqual(["leading after a clean end", "waiting", "waiting"]);
  });

  it("passes on at once when it is released", async (test) => {
    const url = await ownDatabase(test);
    for (let round = 0; round < 2; round++) {
      const [first, second] = [newLead(test, url), newLead(test, url)];
      await startInTurn(first, second);
      const { epoch } = first.lead;
      expect([epoch !== undefined, second.lead.epoch]).toEqual([true, undefined]);
      await knowsProgress(second);
      await first.lead.stop();
      await leads(second);
      expect(second.words()).toEqual(["waiting", "leading after a clean end"]);
      expect(second.lead.epoch).toBeGreaterThan(epoch!);
      expect(first.words()).toEqual(["leading after a clean end"]);
      await second.lead.stop();
    }
  });

  it("is taken first by processes that have the unfinished messages", async (test) => {
    const url = await ownDatabase(test);
    const leader = newLead(test, url);
    const lacking = newLead(test, url, { completeSince: Number.POSITIVE_INFINITY });
    const complete = newLead(test, url);
    await startInTurn(leader, lacking, complete);
    await knowsProgress(complete);
    await leader.lead.stop();
    await leads(complete);
    await complete.lead.stop();
    // Nobody else is left: so that it has to be.
    await leads(lacking);
  });

  it("is lost to the process that took it while this one was suspended, whose batches are refused then", async (test) => {
    const url = await ownDatabase(test);
    const leader = newLead(test, url);
    await startInTurn(leader);
    const epoch = leader.lead.epoch!;
    await onServer(
      url,
      "UPDATE hawser_data.owners SET epoch = epoch + 1, owner = 'another', beat = 0 WHERE what = 'serve'",
      "UPDATE hawser_data.fences SET epoch = epoch + 1 WHERE what = 'serve'",
    );
    expect(await fenceHeld(await executorSession(test, url), epoch)).toBe(false);
    leader.lead.poke();
    await eventually("it is deposed", () => leader.words().includes("deposed"));
    await leads(leader);
    expect(leader.words()).toEqual(["leading after a clean end", "deposed", "waiting", "leading"]);
    expect(leader.told[3]!.at - leader.told[1]!.at).toBeGreaterThan(3_900);
  });

  it("is taken again at once if a failover has lost its fence", async (test) => {
    const url = await ownDatabase(test);
    const leader = newLead(test, url);
    await startInTurn(leader);
    const epoch = leader.lead.epoch!;
    await onServer(url, "UPDATE hawser_data.fences SET epoch = 0 WHERE what = 'serve'");
    leader.lead.poke();
    await eventually("it leads in another epoch", () => leader.lead.epoch !== undefined && leader.lead.epoch > epoch);
    expect(await fenceHeld(await executorSession(test, url), leader.lead.epoch!)).toBe(true);
  });
});

describe.concurrent("a takeover", () => {
  it("waits for a batch of the previous leader, and ends it if that takes too long", async (test) => {
    const url = await ownDatabase(test);
    const [first, second] = [newLead(test, url), newLead(test, await limitedUrl(test, url))];
    await startInTurn(first, second);
    const { ended } = await hangingBatch(await executorSession(test, url), first.lead.epoch!);
    await first.lead.stop();
    expect(await ended).toBe("57P01");
    await leads(second);
    expect(second.log.messages("warn")).toContain("ended sessions that still ran functions of the previous leader");
  });

  it("ends the sessions of a login that serve was given, too, also where init has made none", async (test) => {
    const url = await ownDatabase(test);
    const own = await login(url, "IN ROLE hawser_executor");
    test.onTestFinished(() => own[Symbol.asyncDispose]());
    await onServer(url, "DELETE FROM hawser_bridge_data.executor_login", `GRANT ${own.role} TO hawser_bridge`);
    const [first, second] = [newLead(test, url), newLead(test, await limitedUrl(test, url))];
    await startInTurn(first, second);
    const { ended } = await hangingBatch(await session(test, own.url), first.lead.epoch!);
    await first.lead.stop();
    expect(await ended).toBe("57P01");
    await leads(second);
  });

  it("ends nobody's session but the executor's, and says who blocks it", async (test) => {
    const url = await ownDatabase(test);
    const [first, second] = [newLead(test, url), newLead(test, url)];
    await startInTurn(first, second);
    const stranger = await session(test, url);
    await stranger.query("BEGIN; SELECT FROM hawser_data.fences WHERE what = 'serve' FOR SHARE");
    await first.lead.stop();
    await eventually("it says so", () =>
      second.log.messages("warn").some((message) => message.includes("cannot become the leader yet")),
    );
    expect(second.lead.epoch).toBeUndefined();
    const { beat } = await leadRow(url);
    await eventually("it goes on beating", async () => (await leadRow(url))["beat"] !== beat);
    await stranger.query("COMMIT");
    await leads(second);
  });

  it.for([
    ["has ended in good order", true],
    ["was killed", false],
  ] as const)("that is stopped before it leads still knows that the leader before %s", async ([, isCleanEnd], test) => {
    const url = await ownDatabase(test);
    const [first, second] = [newLead(test, url), newLead(test, url)];
    if (isCleanEnd) await startInTurn(first);
    else
      await onServer(
        url,
        "UPDATE hawser_data.owners SET owner = 'gone', epoch = epoch + 1, beat = 1 WHERE what = 'serve'",
      );
    await startInTurn(second);
    const stranger = await session(test, url);
    await stranger.query("BEGIN; SELECT FROM hawser_data.fences WHERE what = 'serve' FOR SHARE");
    await first.lead.stop();
    await eventually("it waits for the fence", async () => (await rowsOf(url, waitsForFence)).length === 1);
    expect(await second.lead.othersHave(new AbortController().signal)).toEqual({
      until: Number.NEGATIVE_INFINITY,
      afterCleanEnd: isCleanEnd,
    });
  });

  it("that restarts with another session still knows that the previous leader has ended gracefully", async (test) => {
    const url = await ownDatabase(test);
    const [first, second] = [newLead(test, url), newLead(test, url)];
    await startInTurn(first, second);
    const stranger = await session(test, url);
    await stranger.query("BEGIN; SELECT FROM hawser_data.fences WHERE what = 'serve' FOR SHARE");
    await first.lead.stop();
    const endSession = `SELECT pg_terminate_backend(w.pid) FROM (${waitsForFence}) AS w`;
    await eventually("it waits for the fence", async () => (await rowsOf(url, endSession)).length === 1);
    await stranger.query("COMMIT");
    await leads(second);
    expect(second.words()).toEqual(["waiting", "leading after a clean end"]);
  });
});
