/**
 * Spans: which operations have one, and how those of one message form one trace.
 */
import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { enqueue, Reject } from "../../src/jobs-and-peers/peer/index.js";
import { instrument } from "../../src/operating/otel/index.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { eventually } from "../support/eventually.js";
import { recordedSpans } from "./support/recorded-spans.js";

const world = sharedPeerWorld();
let recorded: ReturnType<typeof recordedSpans>;
beforeAll(() => {
  recorded = recordedSpans({ livePerMillion: 0 });
});
afterAll(() => recorded?.[Symbol.asyncDispose]());
afterEach(() => recorded.reset());

async function connected(url: string) {
  const client = new pg.Client(url);
  await client.connect();
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.end() });
}

describe("a message between peers", () => {
  it("has a span where it is sent, and one where it is handled, in the trace of the request", async () => {
    const a = await world.started("a-1");
    await world.started("b-1", {}, () => undefined);
    const request = await recorded.inSpan("GET /", () => a.send("b", "hello", { messageId: "m-1" }));
    const [sent, handled] = await recorded.spansOf("send b", "process b");
    expect([sent, handled]).toMatchObject([
      { kind: "PRODUCER", parent: request.id, traceId: request.traceId, error: undefined },
      { kind: "CONSUMER", parent: sent!.id, traceId: request.traceId, error: undefined },
    ]);
    expect(sent!.attributes).toEqual({
      "messaging.system": "hawser",
      "messaging.operation.type": "send",
      "messaging.operation.name": "send",
      "messaging.destination.name": "b",
      "messaging.message.id": "m-1",
      "messaging.message.body.size": 5,
      "messaging.client.id": "a-1",
      "hawser.outcome": "delivered",
    });
    expect(handled!.attributes).toEqual({
      "messaging.system": "hawser",
      "messaging.operation.type": "process",
      "messaging.operation.name": "process",
      "messaging.destination.name": "b",
      "messaging.message.id": "m-1",
      "messaging.message.body.size": 5,
      "messaging.client.id": "b-1",
      "hawser.attempt": 1,
    });
  });

  it("has none if it is live and belongs to no trace, and keeps the trace that its headers name", async () => {
    const a = await world.started("a-1");
    const seen: (string | undefined)[] = [];
    await world.started("b-1", {}, ({ headers }) => void seen.push(headers.get("traceparent")));
    await a.send("b", "x");
    const named = `00-${"1".repeat(32)}-${"2".repeat(16)}-01`;
    await recorded.inSpan("GET /", () => a.send("b", "y", { headers: { TraceParent: named } }));
    const [handled] = await recorded.spansOf("process b");
    expect(handled).toMatchObject({ traceId: "1".repeat(32), parent: "2".repeat(16) });
    expect(seen).toEqual([undefined, named]);
    expect(recorded.spans.map(({ name }) => name).sort()).toEqual(["GET /", "process b", "send b"]);
  });

  it("has a span for each attempt, with the error of one that fails", async () => {
    const a = await world.started("a-1");
    await world.started("b-1", { defaults: { retry: { attempts: 2, delayMs: 1 } } }, ({ attempt }) => {
      if (attempt === 1) throw new TypeError("not yet");
      throw new Reject("never");
    });
    await recorded.inSpan("GET /", () => a.send("b", "x"));
    await eventually(
      "both attempts have ended",
      () => recorded.spans.filter(({ name }) => name === "process b").length === 2,
    );
    const attempts = recorded.spans.filter(({ name }) => name === "process b");
    expect(
      attempts.map(({ error, attributes }) => [attributes["hawser.attempt"], attributes["error.type"], error]),
    ).toEqual([
      [1, "TypeError", "not yet"],
      [2, "rejected", "never"],
    ]);
    expect(new Set(attempts.map(({ parent }) => parent)).size).toBe(1);
  });

  it("is sent on in the trace by its handler, whether that returns a promise or not", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    await b.handle("sync", (message) => void b.send("c", message.payload));
    await b.handle("async", async (message) => {
      await Promise.resolve();
      await b.send("c", message.payload);
    });
    await b.start();
    await world.started("c-1", {}, () => undefined);
    const { traceId } = await recorded.inSpan("GET /", () => Promise.all([a.send("sync", "x"), a.send("async", "y")]));
    await eventually("all has arrived", () => recorded.spans.filter(({ name }) => name === "process c").length === 2);
    expect(new Set(recorded.spans.map((span) => span.traceId))).toEqual(new Set([traceId]));
    const idOf = (name: string) => recorded.spans.find((span) => span.name === name)!.id;
    const parents = recorded.spans.filter(({ name }) => name === "send c").map(({ parent }) => parent);
    expect(new Set(parents)).toEqual(new Set([idOf("process sync"), idOf("process async")]));
  });

  it("has a span for storing it, and for sendAll and replies", async () => {
    const a = await world.started("a-1");
    const b = await world.started("b-1", { defaults: { durable: true } }, (message) => message.reply("back"));
    await b.stop();
    await recorded.inSpan("GET /", () => a.send("b", "x"));
    const [stored] = await recorded.spansOf("store b");
    const sent = recorded.spans.find(({ name }) => name === "send b")!;
    expect([stored!.parent, stored!.attributes["messaging.batch.message_count"]]).toEqual([sent.id, 1]);
    expect(sent.attributes["hawser.outcome"]).toBe("stored");
    await b.start();
    const [handled] = await recorded.spansOf("process b");
    expect(handled!.parent).toBe(sent.id);
    recorded.reset();
    await recorded.inSpan("GET /", () => a.sendAll("b", "y"));
    const [first, reply] = await recorded.spansOf("send b", "send a");
    expect(reply!.traceId).toBe(first!.traceId);
  });

  it("of a batch links all messages, and continues the trace that they share", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    await b.handleBatch("t", { maxMessages: 10, waitMs: 60_000 }, () => undefined);
    await b.start();
    const send = (key: number) => recorded.inSpan("GET /", () => a.send("t", "x", { key: `${key}` }));
    const requests = Promise.all(Array.from({ length: 10 }, (_, key) => send(key)));
    await requests;
    const [batch] = await recorded.spansOf("process t");
    const sent = recorded.spans.filter(({ name }) => name === "send t");
    expect(batch!.parent).toBe(undefined);
    expect(new Set(batch!.links)).toEqual(new Set(sent.map(({ id }) => id)));
    expect(batch!.attributes["messaging.batch.message_count"]).toBe(10);
    recorded.reset();
    await recorded.inSpan("GET /", () =>
      Promise.all(Array.from({ length: 10 }, (_, key) => a.send("t", "x", { key: `${key}` }))),
    );
    const [again] = await recorded.spansOf("process t");
    expect(again!.traceId).toBe(recorded.spans.find(({ name }) => name === "send t")!.traceId);
    expect(again!.links.length).toBe(9);
  });
});

