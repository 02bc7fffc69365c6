/**
 * Requests: what comes back, whom they go to, and how they end when nothing comes back.
 */
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { HawserError, type Message, Reject, type RequestOptions } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { withEnoughTime } from "../support/timers.js";
import { failure } from "./support/errors.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

const textOf = (payload: Uint8Array): string => Buffer.from(payload).toString();

/** The error that a promise is rejected with. */
async function failureOf(promise: Promise<unknown>): Promise<HawserError> {
  const error = await promise.then(
    (value) => expect.fail(`resolved with ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  if (!(error instanceof HawserError)) throw error;
  return error;
}

describe("the answer", () => {
  it("is what the handler returns: text, bytes, with headers, or nothing", async () => {
    const a = await world.started("a-1");
    const returned: Record<string, unknown> = {
      text: "dé",
      bytes: new Uint8Array([0, 255]),
      headers: {
        payload: "x",
        headers: [
          ["trace", "1"],
          ["trace", "2"],
        ],
      },
      json: { left: 3 },
      nothing: undefined,
    };
    const b = await world.started("b-1", {}, (message) => returned[textOf(message.payload)]);
    const asked = (what: string) => a.request("b", what, { headers: { trace: what } });
    const answer = await asked("text");
    expect([answer.text(), [...answer.headers], answer.peer]).toEqual(["dé", [], "b-1"]);
    expect((await asked("bytes")).payload).toEqual(new Uint8Array([0, 255]));
    const json = await asked("json");
    expect([json.json(), json.headers.get("Content-Type")]).toEqual([{ left: 3 }, "application/json"]);
    const { headers, ...more } = await asked("headers");
    expect([more.payload, headers.getAll("trace"), headers.get("none")]).toEqual([
      new Uint8Array(Buffer.from("x")),
      ["1", "2"],
      undefined,
    ]);
    expect((await asked("nothing")).payload.length).toBe(0);
    expect((await a.request("b", "")).payload.length).toBe(0);
    expect(b.received.all[0]).toMatchObject({
      topic: "b",
      senderTopic: "a",
      sender: "a-1",
      headers: [["trace", "text"]],
    });
    expect(await world.query("SELECT FROM hawser_data.dead_letters")).toEqual([]);
  });

  it("comes to the one who asked, however the handlers end", async () => {
    const a = await world.started("a-1");
    await world.started("b-1", {}, async ({ payload }) => {
      await delay(Math.random() * 20);
      return payload.slice();
    });
    const texts = Array.from({ length: 200 }, (_, n) => `question ${n}`);
    const answers = await Promise.all(texts.map((text) => a.request("b", text)));
    expect(answers.map(({ payload }) => textOf(payload))).toEqual(texts);
  });

  it("may be long", async () => {
    const a = await world.started("a-1");
    await world.started("b-1", {}, ({ payload }) => payload);
    const long = new Uint8Array(9_000_000).fill(7);
    expect(Buffer.compare((await a.request("b", long)).payload, long)).toBe(0);
  });

  it("is limited by what the one who asked takes", async () => {
    const a = await world.started("a-1", { maxMessageBytes: 1_000 });
    await world.started("b-1", {}, () => new Uint8Array(1_001));
    expect(await failureOf(a.request("b", "x"))).toMatchObject({
      code: "payload_too_large",
      message: "the handler returned 1001 bytes; the sender of the request accepts at most 1000",
    });
  });

  it("is nothing where the question is longer than the listener takes", async () => {
    const a = await world.started("a-1");
    await world.started("b-1", { maxMessageBytes: 1_000 });
    const error = await failure("payload_too_large", a.request("b", new Uint8Array(1_001)));
    expect(error.message).toBe('the payload has 1001 bytes; "b-1" accepts at most 1000');
    expect(error.outcome).toBeUndefined();
  });

  it("is the error that the handler throws, with its code", async () => {
    const a = await world.started("a-1");
    const errors = [
      new Error("no stock"),
      new Reject("no such article"),
      new HawserError("busy", "come back later"),
      7,
      new Error(`long ${"x".repeat(5_000)}`),
    ];
    await world.started("b-1", {}, ({ payload }) => {
      throw errors[Number(textOf(payload))];
    });
    const failed = (n: number) => failureOf(a.request("b", `${n}`));
    expect(await failed(0)).toMatchObject({ code: "handler_failed", message: "Error: no stock", outcome: "unknown" });
    expect(await failed(1)).toMatchObject({ code: "rejected", message: "no such article" });
    expect(await failed(2)).toMatchObject({ code: "busy", message: "come back later" });
    expect(await failed(3)).toMatchObject({ code: "handler_failed", message: "a value that is no error: 7" });
    expect((await failed(4)).message.length).toBeLessThanOrEqual(1024);
    expect(await world.query("SELECT FROM hawser_data.dead_letters")).toEqual([]);
  });

  it("is an error whatever the handler throws, and the listener lives on", async () => {
    const a = await world.started("a-1");
    const trap = (): never => {
      throw new Error("do not look");
    };
    const thrown: unknown[] = [
      new Error(`no ship ${"🚢".slice(0, 1)}`),
      Object.assign(new HawserError("busy", "x"), { code: "of_another_version" }),
      Object.assign(new HawserError("busy", "x"), { message: 7 }),
      new Proxy({}, { has: trap, getPrototypeOf: trap }),
    ];
    await world.started("b-1", {}, ({ payload }) => {
      throw thrown[Number(textOf(payload))];
    });
    const failed = (n: number) => failureOf(a.request("b", `${n}`, { timeoutMs: 60_000 }));
    expect(await failed(0)).toMatchObject({ code: "handler_failed", message: "Error: no ship \ufffd" });
    expect(await failed(1)).toMatchObject({ code: "handler_failed", message: "HawserError: x" });
    expect(await failed(2)).toMatchObject({ code: "busy", message: "7" });
    expect(await failed(3)).toMatchObject({ code: "handler_failed", message: "a value that cannot be shown" });
    // As a message, too, where it ends in a dead letter.
    for (const n of [0, 1, 2, 3]) await a.send("b", `${n}`, { delivery: "at-most-once" });
    expect(await failed(0)).toMatchObject({ code: "handler_failed" });
  });

  it.each([
    [7, "number"],
    [{ payload: 7 }, "number"],
    [{ headers: { "no good": "x" } }, "header name"],
    [new Map([["stock", 7]]), "Map"],
  ])("cannot be %j", async (returned, named) => {
    const a = await world.started("a-1");
    await world.started("b-1", {}, () => returned);
    const error = await failureOf(a.request("b", "x"));
    expect(error.code).not.toBe("request_timeout");
    expect(error.message).toContain(named);
  });

  it("of a transactional handler comes when its transaction has ended: only with an answer is it committed", async () => {
    const a = await world.started("a-1", { maxMessageBytes: 1_000 });
    await world.query("CREATE TABLE IF NOT EXISTS asked (v text)");
    const returned: Record<string, unknown> = {
      good: "done",
      long: "x".repeat(1_001),
      "no answer": 7,
      header: { headers: { "no good": "x" } },
      "no boolean": { payload: "x", rollBack: "yes" },
      refused: { payload: "no", rollBack: true },
    };
    const b = await world.started("b-1", { transactional: true }, async ({ client, payload }) => {
      await client.query("INSERT INTO asked VALUES ($1)", [textOf(payload)]);
      if (textOf(payload) === "thrown") throw new Error("after the insert");
      return returned[textOf(payload)];
    });
    const failed = async (what: string) => (await failureOf(a.request("b", what))).code;
    expect(textOf((await a.request("b", "good")).payload)).toBe("done");
    expect(await failed("thrown")).toBe("handler_failed");
    expect(await failed("long")).toBe("payload_too_large");
    expect(await failed("no answer")).toBe("handler_failed");
    expect(await failed("header")).toBe("invalid_argument");
    expect(await failed("no boolean")).toBe("handler_failed");
    expect(textOf((await a.request("b", "refused")).payload)).toBe("no");
    expect(await world.query("SELECT v FROM asked")).toEqual([{ v: "good" }]);
    expect(b.received.all.length).toBe(7);
  });
});

describe("whom a request goes to", () => {
  it("is one listener after another", async () => {
    const a = await world.started("a-1");
    await world.started("b-1", {}, () => "1");
    await world.started("b-2", {}, () => "2");
    await a.listenersOf("b", { refresh: true });
    const peers = [];
    for (let n = 0; n < 6; n++) peers.push((await a.request("b", "x")).peer);
    expect(peers.filter((peer) => peer === "b-1").length).toBe(3);
  });

  it("is the next one where the first is gone, stops, or does not serve it any more", async () => {
    const a = await world.started("a-1");
    await world.list("b", "b-0");
    await world.started("b-1", {}, () => "1");
    const b2 = await world.started("b-2", {}, () => "2");
    for (let n = 0; n < 4; n++) expect(["b-1", "b-2"]).toContain((await a.request("b", "x")).peer);
    const release = gate();
    const b3 = await world.started("b-3", {}, async () => {
      await release.opened;
      return "3";
    });
    await a.listenersOf("b", { refresh: true });
    const underWay = Array.from({ length: 9 }, () => a.request("b", "x"));
    await eventually("the third is asked", () => b3.received.all.length > 0);
    const stopped = b3.stop();
    const later = await Promise.all(Array.from({ length: 6 }, () => a.request("b", "x")));
    expect(later.map(({ peer }) => peer)).not.toContain("b-3");
    release.open();
    await stopped;
    expect((await Promise.all(underWay)).map(({ peer }) => peer)).toContain("b-3");
    await b2.stop();
    expect((await a.request("b", "x")).peer).toBe("b-1");
  });

  it("is nobody: `no_listener`, or `unreachable` where there was somebody", async () => {
    const a = await world.started("a-1");
    expect(await failureOf(a.request("nobody", "x"))).toMatchObject({ code: "no_listener" });
    const b = await world.started("b-1", {}, () => "1");
    await a.request("b", "x");
    await b.stop();
    // Until a has heard of it, a request goes to the connection that has ended.
    let error = await failureOf(a.request("b", "x"));
    while (error.code === "listener_lost") error = await failureOf(a.request("b", "x"));
    expect(error).toMatchObject({ code: "unreachable" });
    expect(error.outcome).toBeUndefined();
    await b.startWith(() => "again");
    await eventually("it is back", async () => (await a.request("b", "x").catch(() => undefined))?.peer === "b-1");
  });

  it("is no peer that only handles messages of the topic", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    await b.handle("b", () => undefined);
    await b.start();
    expect(await failure("not_supported", a.request("b", "x"))).toMatchObject({
      message: '"b-1" handles messages of "b" but no requests; set a handler with respond',
    });
    await world.started("b-2", {}, () => "2");
    await a.listenersOf("b", { refresh: true });
    expect((await a.request("b", "x")).peer).toBe("b-2");
  });

  it("is the handler of its topic", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    await b.respond("c", () => "of c");
    await b.start();
    const ofD = await b.respond("d", () => "of d");
    await b.respond("b", () => "of b");
    for (const topic of ["b", "c", "d"]) expect(textOf((await a.request(topic, "x")).payload)).toBe(`of ${topic}`);
    await ofD.stop();
    await eventually("nobody serves it", async () => {
      const error = await a.request("d", "x").catch((reason: unknown) => reason);
      return error instanceof HawserError && ["unreachable", "no_listener"].includes(error.code);
    });
  });
});

describe("no answer", () => {
  it("in time: `request_timeout`; the handler hears of it, and what waits behind it is not begun", async () => {
    const a = await world.started("a-1");
    const [begun, release] = [gate(), gate()];
    const signals: AbortSignal[] = [];
    const b = await world.started("b-1", { concurrency: 1 }, async (message: Message) => {
      signals.push(message.signal);
      begun.open();
      await release.opened;
    });
    const { first, limitMs } = await withEnoughTime(500, async (limitMs) => {
      const first = failureOf(a.request("b", "1", { timeoutMs: limitMs }));
      await Promise.race([begun.opened, first]);
      return signals.length > 0 ? { first, limitMs } : undefined;
    });
    const second = failureOf(a.request("b", "2", { timeoutMs: 50 }));
    expect(await first).toMatchObject({ code: "request_timeout", outcome: "unknown", retryable: true });
    expect((await first).message).toContain(`${limitMs} ms`);
    expect(await second).toMatchObject({ code: "request_timeout" });
    await eventually("the handler hears of it", () => signals[0]?.aborted === true);
    release.open();
    expect(textOf((await a.request("b", "3")).payload)).toBe("");
    expect(b.texts).toEqual(["1", "3"]);
  });

  it("because the caller aborts: `aborted`, at both ends", async () => {
    const a = await world.started("a-1");
    const [begun, release] = [gate(), gate()];
    let signal: AbortSignal | undefined;
    await world.started("b-1", {}, async (message) => {
      signal = message.signal;
      begun.open();
      await release.opened;
    });
    const caller = new AbortController();
    const asked = failureOf(a.request("b", "x", { signal: caller.signal }));
    await begun.opened;
    caller.abort(new Error("enough"));
    expect(await asked).toMatchObject({ code: "aborted", outcome: "unknown", cause: new Error("enough") });
    await eventually("the handler hears of it", () => signal?.aborted === true);
    release.open();
    const before = await failureOf(a.request("b", "x", { signal: caller.signal }));
    expect(before).toMatchObject({ code: "aborted" });
    expect(before.outcome).toBeUndefined();
  });

  it("because the caller aborts while the listeners are looked up: then nothing leaves", async () => {
    const a = await world.started("a-1");
    const b = await world.started("b-1", {}, () => "x");
    await b.recordTopic("b.extra");
    // Its connection is open, and its handler would begin at once.
    await a.request("b", "first");
    await (await world.started("c-1")).request("b.extra", "of another peer");
    const asking = new AbortController();
    const failed = failureOf(a.request("b.extra", "aborted", { signal: asking.signal }));
    queueMicrotask(() => asking.abort());
    expect((await failed).outcome).toBeUndefined();
    await a.request("b.extra", "last");
    expect(b.received.all.map(({ text }) => text)).toEqual(["first", "of another peer", "last"]);
  });

  it("because too many wait: `busy`", async () => {
    const a = await world.started("a-1", { tuning: { maxRequests: 3 } });
    const [begun, release] = [gate(), gate()];
    await world.started("b-1", { concurrency: 1, tuning: { maxRequests: 1 } }, async () => {
      begun.open();
      await release.opened;
      return "x";
    });
    const first = a.request("b", "1");
    await begun.opened;
    const second = a.request("b", "2");
    expect(await failureOf(a.request("b", "3"))).toMatchObject({
      code: "busy",
      message: expect.stringContaining('at "b-1"'),
    });
    const third = failureOf(a.request("b", "4"));
    expect(await failureOf(a.request("b", "5"))).toMatchObject({
      code: "busy",
      message: expect.stringContaining("raise maxRequests"),
    });
    expect((await third).code).toBe("busy");
    release.open();
    await Promise.all([first, second]);
  });

  it("because those that wait take too much memory, headers and all: `busy`", async () => {
    const a = await world.started("a-1");
    const [begun, release] = [gate(), gate()];
    await world.started("b-1", { concurrency: 1, tuning: { creditBytes: 1_024 } }, async () => {
      begun.open();
      await release.opened;
      return "x";
    });
    const first = a.request("b", "");
    await begun.opened;
    const headers = { long: "v".repeat(2_000) };
    const second = a.request("b", "", { headers });
    expect(await failureOf(a.request("b", ""))).toMatchObject({
      code: "busy",
      message: expect.stringContaining('at "b-1"'),
    });
    release.open();
    await Promise.all([first, second]);
    expect(Buffer.from((await a.request("b", "", { headers })).payload).toString()).toBe("x");
  });

  it("not because many have waited that were cancelled", async () => {
    const a = await world.started("a-1");
    const [begun, release] = [gate(), gate()];
    await world.started("b-1", { concurrency: 1, tuning: { maxRequests: 3 } }, async () => {
      begun.open();
      await release.opened;
    });
    const first = a.request("b", "1");
    await begun.opened;
    const leaving = new AbortController();
    const left = [1, 2, 3].map(() => failureOf(a.request("b", "x", { signal: leaving.signal })));
    expect((await failureOf(a.request("b", "one too many"))).code).toBe("busy");
    leaving.abort();
    await Promise.all(left);
    // It waits, and is not refused.
    expect((await failureOf(a.request("b", "2", { timeoutMs: 200 }))).code).toBe("request_timeout");
    release.open();
    await first;
  });

  it("because this peer stops: what is under way is waited for", async () => {
    const a = await world.started("a-1");
    const [begun, release] = [gate(), gate()];
    await world.started("b-1", {}, async () => {
      begun.open();
      await release.opened;
      return "late";
    });
    const asked = a.request("b", "x");
    await begun.opened;
    const stopped = a.stop();
    release.open();
    expect(textOf((await asked).payload)).toBe("late");
    await stopped;
    expect(await failureOf(a.request("b", "x"))).toMatchObject({ code: "not_running" });
  });
});

describe("an idempotent request whose first listener was lost after its handler had begun", () => {
  /** Sends a request to `b-1`, which is lost when others have the topic. */
  async function asked(
    addOthers: () => Promise<unknown>,
    options: RequestOptions = {},
    onLost: (a: TestPeer) => unknown = () => undefined,
  ) {
    const a = await world.started("a-1");
    const begun = gate();
    const b = await world.started("b-1", {}, () => {
      begun.open();
      return new Promise(() => undefined);
    });
    const error = failureOf(a.request("b", "x".repeat(1_001), { idempotent: true, ...options }));
    await begun.opened;
    await addOthers();
    await a.listenersOf("b", { refresh: true });
    await b.stop({ timeoutMs: 1 });
    await onLost(a);
    return await error;
  }

  it.each([
    ["is the only one", undefined, async (): Promise<void> => undefined],
    ["is followed by one that is gone", "unreachable", () => world.list("b", "b-0")],
    [
      "is followed by one that handles messages only",
      "not_supported",
      async () => {
        const b = world.peer("b-2");
        await b.handle("b", () => undefined);
        await b.start();
      },
    ],
    [
      "is followed by one that takes shorter ones",
      "payload_too_large",
      () => world.started("b-2", { maxMessageBytes: 1_000 }),
    ],
  ])("may have been carried out if that %s", async (_, code, addOthers) => {
    const error = await asked(addOthers);
    expect(error).toMatchObject({ code: "listener_lost", outcome: "unknown" });
    if (code !== undefined)
      expect(error).toMatchObject({ cause: { code }, message: expect.stringContaining("no other") });
  });

  it("may have been carried out if the caller aborts while the next one is dialled", async () => {
    const caller = new AbortController();
    const silent = createServer();
    const dialled = once(silent, "connection");
    await once(silent.listen(0, "127.0.0.1"), "listening");
    const addr = `127.0.0.1:${(silent.address() as AddressInfo).port}`;
    const addSilent = () => world.list("b", "b-0", { addr });
    const error = await asked(addSilent, { signal: caller.signal }, async (a) => {
      await a.saw("peer_disconnected", ({ peer }) => peer === "b-1");
      await dialled;
      // The request is the next one's by then.
      await new Promise(setImmediate);
      caller.abort();
    });
    silent.close();
    expect(error).toMatchObject({ code: "aborted", outcome: "unknown" });
  });
});

it.each([
  [{ timeoutMs: 0 }, "timeoutMs 0"],
  [{ timeoutMs: 1.5 }, "timeoutMs 1.5"],
  [{ timeoutMs: "1" as never }, "timeoutMs"],
  [{ headers: { "a b": "x" } }, "a b"],
  [{ deadline: 5 } as never, "deadline"],
])("options %j are refused", async (options, named) => {
  const a = await world.started("a-1");
  const error = await failureOf(a.request("b", "x", options));
  expect(error.code).toBe("invalid_argument");
  expect(error.message).toContain(named);
});
