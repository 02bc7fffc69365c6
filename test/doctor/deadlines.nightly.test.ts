/**
 * Time limits of checks: servers that do not answer are named after the time in the spec; a replica is reported as one.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bridgeConstants } from "../../generated/ts/settings/nats.js";
import { serve as startServer } from "../../src/nats/serve/index.js";
import { doctor } from "../../src/operating/doctor/index.js";
import { install } from "../../src/operating/installation/index.js";
import { hawser } from "../cli/support/hawser.js";
import type { OwnPostgres } from "../faults/support/own-postgres.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { onServer } from "../support/on-server.js";
import { startPrimaryAndStandby } from "../support/standby.js";
import { silentServer } from "./support/silent-server.js";
import { found, onlyFinding, postgresWithPasswords, startSystem, subscribing } from "./support/system.js";

let postgres: OwnPostgres;

beforeAll(async () => {
  postgres = await postgresWithPasswords();
});
afterAll(async () => {
  await postgres?.[Symbol.asyncDispose]();
});

it("a Postgres that does not answer", async () => {
  await using system = await startSystem(postgres, { serve: false });
  postgres.freeze();
  try {
    expect(onlyFinding(await system.examine()).what).toContain("did not answer within 5000 ms");
  } finally {
    postgres.resume();
  }
});

// Each has a database of its own, and waits most of the time.
describe.concurrent("side by side,", () => {
  it("messages that cannot be counted because somebody holds a lock", async () => {
    await using system = await startSystem(postgres);
    const holder = new pg.Client(system.superuserUrl);
    await holder.connect();
    try {
      await holder.query("BEGIN; LOCK TABLE hawser_peer_data.stored_messages IN ACCESS EXCLUSIVE MODE");
      const report = await system.examine();
      expect(found(report)).toEqual([{ check: "stored-messages", severity: "error", code: "store_failed" }]);
      expect(report.findings[0]!.what).toContain("statement timeout");
    } finally {
      await holder.end();
    }
  });

  it("a gateway that takes connections and does not answer", async () => {
    await using system = await startSystem(postgres, { serve: false });
    await using hanging = await silentServer();
    await system.run(`INSERT INTO hawser_bridge_data.gateways (host, port) VALUES ('127.0.0.1', ${hanging.port})`);
    const finding = onlyFinding(await system.examine());
    expect(finding).toMatchObject({ check: "gateway", code: "gateway_unavailable" });
  });

  // The command has the standard output and the environment of this process.
  it.sequential("a NATS that hangs, also for the command", async () => {
    await using nats = await startNatsServer();
    await using system = await startSystem(postgres, { natsUrl: nats.url });
    nats.signal("SIGSTOP");
    const { status, stdout } = await hawser(["doctor"], { databaseUrl: system.url });
    // The gateway has not noticed yet, or has: then it says so.
    expect([0, 1]).toContain(status);
    expect(stdout).toMatch(
      /Not checked: nats-permissions: this machine has no connection to NATS|Not checked until `(gateway|nats)` is in order: .*nats-permissions|Not checked: nats-permissions: looked at when/,
    );
    await system.run(`REVOKE hawser_nats FROM ${system.login}`);
    expect(onlyFinding(await system.examine())).toMatchObject({ check: "nats", code: "nats_unavailable" });
    nats.signal("SIGCONT");
  });

  it("a NATS that went down; who leads is not told as well", async () => {
    await using nats = await startNatsServer();
    await using system = await startSystem(postgres, { natsUrl: nats.url });
    await system.run(...subscribing("doctor.down"));
    await system.led();
    await nats.kill();
    await eventually("the gateway has noticed it", async () => !(await system.examine()).ok);
    for (const login of ["in hawser_nats", "in hawser_bridge alone"]) {
      if (login !== "in hawser_nats") await system.run(`REVOKE hawser_nats FROM ${system.login}`);
      const finding = onlyFinding(await system.examine());
      expect(finding).toMatchObject({ check: "nats", severity: "error", code: "nats_unavailable" });
      expect(finding.what).toContain(`127.0.0.1:${nats.port}`);
    }
  });

  it("a leader that does not beat", async () => {
    await using system = await startSystem(postgres);
    await system.run(...subscribing(`doctor.${system.name}`));
    await system.led();
    const holder = new pg.Client(system.superuserUrl);
    await holder.connect();
    try {
      await holder.query("BEGIN; SELECT FROM hawser_data.owners WHERE what = 'serve' FOR UPDATE");
      const finding = onlyFinding(await system.examine());
      expect(finding).toMatchObject({ check: "leader", severity: "error" });
      expect(finding.what).toMatch(/^the last leader \(\S+\) has sent no heartbeat for \d+ ms/);
      expect(finding.what).toContain(` ${bridgeConstants.leaderExpiryMs} ms`);
      expect(finding.what).toContain("the functions of 1 subscription are not called");
    } finally {
      await holder.end();
    }
  });

  it("notes that a server is a standby, and finds nothing else there", async () => {
    await using servers = await startPrimaryAndStandby();
    const { primary, standby } = servers;
    await install({ databaseUrl: primary.url });
    const { hostname: host, port } = new URL(testNatsUrl());
    await onServer(primary.url, `SELECT hawser.set_nats_server('{"host": "${host}", "port": "${port}"}')`);
    await using _serve = await startServer({ databaseUrl: primary.url, listen: "127.0.0.1:0" });
    // By then it has connected.
    await onServer(primary.url, "SELECT litmus_pgnats_reload_conf()");
    await servers.caughtUp();
    expect((await doctor({ databaseUrl: primary.url, secretsDirectories: [] })).findings).toEqual([]);
    const report = await doctor({ databaseUrl: standby.url, secretsDirectories: [] });
    const finding = onlyFinding(report);
    expect(finding).toMatchObject({ check: "replica", severity: "note" });
    expect(finding.what).toContain("subscriptions and responders run on the primary only");
    expect(report.ok).toBe(true);
  });
});
