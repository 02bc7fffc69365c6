/**
 * A replica is told to be one, and is no fault.
 */
import { expect, it } from "vitest";
import { doctor } from "../../src/doctor/index.js";
import { Serve } from "../../src/serve/index.js";
import { install } from "../../src/store/index.js";
import { testNatsUrl } from "../support/database.js";
import { onServer } from "../support/on-server.js";
import { startPrimaryAndStandby } from "../support/standby.js";
import { onlyFinding } from "./support/system.js";

it("notes that a server is a replica, and finds nothing else there", async () => {
  await using servers = await startPrimaryAndStandby();
  const { primary, standby } = servers;
  await install({ databaseUrl: primary.url });
  const { hostname: host, port } = new URL(testNatsUrl());
  await onServer(primary.url, `SELECT hawser.set_nats_server('{"host": "${host}", "port": "${port}"}')`);
  await using _serve = await Serve.start({ databaseUrl: primary.url, gatewayListen: "127.0.0.1:0" });
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
