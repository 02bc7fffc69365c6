/** Spans that the SDK of OpenTelemetry records in memory. */
import { context, propagation, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { node, tracing } from "@opentelemetry/sdk-node";
import { instrument, type OtelOptions } from "../../../src/operating/otel/index.js";
import { eventually } from "../../support/eventually.js";

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
  const tracer = trace.getTracer("test");
  const spans = (): Recorded[] =>
    exporter.getFinishedSpans().map((span) => ({
      name: span.name,
      kind: SpanKind[span.kind],
      traceId: span.spanContext().traceId,
      id: span.spanContext().spanId,
      parent: span.parentSpanContext?.spanId,
      links: span.links.map((link) => link.context.spanId),
      attributes: span.attributes,
      error: span.status.code === SpanStatusCode.ERROR ? span.status.message : undefined,
    }));
  return {
    /** Ended spans, in the order of their ends. */
    get spans(): Recorded[] {
      return spans();
    },
    /** Runs `work` in a span, as the handler of an HTTP request would. @returns ids of the span and its trace */
    async inSpan(name: string, work: () => Promise<unknown>): Promise<{ id: string; traceId: string }> {
      return await tracer.startActiveSpan(name, async (span) => {
        try {
          await work();
        } finally {
          span.end();
        }
        const { spanId: id, traceId } = span.spanContext();
        return { id, traceId };
      });
    },
    /** Waits for ended spans of these names, and returns the first of each; the second for a name that is given twice. */
    async spansOf(...names: string[]): Promise<Recorded[]> {
      const found = (): (Recorded | undefined)[] =>
        names.map((name, nth) => {
          const before = names.slice(0, nth).filter((each) => each === name).length;
          return spans().filter((span) => span.name === name)[before];
        });
      await eventually(`there are spans ${names.join(", ")}`, () => found().every((span) => span !== undefined));
      return found() as Recorded[];
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
