/**
 * Metrics of peers and servers through the metrics SDK of OpenTelemetry, against the page for Prometheus.
 */
import { metrics as sdk } from "@opentelemetry/sdk-node";
import { describe, expect, it } from "vitest";
import { type Metric, peerMetrics, serveMetrics } from "../../generated/ts/metrics/metrics.js";
import { monitor, Peer, Reject } from "../../src/jobs-and-peers/peer/index.js";
import { instrument, type OtelOptions } from "../../src/operating/otel/index.js";
import { parsePrometheus } from "../monitor/prometheus-text.js";
import { failure } from "../peer/support/errors.js";
import { gate } from "../peer/support/gate.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { eventually } from "../support/eventually.js";
import { testGateway } from "../support/gateway.js";

const world = sharedPeerWorld();

/** Reader that collects when it is asked to. */
class OnDemand extends sdk.MetricReader {
  protected override async onForceFlush(): Promise<void> {}
  protected override async onShutdown(): Promise<void> {}
}

/** Time series as text, with their value: `name{a="1",b="2"}`. */
type Series = Record<string, number>;

const seriesName = (name: string, labels: Readonly<Record<string, unknown>>): string =>
  `${name}{${Object.entries(labels)
    .toSorted()
    .map(([label, value]) => `${label}="${value}"`)
    .join(",")}}`;

function metricsSdk() {
  const reader = new OnDemand();
  const meterProvider = new sdk.MeterProvider({ readers: [reader] });
  const collect = async (): Promise<readonly sdk.MetricData[]> => {
    const { resourceMetrics, errors } = await reader.collect();
    expect(errors).toEqual([]);
    return resourceMetrics.scopeMetrics.flatMap(({ metrics }) => metrics);
  };
  return {
    meterProvider,
    collect,
    /** Counters, gauges, and the counts of histograms. */
    async series(): Promise<Series> {
      const found = (await collect()).flatMap(({ descriptor: { name }, dataPoints }) =>
        dataPoints.map(({ attributes, value }): [string, number] =>
          typeof value === "number"
            ? [seriesName(name, attributes), value]
            : [seriesName(`${name}_count`, attributes), (value as sdk.Histogram).count],
        ),
      );
      const series: Series = Object.fromEntries(found);
      expect(Object.keys(series)).toHaveLength(found.length);
      return series;
    },
  };
}

/** The same of a page for Prometheus, without the metrics of the process. */
function seriesOf(page: string, table: Readonly<Record<string, Metric>>): Series {
  const samples = [...parsePrometheus(page).values()]
    .filter(({ name }) => Object.hasOwn(table, name))
    .flatMap(({ samples }) => samples)
    .filter(({ name }) => !/_(?:bucket|sum)$/.test(name));
  return Object.fromEntries(samples.map(({ name, labels, value }) => [seriesName(name, labels), value]));
}

