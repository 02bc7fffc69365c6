/**
 * Number of replicas of the buckets and stores that SQL functions create.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import type { DatabaseError } from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../../support/eventually.js";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { startNatsCluster, type TestNatsCluster } from "../../support/nats-cluster.js";
import { startNatsServer } from "../../support/nats-server.js";
import { bytesOf, failureOf, operationsOf, timeoutMs } from "./operations-of.js";

const refusal =
  "needs to create it with replicas '3', which NATS refused: replicas > 1 not supported in non-clustered mode.";

it("more than one is refused by a server without a cluster, unless the bucket or store exists", async () => {
  await using server = await startNatsServer({ jetStream: true });
  await using used = await operationsOf(server.url);
  const { keyValue, objectStores } = used.operations;
  const three = { timeoutMs, replicas: 3 };
  for (const put of [
    () => keyValue.put("b", "k", bytesOf(1), three),
    () => objectStores.put("s", "f", bytesOf(1), three),
  ]) {
    const error = await failureOf("nats_failed", put);
    expect(error.message).toContain(refusal);
    expect(error.remedy).toContain("Set option replicas");
  }
  await keyValue.put("b", "k", bytesOf(1), { timeoutMs });
  await objectStores.put("s", "f", bytesOf(1), { timeoutMs, replicas: 1 });
  await using another = await operationsOf(server.url);
  expect(await another.operations.keyValue.put("b", "k", bytesOf(2), three)).toBe(2n);
  await another.operations.objectStores.put("s", "f", bytesOf(2), three);
});

describe("in a cluster of three", () => {
  let cluster: TestNatsCluster;
  let gateway: TestGateway;
  beforeAll(async () => {
    cluster = await startNatsCluster(3, { jetStream: true });
    gateway = await testGateway({
      natsUrl: cluster.servers[0]!.url,
      serverOptions: { host: cluster.host, replicas: "3" },
    });
    await eventually("JetStream has a leader", () =>
      jetstreamManager(gateway.nats).then(
        () => true,
        () => false,
      ),
    );
  });
  afterAll(async () => {
    await gateway?.[Symbol.asyncDispose]();
    await cluster?.[Symbol.asyncDispose]();
  });

  /** Repeats a question while the cluster has no leader, which a busy machine may cost it at any time. */
  const led = async <T>(what: string, ask: () => Promise<T>): Promise<T> => {
    let found: T | undefined;
    await eventually(`JetStream answers ${what}`, async () => {
      try {
        found = await ask();
        return true;
      } catch (error) {
        if (["NA001", "NA004", 10008, 10009].includes((error as { code: string | number }).code)) return false;
        throw error;
      }
    });
    return found as T;
  };
  const value = (sql: string) => led(sql, () => gateway.value(sql));
  const replicasOf = (stream: string): Promise<number> =>
    led(`the information of ${stream}`, async () => {
      const { streams } = await jetstreamManager(gateway.nats, { checkAPI: false });
      return (await streams.info(stream)).config.num_replicas;
    });

  const setReplicas = async (replicas: number): Promise<void> => {
    await gateway.client.query("SELECT hawser.set_nats_server($1)", [JSON.stringify({ host: cluster.host, replicas })]);
    await gateway.value("SELECT litmus_pgnats_reload_conf()");
  };

  it("SQL makes buckets and stores with option replicas, and those that are there keep theirs", async () => {
    await setReplicas(3);
    await value("SELECT nats_put_text('b', 'k', 'one')");
    await value("SELECT nats_put_file('s', 'f', 'one')");
    expect([await replicasOf("KV_b"), await replicasOf("OBJ_s")]).toEqual([3, 3]);

    await setReplicas(2);
    await value("SELECT nats_put_text('b', 'k', 'two')");
    await value("SELECT nats_put_text('c', 'k', 'one')");
    expect([await replicasOf("KV_b"), await replicasOf("KV_c")]).toEqual([3, 2]);
  });

  it("more than it has servers are refused, and the error says so", async () => {
    await setReplicas(5);
    const error = await value("SELECT nats_put_text('five', 'k', 'one')").then(
      () => expect.fail("five of three servers were accepted"),
      (refused: DatabaseError) => refused,
    );
    expect(error.message).toContain("with replicas '5', which NATS refused: no suitable peers for placement");
    expect(error.hint).toContain("at most the number of JetStream servers in its cluster");
  });
});
