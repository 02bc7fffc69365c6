/** Spans that the SDK of OpenTelemetry records in memory. */
import { context, propagation, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { node, tracing } from "@opentelemetry/sdk-node";
import { instrument, type OtelOptions } from "../../../src/otel/index.js";

/** Span, as a test compares it. */
export interface Recorded {
  readonly name: string;
  readonly kind: string;
  readonly traceId: string;
  readonly id: string;
  /** Id of the parent span. */
  readonly parent: string | undefined;
  /** Ids of the linked spans. */
  readonly links: readonly string[];
  readonly attributes: Readonly<Record<string, unknown>>;
  /** Text of the error; undefined unless the status is one. */
  readonly error: string | undefined;
}

/** Starts the SDK and `instrument`. Workers keep modules, so the disposal takes everything back. */
export function recordedSpans(options: OtelOptions = {}) {
  const exporter = new tracing.InMemorySpanExporter();
  const provider = new node.NodeTracerProvider({ spanProcessors: [new tracing.SimpleSpanProcessor(exporter)] });
  provider.register();
  const instrumented = instrument(options);
  return {
    tracer: trace.getTracer("test"),
    get spans(): Recorded[] {
      return exporter.getFinishedSpans().map((span) => ({
        name: span.name,
        kind: SpanKind[span.kind],
        traceId: span.spanContext().traceId,
        id: span.spanContext().spanId,
        parent: span.parentSpanContext?.spanId,
        links: span.links.map((link) => link.context.spanId),
        attributes: span.attributes,
        error: span.status.code === SpanStatusCode.ERROR ? span.status.message : undefined,
      }));
    },
    reset: () => exporter.reset(),
    async [Symbol.asyncDispose]() {
      instrumented[Symbol.dispose]();
      await provider.shutdown();
      trace.disable();
      context.disable();
      propagation.disable();
    },
  };
}
