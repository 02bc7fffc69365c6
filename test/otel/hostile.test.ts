/** A tracing library that fails: sends, requests and handlers go on as without it. */
import { context, ROOT_CONTEXT, type Span, type SpanContext, type TracerProvider } from "@opentelemetry/api";
import { afterEach, describe, expect, it } from "vitest";
import { inSpan, type OperationSpan } from "../../src/foundation/runtime/index.js";
import { instrument } from "../../src/operating/otel/index.js";
import { OperationTracer } from "../../src/operating/otel/tracer.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";

const world = sharedPeerWorld();
const valid: SpanContext = { traceId: "1".repeat(32), spanId: "2".repeat(16), traceFlags: 1 };
const broken = (): never => {
  throw new Error("the tracing library is broken");
};
/** Tracer whose spans are like this. */
const tracerOf = (span: object) => ({ startSpan: () => span as Span, startActiveSpan: broken });
const providerOf = (tracer: ReturnType<typeof tracerOf>): TracerProvider => ({ getTracer: () => tracer });
const failingSpan = { spanContext: () => valid, setAttribute: broken, setStatus: broken, end: broken };

afterEach(() => {
  context.disable();
});

/** Sends, requests, and messages of failing and of transactional handlers. */
async function exchange(): Promise<unknown[]> {
  const a = await world.started("a-1");
  const handled: string[] = [];
  const b = await world.started("b-1", { defaults: { retry: { attempts: 1 } } }, (message) => {
    handled.push(message.text());
  });
  b.respond("b", () => "answer");
  await a.send("b", "one");
  const { payload } = await a.request("b", "two");
  const [outcome] = await a.sendAll("b", "three");
  return [handled, Buffer.from(payload).toString(), outcome !== undefined && "error" in outcome];
}

describe("a tracing library that throws", () => {
  it.each([
    ["as it starts a span", { startSpan: broken, startActiveSpan: broken }],
    ["as it ends a span", tracerOf(failingSpan)],
    ["as it tells the ids of a span", tracerOf({ ...failingSpan, spanContext: broken })],
    [
      "as it writes the state",
      tracerOf({ ...failingSpan, spanContext: () => ({ ...valid, traceState: { serialize: broken } }) }),
    ],
  ])("%s leaves messages and requests alone", async (_, tracer) => {
    using _tracing = instrument({ livePerMillion: 1_000_000, tracerProvider: providerOf(tracer) });
    expect(await exchange()).toEqual([["one", "three"], "answer", false]);
  });

  it("as it activates a context runs the call once, without it", async () => {
    const active = () => ROOT_CONTEXT;
    context.setGlobalContextManager({
      active,
      with: broken,
      bind: (_, target) => target,
      enable: () => context as never,
      disable: () => context as never,
    });
    using _tracing = instrument({ livePerMillion: 1_000_000, tracerProvider: providerOf(tracerOf(failingSpan)) });
    expect(await exchange()).toEqual([["one", "three"], "answer", false]);
  });
});

describe("a span", () => {
  const ofProcess = { kind: "process", system: "hawser", destination: "b" } as const;

  it("passes no state on that a header cannot have", () => {
    const stateOf = (state: string) =>
      new OperationTracer(
        tracerOf({ ...failingSpan, spanContext: () => ({ ...valid, traceState: { serialize: () => state } }) }),
        1,
      ).start(ofProcess)?.context.state;
    expect([stateOf("a=1"), stateOf("a=1\r\nb: 2"), stateOf(`a=${"x".repeat(1_000)}`)]).toEqual(["a=1", "", ""]);
  });

  it("has no context that a header cannot have, if a generator of ids writes capital letters", () => {
    const contextOf = (spanId: string) =>
      new OperationTracer(tracerOf({ ...failingSpan, spanContext: () => ({ ...valid, spanId }) }), 1).start(ofProcess)
        ?.context;
    expect([contextOf("b7ad6b7169203331"), contextOf("B7AD6B7169203331")]).toEqual([
      { parent: `00-${valid.traceId}-b7ad6b7169203331-01`, state: "" },
      undefined,
    ]);
  });

  it("rethrows what a call throws, and fails also if that is undefined", async () => {
    const ended: unknown[] = [];
    const span: OperationSpan = {
      context: { parent: "", state: "" },
      run: (call) => call(),
      setMessageId: () => undefined,
      end: (error) => void ended.push(error),
    };
    const frozen = Object.freeze({});
    for (const thrown of [Symbol("odd"), frozen, undefined, null]) {
      await expect(inSpan(span, () => Promise.reject(thrown)).catch((error) => ({ error }))).resolves.toEqual({
        error: thrown,
      });
      expect(() =>
        inSpan(span, () => {
          throw thrown;
        }),
      ).toThrow();
    }
    expect(ended).toHaveLength(8);
    expect(ended).not.toContain(undefined);
    await expect(inSpan(span, async () => "value", broken)).resolves.toBe("value");
  });

  it("has the beginning of an error that is as long as a message", () => {
    const texts: string[] = [];
    const setStatus = ({ message }: { message: string }) => texts.push(message);
    const span = { ...failingSpan, setAttribute: (_: string, type: string) => texts.push(type), setStatus };
    const code = "x".repeat(100_000);
    new OperationTracer(tracerOf(span), 1).start(ofProcess)!.end({ code, message: "y".repeat(100_000) });
    expect(texts.map(({ length }) => length)).toEqual([8_192, 8_192]);
  });

  it("is that of an error whose properties throw", () => {
    const attributes: unknown[] = [];
    const span = {
      ...failingSpan,
      setAttribute: (...given: unknown[]) => attributes.push(given),
      setStatus: () => undefined,
      end: () => undefined,
    };
    const operation = new OperationTracer(tracerOf(span), 1).start(ofProcess)!;
    operation.end(new Proxy({}, { get: broken }));
    operation.end(Symbol("odd"));
    operation.end(Object.create(null));
    expect(attributes).toEqual([
      ["error.type", "_OTHER"],
      ["error.type", "_OTHER"],
      ["error.type", "_OTHER"],
    ]);
  });
});