describe("a request", () => {
  it("has a span on both sides, with the error that its handler threw", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    await b.respond("sum", { transactional: true }, async ({ client, payload }) => {
      if (payload.length === 0) throw new Reject("nothing to sum");
      const { rows } = await client.query("SELECT current_setting('hawser.traceparent', true) AS parent");
      return rows[0].parent;
    });
    await b.start();
    let parent = "";
    await recorded.inSpan("GET /", async () => {
      parent = (await a.request("sum", "x")).text();
    });
    const [asked, answered] = await recorded.spansOf("request sum", "respond sum");
    expect([asked!.kind, answered!.kind, answered!.parent]).toEqual(["CLIENT", "SERVER", asked!.id]);
    expect(parent).toBe(`00-${asked!.traceId}-${answered!.id}-01`);
    recorded.reset();
    await recorded.inSpan("GET /", () => a.request("sum", "").catch(() => undefined));
    const [failed, threw] = await recorded.spansOf("request sum", "respond sum");
    expect([failed!.attributes["error.type"], threw!.attributes["error.type"]]).toEqual(["rejected", "rejected"]);
  });

  it("has an ended span also if it cannot be sent at all", async () => {
    const a = await world.started("a-1");
    await recorded.inSpan("GET /", async () => {
      await a.request("x".repeat(256), "p").catch(() => undefined);
      await a.send("y".repeat(256), "p").catch(() => undefined);
      await a.request("nobody", "p").catch(() => undefined);
    });
    const ended = recorded.spans.map(({ name, attributes }) => [name[0] + name.at(-1)!, attributes["error.type"]]);
    expect(ended).toEqual([
      ["rx", "invalid_argument"],
      ["sy", "invalid_argument"],
      ["ry", "no_listener"],
      ["G/", undefined],
    ]);
  });
});

