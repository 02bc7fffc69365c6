/**
 * The role of real servers: promoted, demoted, stopped, hanging.
 */

import { chownSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { serverAccount } from "../../../src/development/dev/server-process.js";
import { type PostgresRole, RoleWatch, type ServerAddress } from "../../../src/nats/bridge/role/index.js";
import { roleReadTimeoutMs } from "../../../src/nats/bridge/role/role-watch.js";
import { type OwnPostgres, ownPostgres } from "../../faults/support/own-postgres.js";
import { startProxy } from "../../store/support/proxy.js";
import { eventually } from "../../support/eventually.js";
import { rowsOf } from "../../support/on-server.js";
import { startPrimaryAndStandby } from "../../support/standby.js";
import { noTimersAbove } from "../../support/timers.js";
import { keptLog } from "./log.js";
import { watchedSession, watchRole } from "./watched-role.js";

const unknownLine = "cannot find out whether Postgres is a primary or a standby";

const addressOf = ({ url }: OwnPostgres): ServerAddress => ({
  addresses: ["127.0.0.1"],
  port: Number(new URL(url).port),
});

/** A server that recovers as a standby from its next start on, though it has nobody to stream from. */
function makeStandbyOf({ dataDirectory }: OwnPostgres): void {
  const signal = join(dataDirectory, "standby.signal");
  writeFileSync(signal, "");
  const account = serverAccount();
  if (account !== undefined) chownSync(signal, account.uid, account.gid);
}

describe("the role of Postgres", () => {
  it("sees a promotion, and a demotion when the server answers again", async (test) => {
    await using servers = await startPrimaryAndStandby();
    const { primary, standby } = servers;
    const { told, roles } = await watchRole(test, standby.url);
    expect(roles()).toEqual(["standby"]);

    await primary.kill("SIGKILL");
    await servers.promote();
    await eventually("the promotion is seen", () => roles().length === 2);
    expect(told[1]).toMatchObject({ role: "primary", address: addressOf(standby) });

    await standby.kill("SIGINT");
    makeStandbyOf(standby);
    await standby.start();
    await eventually("the demotion is seen", () => roles().at(-1) === "standby");
    // Unless the restart was too quick for a reading to fail, it is unknown in between.
    expect(roles().filter((role) => role !== "unknown")).toEqual(["standby", "primary", "standby"]);
  });

  it("is unknown while Postgres is unavailable, also one that hangs, and while it is not there at first", async (test) => {
    await using server = await ownPostgres();
    const { url } = server;
    const { told, roles, log } = await watchRole(test, url);
    expect(told).toMatchObject([{ role: "primary", address: addressOf(server) }]);
    await server.kill("SIGKILL");
    await eventually("it is unknown", () => roles().at(-1) === "unknown");
    expect(told.at(-1)!.address).toBeUndefined();
    await eventually("the same problem again is no news", () => log.messages("debug").includes(unknownLine));
    const warned = log.lines.filter(({ level, message }) => level === "warn" && message === unknownLine);
    expect(new Set(warned.map(({ details }) => JSON.stringify(details))).size).toBe(warned.length);
    expect(warned.length).toBeGreaterThan(0);

    const late = await watchRole(test, url);
    expect(late.watch.role).toBe("unknown");
    expect(late.roles()).toEqual([]);

    await server.start();
    const areKnown = () => roles().length === 3 && late.roles().length === 1;
    await eventually("it is known again", areKnown);

    server.freeze();
    await eventually("it is unknown as long as it hangs", () => roles().length === 4);
    server.resume();
    await eventually("it is known when it goes on", () => roles().length === 5);
    expect(roles()).toEqual(["primary", "unknown", "primary", "unknown", "primary"]);
  });

  it("reports another server that answers at the same address, and its listen address", async (test) => {
    await using servers = await startPrimaryAndStandby();
    const { primary, standby } = servers;
    await using proxy = await startProxy(primary.url);
    const { told } = await watchRole(test, proxy.url);
    const lead = async (url: string) => {
      const before = told.length;
      proxy.leadTo(url);
      proxy.cut();
      await eventually("the change is seen", () => told.length > before);
    };
    await lead(standby.url);
    await servers.promote();
    await eventually("the promotion is seen", () => told.length === 3);
    await lead(primary.url);
    expect(told).toMatchObject([
      { role: "primary", address: addressOf(primary) },
      { role: "standby", address: addressOf(standby) },
      { role: "primary", address: addressOf(standby) },
      { role: "primary", address: addressOf(primary) },
    ]);
  });

  it("goes on when what follows the role fails", async (test) => {
    await using server = await ownPostgres();
    const { roles, log } = await watchRole(test, server.url, () => {
      throw new Error("a defect");
    });
    await server.kill("SIGKILL");
    await eventually("the next change is told", () => roles().length === 2);
    expect(log.messages("error")).toEqual(Array(2).fill("the handler of a role change failed"));
  });

  it("reports nothing after it was stopped, also while a query hangs, and leaves no session", async (test) => {
    await using server = await ownPostgres();
    const { stop, roles } = await watchRole(test, server.url);
    server.freeze();
    const others: PostgresRole[] = [];
    // A stop does not wait for the time limit of a reading.
    noTimersAbove(roleReadTimeoutMs - 1);
    for (let round = 0; round < 2; round++) {
      const { logger } = keptLog();
      const session = watchedSession(server.url, logger, () => hanging.sessionLost());
      const hanging = new RoleWatch({ session, logger, onRole: (role) => others.push(role) });
      const started = hanging.run();
      hanging.stop();
      await session.close();
      await started;
    }
    expect(others).toEqual([]);
    server.resume();
    await stop();
    await eventually("the session is gone", async () => {
      const rows = await rowsOf(
        server.url,
        "SELECT FROM pg_stat_activity WHERE application_name = 'hawser serve: lead'",
      );
      return rows.length === 0;
    });
    expect(roles()).toEqual(["primary"]);
  });
});
