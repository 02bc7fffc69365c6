/**
 * The queries of the dashboards, by a Prometheus that scrapes a server and peers, and their pages by promtool: both take a while
 * to fetch.
 */
import { spawnSync } from "node:child_process";
import { expect, it } from "vitest";
import { Reject } from "../../src/jobs-and-peers/peer/index.js";
import { gate } from "../peer/support/gate.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { dashboard, expressionsOf } from "../support/dashboards.js";
import { eventually } from "../support/eventually.js";
import { testGateway } from "../support/gateway.js";
import { toolOrSkip } from "../support/kept.js";
import { servePeerMetrics, startPrometheus, type TestPrometheus } from "../support/prometheus.js";
import { findPrometheus, findPromtool } from "../support/promtool.js";

const programs = await toolOrSkip(Promise.all([findPrometheus(), findPromtool()]), "The queries of dashboards");

const world = sharedPeerWorld();

/** Asks promtool what it has against a page of metrics. */
async function check(target: string): Promise<void> {
  const page = await (await fetch(`http://${target}/metrics`)).text();
  const { stdout, stderr } = spawnSync(programs![1], ["check", "metrics"], { input: page, encoding: "utf8" });
  // Gauges of the process have names of prom-client that promtool does not like.
  const complaints = `${stdout}${stderr}`.split("\n").filter((line) => !/^(nodejs_\w+ .*)?$/.test(line));
  expect(complaints).toEqual([]);
}

/**
 * Runs all queries of a dashboard, again and again until only `empty` have no result, and `provoke` before each time.
 *
 * @param empty metrics without a time series in this test
 */
async function runs(
  prometheus: TestPrometheus,
  uid: string,
  values: Readonly<Record<string, string>>,
  empty: readonly string[],
  provoke: () => Promise<unknown>,
): Promise<void> {
  const substituted = expressionsOf(dashboard(uid)).map((expression) =>
    expression.replace(/\$(\w+)/g, (_, name: string) => {
      const value = { __rate_interval: "1m", instance: ".*", topic: ".*", ...values }[name];
      if (value === undefined) throw new Error(`no value of $${name} in ${expression}`);
      return value;
    }),
  );
  let without: string[] = [];
  await eventually(`all of ${uid} has a result`, async () => {
    await provoke();
    const results = await Promise.all(
      substituted.map(async (expression) => ({ expression, samples: await prometheus.query(expression) })),
    );
    without = results
      // A quantile of nothing is not a number.
      .filter(({ samples }) => !samples.some(({ value }) => value[1] !== "NaN"))
      .map(({ expression }) => /hawser_\w+/.exec(expression)![0]);
    return without.every((metric) => empty.includes(metric));
  }).catch((error: unknown) => {
    throw new Error(`${String(error)} Without a result: ${without.join(", ")}`);
  });
  expect(without.toSorted()).toEqual(empty.toSorted());
}

it.skipIf(programs === undefined)("each query about a server has a result", async () => {
  await using gateway = await testGateway({ monitor: "127.0.0.1:0" });
  const subject = `shown_${gateway.database.name}`;
  await gateway.client.query(`
    CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload';
  `);
  await gateway.client.query("SELECT nats_subscribe($1, 'take')", [subject]);
  await gateway.client.query("SELECT litmus_pgnats_register_responder($1, 'answer')", [`${subject}_asked`]);
  await gateway.client.query("SELECT litmus_pgnats_reload_conf()");
  await gateway.client.query("SELECT nats_create_stream($1, ARRAY[$1 || '_stream'])", [subject]);
  await gateway.client.query("SELECT nats_subscribe_stream($1, 'take', $1)", [subject]);
  await gateway.client.query("SELECT hawser.enqueue('nobody', 'x')");
  const target = gateway.serve.monitorAddress!;
  await using prometheus = await startPrometheus({ hawser: [target] });
  // Each call reached the gateway, which has no TLS, and there are no schedules.
  const empty = [
    "hawser_gateway_unreached_timestamp_seconds",
    "hawser_gateway_certificate_ends_timestamp_seconds",
    "hawser_schedule_stuck",
  ];
  await runs(prometheus, "hawser-serve", { job: "hawser", database: gateway.database.name }, empty, async () => {
    await gateway.client.query("SELECT nats_publish_text($1, 'x')", [subject]);
    await gateway.nats.request(`${subject}_asked`, "x", { timeout: 20_000 });
  });
  await check(target);
});

it.skipIf(programs === undefined)("each query about peers has a result", async () => {
  const [a, behind] = await world.left("0");
  // Stored: pending for the one, a backlog of the other as long as its handler waits.
  expect((await a.send("b", "1")).outcome).toBe("stored");
  const handling = gate();
  await behind.record(() => handling.opened);
  const c = world.peer("c-1");
  await c.handle("orders", async () => undefined);
  await c.handle("refused", () => {
    throw new Reject("no");
  });
  await c.respond("prices", () => "1");
  await c.start();
  await using server = await servePeerMetrics(a, behind, c);
  try {
    await using prometheus = await startPrometheus({ shop: [server.target] });
    const empty = ["hawser_peer_certificate_ends_timestamp_seconds", "hawser_peer_database_schedule_stuck"];
    await runs(prometheus, "hawser-peers", { job: "shop", peer: "a-1|b-1|c-1" }, empty, async () => {
      await a.send("orders", "x");
      await a.send("refused", "x");
      await a.request("prices", "x");
    });
    await check(server.target);
  } finally {
    handling.open();
  }
});