/** Replaces what changes with each reading, and leaves out histograms without a value, which OpenTelemetry does not export. */
function settled(series: Series): Series {
  return Object.fromEntries(
    Object.entries(series)
      .filter(([name, value]) => !(name.includes("_count{") && value === 0))
      .map(([name, value]) => [name, /_(?:remaining|age)_seconds\{/.test(name) ? Math.sign(value) : value]),
  );
}

describe("metrics of peers", () => {
  it("are those of the page for Prometheus", async () => {
    const { meterProvider, series, collect } = metricsSdk();
    const a = world.peer("a-1");
    const b = world.peer("b-1");
    using _instrumented = instrument({ traces: false, peers: [a, b], meterProvider });
    await b.handle("b", { retry: { attempts: 3, delayMs: 1 } }, async (message) => {
      if (message.text() === "twice" && message.attempt === 1) throw new Error("once");
      if (message.text() === "never") throw new Reject("no");
    });
    await b.respond("prices", () => "1");
    await Promise.all([a.start(), b.start()]);
    for (const text of ["x", "twice", "never"]) await a.send("b", text);
    await world.deadLetters(1);
    await a.request("prices", "x");
    await failure("no_listener", a.send("nobody", "x"));

    const page = await (await monitor(a, b)({ url: "/metrics" })).text();
    const found = await series();
    expect(settled(found)).toEqual(settled(seriesOf(page, peerMetrics)));
    // What is tried again, and what comes behind it, waits in the queue.
    const sends = (outcome: string) => found[`hawser_peer_sends_total{outcome="${outcome}",peer="a-1",topic="b"}`] ?? 0;
    expect(sends("delivered") + sends("stored")).toBe(3);
    expect(sends("stored")).toBeGreaterThan(0);
    expect(found).toMatchObject({
      'hawser_peer_messages_handled_total{outcome="retried",peer="b-1",topic="b"}': 1,
      'hawser_peer_recent_dead_letters{peer="b-1",topic="b"}': 1,
      'hawser_peer_handler_duration_seconds_count{peer="b-1",topic="b"}': 4,
    });

    for (const { descriptor, dataPointType, dataPoints } of await collect()) {
      const { type, help, unit, buckets } = (peerMetrics as Readonly<Record<string, Metric>>)[descriptor.name]!;
      const types = {
        counter: sdk.DataPointType.SUM,
        gauge: sdk.DataPointType.GAUGE,
        histogram: sdk.DataPointType.HISTOGRAM,
      };
      expect({ description: descriptor.description, unit: descriptor.unit, dataPointType }).toEqual({
        description: help,
        unit: { seconds: "s", messages: "{message}", "": "" }[unit],
        dataPointType: types[type],
      });
      if (type !== "histogram") continue;
      for (const { value } of dataPoints) expect((value as sdk.Histogram).buckets.boundaries).toEqual(buckets);
    }
  });

  it("have the label other for handlers that ended after their topic", async () => {
    const { meterProvider, series } = metricsSdk();
    const [a, b] = await world.running("a-1", "b-1");
    using _instrumented = instrument({ traces: false, peers: [b], meterProvider });
    const [started, released] = [gate(), gate()];
    const subscription = await b.handle("c", () => {
      started.open();
      return released.opened;
    });
    const sent = a.send("c", "x");
    await started.opened;
    await subscription.stop();
    released.open();
    await sent;
    await eventually("its duration is recorded", async () => {
      return (await series())['hawser_peer_handler_duration_seconds_count{peer="b-1",topic="other"}'] === 1;
    });
  });

  it("end with the disposal, and are not exported of other peers", async () => {
    const { meterProvider, series } = metricsSdk();
    const [a, b] = await world.running("a-1", "b-1");
    const instrumented = instrument({ traces: false, peers: [a, a], meterProvider });
    await a.send("b", "x");
    const found = await series();
    expect(found['hawser_peer_ready{peer="a-1"}']).toBe(1);
    expect(Object.keys(found).filter((name) => name.includes(`peer="${b.name}"`))).toEqual([]);
    instrumented[Symbol.dispose]();
    await a.stop();
    // The SDK repeats what it has.
    expect((await series())['hawser_peer_ready{peer="a-1"}']).toBe(1);
  });

  it("become 0 where the page has no time series any more", async () => {
    const { meterProvider, series } = metricsSdk();
    const [a] = await world.left("0");
    using _instrumented = instrument({ traces: false, peers: [a], meterProvider });
    const pending = 'hawser_peer_pending_messages{peer="a-1",topic="b"}';
    expect((await a.send("b", "1")).outcome).toBe("stored");
    expect((await series())[pending]).toBe(1);
    // It counts no longer.
    await a.stop();
    expect((await series())[pending]).toBe(0);
  });
});

describe("metrics of servers", () => {
  it("are those of the page for Prometheus, and are exported without a page, too, until the server stops", async () => {
    const { meterProvider, series } = metricsSdk();
    const flushed: Series[] = [];
    const provider = {
      getMeter: meterProvider.getMeter.bind(meterProvider),
      forceFlush: async () => void flushed.push(await series()),
    };
    using _instrumented = instrument({ traces: false, servers: true, meterProvider: provider });
    await using gateway = await testGateway({ monitor: "127.0.0.1:0" });
    await gateway.client.query("SELECT nats_publish_text('a', 'x')");
    const count = `hawser_gateway_call_duration_seconds_count{database="${gateway.database.name}",method="Publish"}`;
    await eventually("the call is counted", async () => (await series())[count] === 1);
    // The counts of the database come with the first of them.
    await eventually("both are the same", async () => {
      const page = await (await fetch(`http://${gateway.serve.monitorAddress}/metrics`)).text();
      const [ours, theirs] = [settled(await series()), settled(seriesOf(page, serveMetrics))];
      expect(Object.keys(ours).length).toBeGreaterThan(50);
      return JSON.stringify(Object.entries(ours).toSorted()) === JSON.stringify(Object.entries(theirs).toSorted());
    });
    expect(flushed).toEqual([]);
    await gateway.serve.stop();
    expect(flushed).toEqual([expect.objectContaining({ [count]: 1 })]);

    await using second = await testGateway();
    expect(second.serve.monitorAddress).toBeUndefined();
    const isUp = `hawser_postgres_up{database="${second.database.name}"}`;
    await eventually("it is up", async () => (await series())[isUp] === 1);
  });
});

it.each<[OtelOptions, string]>([
  [{ peer: [] } as OtelOptions, "peer"],
  [{ servers: 1 } as unknown as OtelOptions, "servers 1: must be true or false"],
  [{ traces: "no" } as unknown as OtelOptions, "traces no: must be true or false"],
  [{ peers: {} } as OtelOptions, "peers of type object: must be an array"],
  [{ peers: [{}] } as unknown as OtelOptions, "an element is not a Peer"],
  [
    { peers: [1, 2].map(() => new Peer({ name: "a-1", databaseUrl: "postgres://127.0.0.1:1/none" })) },
    'two are named "a-1"',
  ],
  [{ meterProvider: {} } as OtelOptions, "meterProvider of type object: must be a MeterProvider"],
])("refuses %o", async (options, text) => {
  expect((await failure("invalid_argument", () => instrument(options))).message).toContain(text);
});
