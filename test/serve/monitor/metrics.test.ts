import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, describe, expect, it } from "vitest";
import { prometheusText } from "../../../src/foundation/monitor/prometheus-text.js";
import { ServeMetrics, type ServeMetricsOptions } from "../../../src/nats/serve/monitor/index.js";
import { type Family, parsePrometheus } from "../../monitor/prometheus-text.js";
import { eventually } from "../../support/eventually.js";
import { answer, awkward, awkwardName, capture, serveCounters } from "./counters.js";

setFlagsFromString("--expose-gc");

let opened: ServeMetrics[] = [];
afterEach(() => {
  for (const metrics of opened) metrics.close();
  opened = [];
});

function metricsOf(options: Partial<ServeMetricsOptions> = {}): ServeMetrics {
  const metrics = new ServeMetrics({
    version: "1.2.3",
    database: "app",
    counters: serveCounters,
    now: () => 12_500,
    ...options,
  });
  opened.push(metrics);
  return metrics;
}

/** The page as a scraper reads it. */
async function page(metrics: ServeMetrics): Promise<ReadonlyMap<string, Family>> {
  return parsePrometheus(prometheusText(await metrics.readAll()));
}

/** Values of a metric by labels, as text, without the label of the database. */
async function shown(metrics: ServeMetrics, family: string, line = family): Promise<Record<string, number>> {
  const { samples = [] } = (await page(metrics)).get(family) ?? {};
  const lines = samples.filter(({ name }) => name === line);
  return Object.fromEntries(
    lines.map(({ labels: { database, ...labels }, value }) => [Object.values(labels).join(" "), value]),
  );
}

/** Metrics of the process with their types, as prom-client names them. */
const processMetrics = [
  "process_cpu_user_seconds_total counter",
  "process_cpu_system_seconds_total counter",
  "process_cpu_seconds_total counter",
  "process_start_time_seconds gauge",
  "process_resident_memory_bytes gauge",
  "process_virtual_memory_bytes gauge",
  "process_heap_bytes gauge",
  "process_open_fds gauge",
  "process_max_fds gauge",
  "nodejs_eventloop_lag_seconds gauge",
  ...["min", "max", "mean", "stddev", "p50", "p90", "p99"].map((of) => `nodejs_eventloop_lag_${of}_seconds gauge`),
  ...["resources", "handles", "requests"].flatMap((of) => [
    `nodejs_active_${of} gauge`,
    `nodejs_active_${of}_total gauge`,
  ]),
  "nodejs_heap_size_total_bytes gauge",
  "nodejs_heap_size_used_bytes gauge",
  "nodejs_external_memory_bytes gauge",
  "nodejs_heap_space_size_total_bytes gauge",
  "nodejs_heap_space_size_used_bytes gauge",
  "nodejs_heap_space_size_available_bytes gauge",
  "nodejs_version_info gauge",
  "nodejs_gc_duration_seconds histogram",
];

