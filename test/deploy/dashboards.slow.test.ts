/**
 * The queries of the dashboards, by a Prometheus that scrapes a server and peers: it takes a while to fetch.
 *
 * Without one they are skipped, with a line that says so; where CI is set they fail.
 */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, it } from "vitest";
import { monitor } from "../../src/peer/index.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { dashboard, expressionsOf } from "../support/dashboards.js";
import { eventually } from "../support/eventually.js";
import { testGateway } from "../support/gateway.js";
import { startPrometheus, type TestPrometheus } from "../support/prometheus.js";
import { findPrometheus } from "../support/promtool.js";

const prometheusProgram = await findPrometheus().catch((error: unknown) => {
  if (process.env["CI"]) throw error;
  console.error(`The queries of dashboards are not tested: there is no Prometheus (${String(error)})`);
  return undefined;
});

const world = sharedPeerWorld();

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
      const value = { __rate_interval: "1m", instance: ".*", ...values }[name];
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

it.skipIf(prometheusProgram === undefined)("each query about a server has a result", async () => {
  await using gateway = await testGateway({ monitor: "127.0.0.1:0" });
  const subject = `shown_${gateway.database.name}`;
  await gateway.client.query(`
    CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload';
  `);
  await gateway.client.query("SELECT nats_subscribe($1, 'take')", [subject]);
  await gateway.client.query("SELECT litmus_pgnats_register_responder($1, 'answer')", [`${subject}_asked`]);
  await gateway.client.query("SELECT litmus_pgnats_reload_conf()");
  await using prometheus = await startPrometheus({ hawser: [gateway.serve.monitorAddress!] });
  // No stream has a subscription, and each call reached the gateway.
  const empty = [
    "hawser_gateway_unreached_timestamp_seconds",
    ...["lag_messages", "position", "missing_messages", "reading"].map((name) => `hawser_stream_${name}`),
    ...["committed", "dead_lettered"].map((name) => `hawser_stream_messages_${name}_total`),
  ];
  await runs(prometheus, "hawser-serve", { job: "hawser", database: gateway.database.name }, empty, async () => {
    await gateway.client.query("SELECT nats_publish_text($1, 'x')", [subject]);
    await gateway.nats.request(`${subject}_asked`, "x", { timeout: 20_000 });
  });
});

it.skipIf(prometheusProgram === undefined)("each query about peers has a result", async () => {
  const a = await world.started("a-1");
  const b = world.peer("b-1");
  await b.handle("orders", async () => undefined);
  await b.respond("prices", () => "1");
  await b.start();
  const pages = monitor(a, b);
  const server = createServer(async (request, response) => {
    const page = await pages(request);
    response.writeHead(page.status, Object.fromEntries(page.headers)).end(await page.text());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    await using prometheus = await startPrometheus({
      shop: [`127.0.0.1:${(server.address() as AddressInfo).port}`],
    });
    // Nothing is stored in the database.
    const empty = ["backlog_messages", "backlog_age_seconds", "pending_messages", "recent_dead_letters"].map(
      (name) => `hawser_peer_${name}`,
    );
    await runs(prometheus, "hawser-peers", { job: "shop", peer: "a-1|b-1" }, empty, async () => {
      await a.send("orders", "x");
      await a.request("prices", "x");
    });
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
