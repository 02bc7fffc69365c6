/**
 * Leads whose process is killed, and whose Postgres is killed, hangs, or is replaced by its standby.
 */
import { describe, expect, it } from "vitest";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { install } from "../../../src/operating/installation/index.js";
import { ownPostgres } from "../../faults/support/own-postgres.js";
import { eventually } from "../../support/eventually.js";
import { rowsOf } from "../../support/on-server.js";
import { startProgram } from "../../support/program.js";
import { startPrimaryAndStandby } from "../../support/standby.js";
import { leads, newLead, ownDatabase, startInTurn } from "./support.js";

describe.concurrent("leadership", () => {
  it("of a process that was killed while its batch hangs is taken over, three times", async (test) => {
    const took: number[] = [];
    const round = async () => {
      const url = await ownDatabase(test);
      const program = startProgram("test/bridge/leadership/programs/leader.ts", [], {
        stdin: "ignore",
        env: { HAWSER_DATABASE_URL: url },
      });
      test.onTestFinished(() => void program.child.kill("SIGKILL"));
      const epoch = BigInt(await program.firstLine);
      const standby = newLead(test, url);
      await standby.lead.start();
      await eventually("it knows of the leader", () => standby.progress.at(-1) !== undefined);
      const killedAt = performance.now();
      program.child.kill("SIGKILL");
      await leads(standby);
      took.push(Math.round(standby.told.at(-1)!.at - killedAt));
      expect(standby.words()).toEqual(["waiting", "leading"]);
      expect(standby.lead.epoch).toBeGreaterThan(epoch);
      const hanging = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
      expect(await rowsOf(url, hanging)).toEqual([]);
    };
    await Promise.all([round(), round(), round()]);
    console.log(`A killed leader whose batch hung was replaced after ${took.join(", ")} ms.`);
  });

  it("goes on in the same epoch when Postgres is restarted", async (test) => {
    await using server = await ownPostgres();
    await install({ databaseUrl: server.url });
    const [leader, other] = [newLead(test, server.url), newLead(test, server.url)];
    await startInTurn(leader, other);
    const { epoch } = leader.lead;
    for (const signal of ["SIGKILL", "SIGINT"] as const) {
      await server.kill(signal);
      await eventually("it is not sure any more", () => leader.lead.state !== "held");
      expect(leader.lead.epoch).toBe(epoch);
      await server.start();
      await eventually("it is sure again", () => leader.lead.state === "held");
      const seen = other.progress.length;
      await eventually("the other one sees it", () => other.progress.length > seen + 5);
    }
    expect(leader.lead.epoch).toBe(epoch);
    expect([leader.words(), other.words()]).toEqual([["leading after a clean end"], ["waiting"]]);
    await Promise.all([leader.lead.stop(), other.lead.stop()]);
  });

  it("goes on when Postgres hangs for longer than a leader may be silent", async (test) => {
    await using server = await ownPostgres();
    await install({ databaseUrl: server.url });
    const [leader, other] = [newLead(test, server.url), newLead(test, server.url)];
    await startInTurn(leader, other);
    const { epoch } = leader.lead;
    server.freeze();
    await eventually("it is not sure any more", () => leader.lead.state !== "held");
    const frozenAt = performance.now();
    await eventually("others have tried again and again, for longer than that", () => {
      const tries = other.log.lines.filter(({ message }) =>
        message.includes("cannot find out which process is the leader"),
      ).length;
      return tries >= 3 && performance.now() - frozenAt > bridgeConstants.leaderExpiryMs;
    });
    server.resume();
    await eventually("it is sure again", () => leader.lead.state === "held");
    const seen = other.progress.length;
    await eventually("the other one sees it", () => other.progress.length > seen + 5);
    expect([leader.lead.epoch, other.lead.epoch]).toEqual([epoch, undefined]);
    await Promise.all([leader.lead.stop(), other.lead.stop()]);
  });

  it("is nobody's on a standby, and somebody's when that was promoted", async (test) => {
    await using servers = await startPrimaryAndStandby();
    await install({ databaseUrl: servers.primary.url });
    await servers.caughtUp();
    const onPrimary = newLead(test, servers.primary.url);
    await startInTurn(onPrimary);
    const onStandby = newLead(test, servers.standby.url);
    await onStandby.lead.start();
    await servers.caughtUp();
    const epoch = onPrimary.lead.epoch!;
    expect(onStandby.words()).toEqual([]);
    await servers.primary.kill("SIGKILL");
    await servers.promote();
    await leads(onStandby);
    expect(onStandby.lead.epoch).toBeGreaterThan(epoch);
    expect(onStandby.words()).toEqual(["waiting", "leading"]);
  });
});
