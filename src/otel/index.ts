/** Entry `hawser/otel`: traces of Hawser's operations by OpenTelemetry. */
import { type TracerProvider, trace } from "@opentelemetry/api";
import {
  checkTracingSettings,
  type TracingSettingsInput,
  tracingSettingsDefaults,
} from "../../generated/ts/settings/otel.js";
import { HawserError, namesOf, unknownOption } from "../errors/index.js";
import { version } from "../files/index.js";
import { setTracer } from "../runtime/index.js";
import { schemaUrl } from "./conventions.js";
import { OperationTracer } from "./tracer.js";

/** Options of {@link instrument}. */
export interface OtelOptions extends TracingSettingsInput {
  /** Source of the tracer. Default: the global provider, which the OpenTelemetry SDK registers. */
  readonly tracerProvider?: TracerProvider | undefined;
}

const optionNames: readonly string[] = [
  ...namesOf<Omit<OtelOptions, keyof TracingSettingsInput>>({ tracerProvider: true }),
  ...Object.keys(tracingSettingsDefaults),
];

/**
 * Traces the sends, requests, RPC calls, handlers and enqueued messages of all peers of the process, and the operations of
 * `serve` from `hawser/nats`. Contexts of W3C Trace Context travel in the headers `traceparent` and `tracestate` of the
 * messages; a message whose headers name a trace keeps it. A further call replaces the tracer.
 *
 * Call it after the OpenTelemetry SDK was started.
 *
 * @returns object whose disposal ends tracing
 * @throws HawserError `invalid_argument`
 */
export function instrument(options: OtelOptions = {}): Disposable {
  const problem = unknownOption(options, "instrument", optionNames);
  if (problem !== undefined) throw new HawserError("invalid_argument", problem);
  const { tracerProvider = trace.getTracerProvider(), ...input } = options;
  if (typeof tracerProvider?.getTracer !== "function") {
    throw new HawserError(
      "invalid_argument",
      `tracerProvider of type ${typeof tracerProvider}: must be a TracerProvider of OpenTelemetry; leave it out for the global one`,
    );
  }
  const checked = checkTracingSettings(input);
  if (!checked.ok) {
    const { path, value, rule, remedy } = checked.violation;
    throw new HawserError("invalid_argument", `${path} ${value}: ${rule}. ${remedy}`);
  }
  const tracer = tracerProvider.getTracer("hawser", version, { schemaUrl });
  return { [Symbol.dispose]: setTracer(new OperationTracer(tracer, checked.settings.livePerMillion)) };
}