describe("ServeMetrics", () => {
  it("shows what the counters have", async () => {
    const metrics = metricsOf();
    const expected: Readonly<Record<string, Record<string, number>>> = {
      hawser_gateway_sessions: { "": 3 },
      hawser_gateway_unreached_timestamp_seconds: { "": 1_763_654_400 },
      hawser_postgres_up: { "": 1 },
      hawser_postgres_reconnects_total: { "": 1 },
      hawser_nats_up: { gateway: 1, subscriptions: 0, responders: 1 },
      hawser_nats_reconnects_total: { gateway: 0, subscriptions: 2, responders: 4 },
      hawser_bridge_role: { primary: 1, standby: 0, unknown: 0 },
      hawser_bridge_leading: { "": 1 },
      hawser_bridge_leader_epoch: { "": 1_763_654_400_123 },
      hawser_bridge_standby_buffer_bytes: { "": 512 },
      hawser_bridge_messages_discarded_total: { buffer_full: 3, standby_buffer_full: 4 },
      hawser_responder_requests_in_flight: { "": 8 },
      hawser_responder_requests_queued: { "": 9 },
      hawser_build_info: { "1.2.3": 1 },
    };
    for (const [name, values] of Object.entries(expected)) expect(await shown(metrics, name), name).toEqual(values);
  });

  it("shows each subscription and responder by its number, its subject and its function, whatever characters that has", async () => {
    const metrics = metricsOf();
    const expected = {
      messages_received_total: [100, 7],
      messages_committed_total: [90, 90],
      messages_dead_lettered_total: [1, 1],
      messages_repeated_total: [4, 4],
      cuts_total: [2, 2],
      transactions_total: [20, 20],
      bisections_total: [2, 2],
      queue_messages: [6, 6],
      queue_bytes: [6_000, 6_000],
      saved_messages: [11, 11],
      saved_bytes: [11_000, 11_000],
      oldest_message_age_seconds: [2.5, 0],
    };
    for (const [name, [first, second]] of Object.entries(expected)) {
      const values = { [`1 orders.> ${capture.functionName}`]: first, [`2 returns.* ${awkwardName}`]: second };
      expect(await shown(metrics, `hawser_bridge_${name}`), name).toEqual(values);
    }
    const responder = `9007199254740993 prices ${answer.functionName}`;
    expect(await shown(metrics, "hawser_responder_requests_total")).toEqual({
      [`${responder} ok`]: 50,
      [`${responder} failed`]: 3,
      [`${responder} timed_out`]: 2,
      [`${responder} busy`]: 1,
    });
  });

  it("shows what waits for peers by topic, group, listener and state, whatever characters the names have", async () => {
    const metrics = metricsOf();
    const [bills, odd] = ["bills billing bills-1 stopped", 'a "topic" \\   unserved'];
    expect(await shown(metrics, "hawser_backlog_messages")).toEqual({ [bills]: 20, [odd]: 21 });
    expect(await shown(metrics, "hawser_backlog_has_more")).toEqual({ [bills]: 0, [odd]: 1 });
    expect(await shown(metrics, "hawser_schedule_stuck")).toEqual({ "nightly shop late": 1, "odd shop failing": 1 });
    expect(await shown(metrics, "hawser_backlog_age_seconds")).toEqual({ [bills]: 10, [odd]: 12 });
  });

  it("says of each number which database it is about, whatever characters its name has", async () => {
    const database = 'two\nlines \\ and "quotes"';
    const metrics = metricsOf({ database });
    metrics.observeCall("Publish", "ok", 1);
    metrics.observeRequest(answer, 1);
    const families = [...(await page(metrics)).values()];
    expect(families.length).toBeGreaterThan(20);
    for (const { name, samples } of families)
      for (const { labels } of samples) expect(labels["database"], name).toBe(database);
  });

  it("reads the counters anew at each scrape, and drops what has gone", async () => {
    const counters = serveCounters();
    const metrics = metricsOf({ counters: () => counters });
    expect(Object.keys(await shown(metrics, "hawser_bridge_messages_received_total"))).toHaveLength(2);
    counters.bridge.subscriptions = [{ ...awkward, received: 8 }];
    counters.bridge.role = "standby";
    counters.nats = { gateway: { isUp: false, reconnects: 5 } };
    expect(await shown(metrics, "hawser_bridge_messages_received_total")).toEqual({
      [`2 returns.* ${awkwardName}`]: 8,
    });
    expect(await shown(metrics, "hawser_bridge_role")).toEqual({ primary: 0, standby: 1, unknown: 0 });
    expect(await shown(metrics, "hawser_nats_up")).toEqual({ gateway: 0 });
    expect(await shown(metrics, "hawser_nats_reconnects_total")).toEqual({ gateway: 5 });
  });

  it("can be read before there is a gateway or a bridge", async () => {
    const postgres = { isUp: false, reconnects: 0 };
    const metrics = metricsOf({
      counters: () => ({ gateway: undefined, postgres, nats: {}, bridge: undefined, stored: undefined }),
    });
    expect(await shown(metrics, "hawser_gateway_sessions")).toEqual({ "": 0 });
    expect(await shown(metrics, "hawser_bridge_role")).toEqual({ primary: 0, standby: 0, unknown: 1 });
    expect(await shown(metrics, "hawser_bridge_leading")).toEqual({ "": 0 });
    expect(await shown(metrics, "hawser_bridge_messages_received_total")).toEqual({});
  });

  it("counts calls by method and outcome, from zero, and measures them", async () => {
    const metrics = metricsOf();
    expect(await shown(metrics, "hawser_gateway_calls_total")).toMatchObject({ "Publish ok": 0, "Publish error": 0 });
    metrics.observeCall("Publish", "ok", 0.2);
    metrics.observeCall("Publish", "ok", 2);
    metrics.observeCall("Publish", "error", 20_000);
    expect(await shown(metrics, "hawser_gateway_calls_total")).toMatchObject({ "Publish ok": 2, "Publish error": 1 });
    const family = "hawser_gateway_call_duration_seconds";
    expect(await shown(metrics, family, `${family}_bucket`)).toMatchObject({
      "0.0001 Publish": 0,
      "0.0003 Publish": 1,
      "0.003 Publish": 2,
      "10 Publish": 2,
      "+Inf Publish": 3,
    });
    const { Publish: sum } = await shown(metrics, family, `${family}_sum`);
    expect(sum).toBeCloseTo(20.0022, 10);
  });

  it("never takes a caller's words for a label", async () => {
    const metrics = metricsOf();
    const before = Object.keys(await shown(metrics, "hawser_gateway_calls_total"));
    for (const asked of ["DropTable", "constructor", "__proto__", "", undefined])
      metrics.observeCall(asked, "error", 1);
    const after = await shown(metrics, "hawser_gateway_calls_total");
    expect(Object.keys(after)).toEqual(before);
    expect(after["unknown error"]).toBe(5);
  });

  it("measures batches", async () => {
    const metrics = metricsOf();
    metrics.observeBatch(1_000, 40);
    metrics.observeBatch(2, 4);
    const sizes = "hawser_bridge_batch_messages";
    expect(await shown(metrics, sizes, `${sizes}_bucket`)).toMatchObject({ "1": 0, "3": 1, "300": 1, "1000": 2 });
    expect(await shown(metrics, sizes, `${sizes}_sum`)).toEqual({ "": 1_002 });
    const durations = "hawser_bridge_batch_duration_seconds";
    expect(await shown(metrics, durations, `${durations}_bucket`)).toMatchObject({ "0.003": 0, "0.01": 1, "0.1": 2 });
  });

  it("measures the requests of a responder until it goes, also one that ends afterwards", async () => {
    const counters = serveCounters();
    const metrics = metricsOf({ counters: () => counters });
    const family = "hawser_responder_request_duration_seconds";
    const labels = `9007199254740993 prices ${answer.functionName}`;
    metrics.observeRequest(answer, 5);
    metrics.observeRequest(answer, 50);
    expect(await shown(metrics, family, `${family}_count`)).toEqual({ [labels]: 2 });
    counters.bridge.responders = { responders: [], running: 0 };
    expect(await shown(metrics, family, `${family}_count`)).toEqual({});
    metrics.observeRequest(answer, 5);
    expect(await shown(metrics, family, `${family}_count`)).toEqual({});
  });

  it("has no series for what never had a value", async () => {
    const counters = serveCounters();
    const names = [
      "gateway_unreached_timestamp_seconds",
      "gateway_certificate_ends_timestamp_seconds",
      "bridge_leader_epoch",
    ];
    const series = async () => {
      const found = names.map((name) => shown(metricsOf({ counters: () => counters }), `hawser_${name}`));
      return (await Promise.all(found)).map((values) => Object.values(values));
    };
    expect(await series()).toEqual([[1_763_654_400], [1_800_000_000], [1_763_654_400_123]]);
    counters.gateway = { sessions: 1, unreachedAt: undefined, certificateEndsAt: undefined };
    counters.bridge.lastEpoch = 0n;
    expect(await series()).toEqual([[], [], []]);
  });

  it("is not mixed up with another one in the same process", async () => {
    const other = serveCounters();
    other.gateway = { sessions: 44, unreachedAt: undefined, certificateEndsAt: undefined };
    const [first, second] = [metricsOf(), metricsOf({ counters: () => other })];
    first.observeCall("Flush", "ok", 1);
    expect(await shown(first, "hawser_gateway_sessions")).toEqual({ "": 3 });
    expect(await shown(second, "hawser_gateway_sessions")).toEqual({ "": 44 });
    expect((await shown(second, "hawser_gateway_calls_total"))["Flush ok"]).toBe(0);
  });

  it("has the metrics of the process that dashboards for Node.js know, and nothing else that is not ours", async () => {
    const metrics = metricsOf();
    runInNewContext("gc")();
    const kinds = () => shown(metrics, "nodejs_gc_duration_seconds", "nodejs_gc_duration_seconds_count");
    await eventually("a garbage collection is measured", async () => "major" in (await kinds()));
    const families = await page(metrics);
    const others = [...families.values()].filter(({ name }) => !name.startsWith("hawser_"));
    expect(others.map(({ name, type }) => `${name} ${type}`)).toEqual(processMetrics);
    for (const name of ["process_cpu_seconds_total", "process_resident_memory_bytes", "nodejs_heap_size_used_bytes"])
      expect((await shown(metrics, name))[""], name).toBeGreaterThan(0);
    const [startedAt] = Object.values(await shown(metrics, "process_start_time_seconds"));
    expect(startedAt).toBeCloseTo(Date.now() / 1_000 - process.uptime(), -1);
  });

  it("names totals, seconds and bytes as Prometheus does", async () => {
    for (const { name, type, help } of (await page(metricsOf())).values()) {
      if (!name.startsWith("hawser_")) continue;
      expect(`${name} ${type === "counter"}`).toBe(`${name} ${name.endsWith("_total")}`);
      expect(name).not.toMatch(/_(ms|milliseconds|kb|count|sum|bucket)$/);
      expect(help).toMatch(/^[A-Z].*\.$/);
    }
  });

  it("does not hide a counter that cannot be read", async () => {
    const counters = () => {
      throw new Error("not now");
    };
    await expect(metricsOf({ counters }).readAll()).rejects.toThrow("not now");
  });
});
