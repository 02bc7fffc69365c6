/**
 * Alerts of the chart in a Prometheus that scrapes a server and a peer: they fire and resolve. Their times and thresholds
 * are lower here; those of the file are tested by promtool.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { Peer, Reject } from "../../src/jobs-and-peers/peer/index.js";
import { gate } from "../peer/support/gate.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { eventually } from "../support/eventually.js";
import { patience, testGateway } from "../support/gateway.js";
import { toolOrSkip } from "../support/kept.js";
import { startNatsServer } from "../support/nats-server.js";
import { projectDirectory } from "../support/program.js";
import { servePeerMetrics, startPrometheus, type TestPrometheus } from "../support/prometheus.js";
import { findPrometheus } from "../support/promtool.js";

const program = await toolOrSkip(findPrometheus(), "The alerts by a Prometheus");

const rules = readFileSync(join(projectDirectory, "deploy/chart/alerts.yaml"), "utf8")
  .replace(/^ +for: .*\n/gm, "")
  .replace(/\[(?:1|5|10)m\]/g, "[10s]")
  // Seconds that something waits, and messages of a stream.
  .replace(/ > (?:15|30|60|300|1000)$/gm, " > 0");

const world = sharedPeerWorld();

async function fires(
  prometheus: TestPrometheus,
  names: readonly string[],
  provoke: () => Promise<unknown> = async () => undefined,
): Promise<void> {
  const seen = new Set<string>();
  await eventually(`${names.join(", ")} fire`, async () => {
    await provoke();
    for (const name of await prometheus.firing()) seen.add(name);
    return names.every((name) => seen.has(name));
  });
}

async function resolves(prometheus: TestPrometheus, names: readonly string[]): Promise<void> {
  await eventually(`${names.join(", ")} resolve`, async () => {
    const firing = await prometheus.firing();
    return names.every((name) => !firing.includes(name));
  });
}

it.skipIf(program === undefined)("alerts about peers fire and resolve", async () => {
  const [a, behind] = await world.left("0");
  expect((await a.send("b", "1")).outcome).toBe("stored");
  const waiting = gate();
  await behind.record(() => waiting.opened);
  const b = world.peer("c-1");
  await b.handle("orders", () => {
    throw new Reject("no");
  });
  await b.start();
  await using server = await servePeerMetrics(a, b, behind);
  try {
    await using prometheus = await startPrometheus({ "hawser-peers": [server.target] }, rules);
    // No target is a server: what peers answer does not hide it.
    const atFirst = ["HawserNothingAnswers", "HawserPeerBacklogBehind"];
    await fires(prometheus, atFirst);
    await eventually(
      "a scrape has seen the peer",
      async () => (await prometheus.query("hawser_peer_ready == 1")).length === 3,
    );
    expect((await prometheus.firing()).toSorted()).toEqual(atFirst);
    waiting.open();
    await resolves(prometheus, ["HawserPeerBacklogBehind"]);
    await a.send("orders", "x");
    const handling = ["HawserPeerHandlerDeadLetters"];
    await fires(prometheus, handling);
    await resolves(prometheus, handling);
    await b.stop();
    const stopped = ["HawserPeerNotReady"];
    await fires(prometheus, stopped);
    await b.start();
    await resolves(prometheus, stopped);
    await server[Symbol.asyncDispose]();
    await fires(prometheus, ["HawserPeerGone"]);
  } finally {
    waiting.open();
  }
});

it.skipIf(program === undefined)(
  "alerts about messages that nobody takes, by peers alone, fire and resolve",
  async () => {
    const a = await world.started("a-1");
    await using server = await servePeerMetrics(a);
    await using prometheus = await startPrometheus({ "hawser-peers": [server.target] }, rules);
    const enqueue = () => world.query("SELECT hawser.enqueue('mistyped', 'x')");
    await enqueue();
    await fires(prometheus, ["HawserPeerTopicNotServed"]);
    const late = await world.started("mistyped-1", { defaults: { durable: true } });
    await resolves(prometheus, ["HawserPeerTopicNotServed"]);
    await late.received.length(1);
    await late.stop();
    await enqueue();
    await fires(prometheus, ["HawserPeerBacklogNotRead"]);
    await late.start();
    await resolves(prometheus, ["HawserPeerBacklogNotRead"]);
  },
);

it.skipIf(program === undefined)("alerts about a server without NATS fire and resolve", async () => {
  await using nats = await startNatsServer();
  await using gateway = await testGateway({ monitor: "127.0.0.1:0", natsUrl: nats.url });
  await using prometheus = await startPrometheus({ hawser: [gateway.serve.monitorAddress!] }, rules);
  await eventually("NATS is up", async () => (await prometheus.query("hawser_nats_up == 1")).length > 0);
  await resolves(prometheus, ["HawserNatsAway"]);
  await gateway.client.query(
    "CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'; SELECT nats_subscribe('any', 'take')",
  );
  await eventually(
    "it is subscribed",
    async () => (await prometheus.query("hawser_bridge_cuts_total == 0")).length > 0,
  );
  await nats.stop();
  await gateway.client.query("SELECT hawser.enqueue('any', 'x', stream => false)");
  await fires(prometheus, ["HawserNatsAway"]);
  await nats.restart();
  await resolves(prometheus, ["HawserNatsAway", "HawserNobodyLeads", "HawserCut", "HawserOutboxBehind"]);
  await gateway.serve.stop();
  await fires(prometheus, ["HawserNothingAnswers"]);
});

it.skipIf(program === undefined)("alerts about what fails in a server fire and resolve", async () => {
  const tuning = { ...patience.tuning, missingStreamMs: 0 };
  await using gateway = await testGateway({ monitor: "127.0.0.1:0", tuning });
  const subject = `refused_${gateway.database.name}`;
  const [inStream, asked] = [`${subject}_stream`, `${subject}_asked`];
  await gateway.client.query(`
    CREATE FUNCTION refuse(payload bytea) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
    CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
  `);
  await gateway.client.query("SELECT nats_create_stream($1, ARRAY[$2])", [subject, inStream]);
  await gateway.client.query("SELECT nats_subscribe_stream($1, 'refuse', $1)", [subject]);
  await gateway.client.query("SELECT nats_subscribe($1, 'refuse')", [subject]);
  await gateway.client.query("SELECT litmus_pgnats_register_responder($1, 'answer')", [asked]);
  await gateway.client.query("SELECT litmus_pgnats_reload_conf()");
  await using peer = new Peer({ name: "refuses-1", databaseUrl: gateway.database.url });
  await peer.handle("refused", () => {
    throw new Reject("no");
  });
  await peer.start();
  await gateway.client.query("SELECT hawser.enqueue('refused', 'x')");
  await using prometheus = await startPrometheus({ hawser: [gateway.serve.monitorAddress!] }, rules);
  const failing = [
    ...["HawserDeadLetters", "HawserStreamDeadLetters", "HawserResponderFails", "HawserCallsFail"],
    ...["HawserOutboxRefused", "HawserOutboxDropped", "HawserPeerDeadLetters"],
  ];
  const enqueue = "SELECT hawser.enqueue($1, 'x', stream => true, message_id => $2)";
  await fires(prometheus, failing, async () => {
    await gateway.client.query("SELECT nats_publish_text($1, 'x')", [subject]);
    await gateway.client.query("SELECT nats_publish_text_stream($1, 'x')", [inStream]);
    await gateway.nats.request(asked, "x", { timeout: 20_000 });
    await gateway.errorOf("SELECT nats_request_text($1, 'x', 1000)", [`${subject}_nobody`]);
    await gateway.client.query(enqueue, [`${subject}_missing`, "1"]);
    await gateway.client.query(enqueue, [inStream, "1"]);
  });
  // They count for ten minutes as recent.
  await gateway.client.query("DELETE FROM hawser_data.dead_letters");
  await resolves(prometheus, failing);
  await gateway.client.query("SELECT nats_delete_stream($1)", [subject]);
  await fires(prometheus, ["HawserStreamNotRead"]);
  await gateway.client.query("SELECT nats_unsubscribe_stream($1)", [subject]);
  await resolves(prometheus, ["HawserStreamNotRead"]);
});

it.skipIf(program === undefined)("alerts about messages that nobody takes fire and resolve", async () => {
  await using gateway = await testGateway({ monitor: "127.0.0.1:0" });
  const peer = (name: string, topic: string) => new Peer({ name, topic, databaseUrl: gateway.database.url });
  await using orders = peer("orders-1", "orders");
  await using late = peer("late-1", "mistyped");
  const waiting = gate();
  try {
    await orders.handle("orders", () => waiting.opened);
    await late.handle("mistyped", () => undefined);
    await orders.start();
    await gateway.client.query("SELECT hawser.enqueue('orders', 'met'), hawser.enqueue('mistyped', 'x')");
    await using prometheus = await startPrometheus({ hawser: [gateway.serve.monitorAddress!] }, rules);
    await fires(prometheus, ["HawserTopicNotServed", "HawserBacklogBehind"]);
    await orders.stop({ timeoutMs: 1_000 });
    await fires(prometheus, ["HawserBacklogNotRead"]);
    waiting.open();
    await orders.start();
    await late.start();
    await resolves(prometheus, ["HawserTopicNotServed", "HawserBacklogBehind", "HawserBacklogNotRead"]);
  } finally {
    waiting.open();
  }
});

it.skipIf(program === undefined)("alerts about what waits and about two leaders fire and resolve", async () => {
  const options = { monitor: "127.0.0.1:0", tuning: { ...patience.tuning, monitorDatabase: "same" } };
  await using gateway = await testGateway(options);
  await using other = await testGateway(options);
  const subject = `waits_${gateway.database.name}`;
  await gateway.client.query(`
    CREATE FUNCTION wait(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock(1)';
    CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload FROM pg_advisory_xact_lock(1)';
    SELECT pg_advisory_lock(1);
  `);
  await gateway.client.query("SELECT nats_create_stream($1, ARRAY[$1 || '_stream'])", [subject]);
  await gateway.client.query("SELECT nats_subscribe_stream($1, 'wait', $1, start => 'all')", [subject]);
  await gateway.client.query("SELECT nats_subscribe($1, 'wait')", [subject]);
  await gateway.client.query("SELECT litmus_pgnats_register_responder($1, 'answer')", [`${subject}_asked`]);
  await gateway.client.query("SELECT litmus_pgnats_reload_conf()");
  const targets = [gateway, other].map(({ serve }) => serve.monitorAddress!);
  await using prometheus = await startPrometheus({ hawser: targets }, rules);
  const waiting = ["HawserBehind", "HawserStreamBehind", "HawserResponderBusy"];
  await gateway.client.query("SELECT nats_publish_text_stream($1 || '_stream', 'x')", [subject]);
  await fires(prometheus, [...waiting, "HawserSeveralLead"], async () => {
    await gateway.client.query("SELECT nats_publish_text($1, 'x')", [subject]);
    for (let n = 0; n < 20; n++) gateway.nats.publish(`${subject}_asked`, "x", { reply: "nobody" });
  });
  await gateway.client.query("SELECT pg_advisory_unlock(1)");
  await other.serve.stop();
  await resolves(prometheus, [...waiting, "HawserSeveralLead"]);
});
