/**
 * `handle`: a handler for one topic, with options of its own.
 */
import { StringValueSchema } from "@bufbuild/protobuf/wkt";
import { beforeEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

const nothing = (): undefined => undefined;
const textOf = ({ payload }: { readonly payload: Uint8Array }) => Buffer.from(payload).toString();

beforeEach(() => world.query("CREATE TABLE ledger (what text)"));

async function ledger(): Promise<string[]> {
  return (await world.query<{ what: string }>("SELECT what FROM ledger ORDER BY what")).map(({ what }) => what);
}

describe("handle", () => {
  it("gives each topic its own handler, transactional or not, also before the peer runs", async () => {
    const b = world.peer("b-1");
    const plain: string[] = [];
    await b.handle("orders", { transactional: true }, async (message) => {
      await message.client.query("INSERT INTO ledger VALUES ($1)", [textOf(message)]);
    });
    await b.handle("letters", (message) => void plain.push(textOf(message)));
    await b.start();
    const a = await world.started("a-1");
    await Promise.all([a.send("orders", "an order"), a.send("letters", "a letter")]);
    await eventually("the letter is handled", () => plain.length === 1);
    expect(plain).toEqual(["a letter"]);
    await world.handled();
    expect(await ledger()).toEqual(["an order"]);
  });

  it("tries each topic's messages again as its policy says, and tells of each attempt that failed", async () => {
    const b = world.peer("b-1", { defaults: { retry: { attempts: 2, delayMs: 1 } } });
    const error = new Error("not yet");
    const fail = () => {
      throw error;
    };
    await b.handle("orders", { retry: { attempts: 4, delayMs: 1, factor: 1, jitterPercent: 50 } }, fail);
    await b.handle("letters", fail);
    await b.record();
    const a = await world.started("a-1");
    await Promise.all([a.send("orders", "x"), a.send("letters", "y")]);
    const letters = await world.deadLetters(2);
    expect(Object.fromEntries(letters.map(({ topic, attempts }) => [topic, attempts]))).toEqual({
      orders: 4,
      letters: 2,
    });
    const failed = b.statuses.all.filter(({ kind }) => kind === "attempt_failed");
    expect(failed.filter((status) => "topic" in status && status.topic === "orders")).toEqual(
      [1, 2, 3, 4].map((attempt) => ({
        kind: "attempt_failed",
        topic: "orders",
        peer: "a-1",
        id: expect.stringMatching(/^a-1:a:b-1\/\d+\/\d+$/),
        attempt,
        code: "handler_failed",
        message: "Error: not yet",
        error,
      })),
    );
    expect(failed).toHaveLength(6);
  });

  it("aborts the signal of a handler whose time is up", async () => {
    const b = world.peer("b-1");
    const reasons: string[] = [];
    await b.handle("orders", { timeoutMs: 20, retry: { attempts: 1 } }, async ({ signal }) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      reasons.push(String(signal.reason));
    });
    await b.start();
    const a = await world.started("a-1");
    await a.send("orders", "x");
    await eventually("the signal is aborted", () => reasons.length === 1);
    expect(reasons[0]).toContain("did not complete within 20 ms");
    expect(await world.deadLetters(1)).toMatchObject([{ error_code: "handler_failed" }]);
  });

  it("aborts the signal of a handler for which a stop does not wait any longer", async () => {
    const b = world.peer("b-1");
    const begun = gate();
    const aborted = gate();
    await b.handle("orders", async ({ signal }) => {
      signal.addEventListener("abort", aborted.open);
      begun.open();
      await aborted.opened;
    });
    await b.start();
    const a = await world.started("a-1");
    void a.send("orders", "x").catch(() => undefined);
    await begun.opened;
    await b.stop({ timeoutMs: 50 });
    await aborted.opened;
  });

  it("tells of requests and at-most-once messages whose handler has failed, too", async () => {
    const b = world.peer("b-1");
    const error = new Error("no");
    const fail = async (): Promise<void> => {
      throw error;
    };
    for (const [topic, transactional] of [
      ["orders", false],
      ["ledger", true],
    ] as const) {
      await b.handle(topic, { transactional }, fail);
      await b.respond(topic, { transactional }, fail);
    }
    await b.start();
    const a = await world.started("a-1");
    for (const topic of ["orders", "ledger"]) {
      await failure("handler_failed", () => a.request(topic, "x"));
      expect(await a.send(topic, "y", { delivery: "at-most-once" })).toMatchObject({ outcome: "sent" });
    }
    const failed = () => b.statuses.all.filter(({ kind }) => kind === "attempt_failed");
    await eventually("all are told", () => failed().length === 4);
    expect(failed()).toEqual(
      ["orders", "orders", "ledger", "ledger"].map((topic) => ({
        kind: "attempt_failed",
        topic,
        peer: "a-1",
        attempt: 1,
        code: "handler_failed",
        message: "Error: no",
        error,
      })),
    );
  });

  it("lets the compiler know which messages have a client", () => {
    const b = world.peer("b-1");
    const options = { transactional: true } as const;
    const compiled = (): unknown[] => [
      b.handle("orders", options, ({ client }) => client.query("SELECT 1")),
      b.handleBatch("orders", options, (messages, { client }) => [client.query(""), messages[0]!.client.query("")]),
      b.handle(StringValueSchema, options, (value, { client }) => [value.value, client.query("SELECT 1")]),
      b.handleBatch(StringValueSchema, options, ([value], batch) => [
        value!.value,
        batch.client,
        batch.messages[0]!.client,
      ]),
      b.handleBatch(StringValueSchema, {}, ([value], { fail, messages }) => fail(messages[0]!, value!.value)),
      // @ts-expect-error not transactional
      b.handle("orders", ({ client }) => client),
      // @ts-expect-error not transactional
      b.handle("orders", { timeoutMs: 5 }, ({ client }) => client),
      // @ts-expect-error not transactional
      b.handle("orders", { transactional: false }, ({ client }) => client),
      // @ts-expect-error not transactional
      b.handleBatch("orders", {}, (_, { client }) => client),
      // @ts-expect-error not transactional
      b.handleBatch("orders", {}, ([message]) => message!.client),
      // @ts-expect-error not transactional
      b.handle(StringValueSchema, (_, { client }) => client),
      // @ts-expect-error not transactional
      b.handleBatch(StringValueSchema, {}, (_, { client }) => client),
      // @ts-expect-error no field of the type
      b.handle(StringValueSchema, (value) => value.nothing),
      // @ts-expect-error no option
      b.handle("orders", { maxMessages: 5 }, () => undefined),
    ];
    expect(compiled).toBeTypeOf("function");
  });

  it("ends with its subscription, unless the topic has another handler by then", async () => {
    const b = world.peer("b-1");
    const seen: string[] = [];
    const first = await b.handle("orders", () => void seen.push("first"));
    const second = await b.handle("orders", () => void seen.push("second"));
    await b.start();
    expect(second.topics).toEqual(["orders"]);
    await first.closed; // replaced
    await first.stop();
    const a = await world.started("a-1");
    await a.send("orders", "x");
    await eventually("it is handled", () => seen.length > 0);
    expect(seen).toEqual(["second"]);
    await second.stop();
    await second.closed;
    await eventually(
      "nobody serves the topic",
      async () => (await a.listenersOf("orders", { refresh: true })).length > 0 === false,
    );
    expect((await failure("no_listener", () => a.send("orders", "y"))).message).toContain("orders");
  });

  it.each([
    [{ retry: { attempts: 0 } }, "retry.attempts 0: "],
    [{ retry: { factor: 1.5 } }, "retry.factor 1.5: "],
    [{ timeoutMs: -1 }, "timeoutMs -1: "],
    [{ transaction: true } as object, "transactional"],
    [{ retry: { delay: 5 } as object }, "delayMs"],
    [{ transactional: true, sendTimeoutMs: 500 } as object, "; sendTimeoutMs is an option of the Peer"],
    [{ retry: null } as object, "the options of retry must be an object"],
    [null as unknown as object, "the options of a handler must be an object"],
  ])("refuses %j, with the value and the rule", async (options, words) => {
    const b = world.peer("b-1");
    const error = await failure("invalid_argument", () => b.handle("orders", options, () => undefined));
    expect(error.message).toContain(words);
  });

  it.each([
    [[undefined, nothing], "topic"],
    [[5, nothing], "topic 5"],
    [[null, nothing], "give a topic, or a message schema"],
    [[{}, nothing], "give a topic, or a message schema"],
    [["orders", {}], "give a function"],
    [["orders", nothing, {}], "options come before it"],
  ])("refuses %j, saying what to give", async (args, words) => {
    const b = world.peer("b-1") as unknown as Record<string, (...args: unknown[]) => Promise<void>>;
    for (const name of ["handle", "handleBatch"]) {
      const [to, ...rest] = args;
      const given = name === "handle" || rest.length > 1 ? rest : [{}, rest[0]];
      expect((await failure("invalid_argument", () => b[name]!(to, ...given))).message).toContain(words);
    }
  });

  it("refuses transactional handlers without a connection to spare, and what is no function", async () => {
    const b = world.peer("b-1", { poolSize: 1 });
    const poor = await failure("invalid_argument", () => b.handle("orders", { transactional: true }, () => undefined));
    expect(poor.message).toContain("poolSize 1");
    const none = await failure("invalid_argument", () => b.handle("orders", {}, undefined as never));
    expect(none.message).toContain("give a function");
  });
});
