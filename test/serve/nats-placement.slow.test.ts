/**
 * Processes of one database on different NATS servers.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type HawserServer, serve } from "../../src/nats/serve/index.js";
import { doctor } from "../../src/operating/doctor/index.js";
import { eventually } from "../support/eventually.js";
import { defineServer, type TestGateway, testGateway } from "../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";

let servers: readonly TestNatsServer[];
beforeAll(async () => {
  servers = await Promise.all([startNatsServer(), startNatsServer(), startNatsServer()]);
});
afterAll(async () => {
  for (const server of servers ?? []) await server[Symbol.asyncDispose]();
});

/** A database with one process, whose definition names these hosts. */
function gatewayAt(hosts: readonly string[]): Promise<TestGateway> {
  return testGateway({ natsUrl: servers[0]!.url, serverOptions: { host: hosts.join(",") } });
}

const another = (gateway: TestGateway): Promise<HawserServer> =>
  serve({ databaseUrl: gateway.database.url, listen: "127.0.0.1:0" });

/** NATS servers of the processes, as these report them. */
async function standing(gateway: TestGateway): Promise<(string | null)[]> {
  const { rows } = await gateway.client.query<{ nats_server: string | null }>(
    "SELECT nats_server FROM hawser_bridge_data.gateways ORDER BY nats_server",
  );
  return rows.map(({ nats_server }) => nats_server);
}

/** Resolves when that many say where they stand. */
async function allStand(gateway: TestGateway, count: number): Promise<string[]> {
  let all: (string | null)[] = [];
  await eventually("all stand somewhere", async () => {
    all = await standing(gateway);
    return all.length === count && !all.includes(null);
  });
  return all as string[];
}

describe("processes of one database", () => {
  it("that start one after the other stand on different servers, and doctor is content", async () => {
    const hosts = servers.map(({ host, port }) => `${host}:${port}`);
    await using gateway = await gatewayAt(hosts);
    await allStand(gateway, 1);
    await using _second = await another(gateway);
    expect(new Set(await allStand(gateway, 2)).size).toBe(2);
    await using _third = await another(gateway);
    expect(await allStand(gateway, 3)).toEqual([...hosts].sort());
    const { findings } = await doctor({ databaseUrl: gateway.database.url, secretsDirectories: [] });
    expect(findings.filter(({ check }) => check === "nats")).toEqual([]);
  });

  it("that all stand on one server are told of by doctor if the others are away, with the remedy, and not if it is the only one", async () => {
    const [{ host, port }] = servers as [TestNatsServer];
    await using gateway = await gatewayAt([`${host}:${port}`, "127.0.0.1:1"]);
    await using _second = await another(gateway);
    expect(await allStand(gateway, 2)).toEqual([`${host}:${port}`, `${host}:${port}`]);
    const { findings } = await doctor({ databaseUrl: gateway.database.url, secretsDirectories: [] });
    const [finding] = findings.filter(({ check }) => check === "nats");
    expect(finding).toMatchObject({ severity: "warning" });
    expect(finding?.what).toContain(
      `all 2 processes of \`hawser serve\` are connected to the same NATS server, ${host}:${port}`,
    );
    expect(finding?.remedy).toContain("127.0.0.1:1");

    // Nor can they stand elsewhere where only one server is named.
    await defineServer(gateway.client, `nats://${host}:${port}`);
    const { findings: none } = await doctor({ databaseUrl: gateway.database.url, secretsDirectories: [] });
    expect(none.filter(({ check }) => check === "nats")).toEqual([]);
  });
});