describe("what is enqueued", () => {
  it("has a span in the active trace, and its handler continues it in SQL, too", async () => {
    const b = world.worker("b-1");
    await b.handle("jobs", { transactional: true }, async ({ client }) => {
      await client.query("SELECT hawser.enqueue('more', 'x')");
      await enqueue(client, "more", "y");
    });
    await b.handle("more", () => undefined);
    await b.start();
    await using client = await connected(world.url);
    let id: bigint | undefined;
    const { traceId } = await recorded.inSpan("GET /", async () => {
      id = await enqueue(client, "jobs", "x", { messageId: "order-17" });
    });
    await eventually("all is done", () => recorded.spans.filter(({ name }) => name === "process more").length === 2);
    const [job, written, wrote] = await recorded.spansOf("process jobs", "enqueue jobs", "enqueue more");
    expect([job!.parent, wrote!.parent]).toEqual([written!.id, job!.id]);
    for (const span of [written, job]) expect(span!.attributes["messaging.message.id"]).toBe(String(id));
    const parents = recorded.spans.filter(({ name }) => name === "process more").map(({ parent }) => parent);
    expect(new Set(parents)).toEqual(new Set([job!.id, wrote!.id]));
    expect(new Set(recorded.spans.map((span) => span.traceId))).toEqual(new Set([traceId]));
  });

  it("without an active span leaves the trace to the transaction, and begins one where it is handled", async () => {
    const b = await world.working("b-1", {}, () => undefined);
    await using client = await connected(world.url);
    await enqueue(client, "b", "x");
    const [handled] = await recorded.spansOf("process b");
    expect([handled!.parent, recorded.spans.length]).toEqual([undefined, 1]);
    recorded.reset();
    const parent = `00-${"3".repeat(32)}-${"4".repeat(16)}-01`;
    await client.query("SELECT set_config('hawser.traceparent', $1, false)", [parent]);
    await enqueue(client, "b", "x");
    const [continued] = await recorded.spansOf("process b");
    expect(continued).toMatchObject({ traceId: "3".repeat(32), parent: "4".repeat(16) });
    await b.stop();
  });
});

describe("instrument", () => {
  it("refuses unknown options and invalid values", () => {
    expect(() => instrument({ live: 1 } as object)).toThrow(/"live" is not an option/);
    expect(() => instrument({ livePerMillion: 1_000_001 })).toThrow(/livePerMillion 1000001/);
    expect(() => instrument({ tracerProvider: {} as never })).toThrow(/must be a TracerProvider/);
  });

  it("begins traces of live messages by its share", async () => {
    const a = await world.started("a-1");
    await world.started("b-1", {}, () => undefined);
    {
      using _ = instrument({ livePerMillion: 1_000_000 });
      await a.send("b", "x");
      const [sent, handled] = await recorded.spansOf("send b", "process b");
      expect([sent!.parent, handled!.parent]).toEqual([undefined, sent!.id]);
    }
    recorded.reset();
    await a.send("b", "x");
    expect(recorded.spans).toEqual([]);
  });
});
