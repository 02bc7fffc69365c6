/** Entry `hawser/otel`: traces of Hawser's operations, and its metrics, by OpenTelemetry. */
import { type MeterProvider, metrics, type TracerProvider, trace } from "@opentelemetry/api";
import {
  checkTracingSettings,
  type TracingSettingsInput,
  tracingSettingsDefaults,
} from "../../../generated/ts/settings/otel.js";
import { checkedSettings, checkOptionNames, invalidArgument, namesOf } from "../../foundation/errors/index.js";
import { type MetricSource, metricSources, setMetricExporter } from "../../foundation/monitor/index.js";
import { setTracer, version } from "../../foundation/runtime/index.js";
import type { AnyPeer, AnyWorker } from "../../jobs-and-peers/peer/index.js";
import { schemaUrl } from "./conventions.js";
import { MetricExport } from "./metric-export.js";
import { OperationTracer } from "./tracer.js";

/** Options of {@link instrument}. */
export interface OtelOptions extends TracingSettingsInput {
  /** True if operations are traced. Default true. */
  readonly traces?: boolean | undefined;
  /** Source of the tracer. Default: the global provider, which the OpenTelemetry SDK registers. */
  readonly tracerProvider?: TracerProvider | undefined;
  /** Peers and workers whose metrics are exported, started or not, with different names. Default: none. */
  readonly peers?: readonly (AnyPeer | AnyWorker)[] | undefined;
  /** True if metrics of servers are exported that `serve` of `hawser/nats` starts from then on. Default false. */
  readonly servers?: boolean | undefined;
  /** Source of the meter. Default: the global provider. */
  readonly meterProvider?: MeterProvider | undefined;
}

const optionNames = namesOf<OtelOptions>({
  traces: true,
  tracerProvider: true,
  peers: true,
  servers: true,
  meterProvider: true,
  ...tracingSettingsDefaults,
});

/**
 * Traces the sends, requests, RPC calls, handlers and enqueued messages of all peers of the process, and the operations of
 * `serve` from `hawser/nats`. Contexts of W3C Trace Context travel in the headers `traceparent` and `tracestate` of the
 * messages; a message whose headers name a trace keeps it. A further call replaces the tracer.
 *
 * With `peers` or `servers` it also exports their metrics. Names and attributes are the names and labels of the page
 * `/metrics`; histograms begin with the call.
 *
 * Call it after the OpenTelemetry SDK was started.
 *
 * @returns object whose disposal ends tracing and the export of metrics
 * @throws HawserError `invalid_argument`
 */
export function instrument(options: OtelOptions = {}): Disposable {
  checkOptionNames(options, "instrument", optionNames);
  const { traces = true, servers = false, peers = [], tracerProvider, meterProvider } = options;
  for (const [name, value] of Object.entries({ traces, servers })) {
    if (typeof value !== "boolean") throw invalidArgument(`${name} ${String(value)}: must be true or false`);
  }
  const { livePerMillion } = checkedSettings(checkTracingSettings(options));
  const tracers = checkedProvider("tracerProvider", "getTracer", tracerProvider ?? trace.getTracerProvider());
  const meters = checkedProvider("meterProvider", "getMeter", meterProvider ?? metrics.getMeterProvider());
  const sources = sourcesOf(peers);
  const undo: (() => void)[] = [];
  if (traces) {
    const tracer = tracers.getTracer("hawser", version, { schemaUrl });
    undo.push(setTracer(new OperationTracer(tracer, livePerMillion)));
  }
  if (servers || sources.length > 0) {
    const exporter = new MetricExport(meters);
    for (const source of sources) exporter.add(source);
    if (servers) undo.push(setMetricExporter(exporter));
    undo.push(() => exporter.close());
  }
  return {
    [Symbol.dispose]() {
      for (const each of undo.splice(0)) each();
    },
  };
}

function checkedProvider<Provider extends TracerProvider | MeterProvider>(
  option: string,
  method: "getTracer" | "getMeter",
  provider: Provider,
): Provider {
  if (typeof (provider as unknown as Record<string, unknown>)[method] === "function") return provider;
  const rule = `must be a ${option[0]!.toUpperCase()}${option.slice(1)} of OpenTelemetry`;
  throw invalidArgument(`${option} of type ${typeof provider}: ${rule}; leave it out for the global one`);
}

function sourcesOf(peers: readonly (AnyPeer | AnyWorker)[]): MetricSource[] {
  if (!Array.isArray(peers))
    throw invalidArgument(`peers of type ${typeof peers}: must be an array of peers and workers`);
  const sources = [...new Set(peers)].map((peer) => {
    const source = metricSources.get(peer);
    if (source !== undefined) return source;
    throw invalidArgument("peers: an element is not a Peer or Worker of this copy of hawser; pass these only");
  });
  const names = sources.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice === undefined) return sources;
  throw invalidArgument(
    `peers: two are named "${twice}", so their time series would have the same attributes; pass one of them`,
  );
}
