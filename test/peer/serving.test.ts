/**
 * A peer serves the topics that it handles: what their handlers decide, and how the peer begins and ends.
 */
import { describe, expect, it } from "vitest";
import { Peer } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { startProgram } from "../support/program.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

const nothing = (): void => undefined;

const served = () =>
  world.query<{ topic: string; durable: boolean }>(
    "SELECT topic, durable FROM hawser_peer_data.listeners ORDER BY topic",
  );

describe("a peer serves", () => {
  it("nothing without a handler, and its own topic only if it handles that", async () => {
    const a = world.peer("a-1");
    await a.start();
    expect(await served()).toEqual([]);
    await a.handle("other", nothing);
    expect(await served()).toEqual([{ topic: "other", durable: false }]);
    const own = await a.handle("a", nothing);
    expect(await served()).toHaveLength(2);
    await own.stop();
    expect(await served()).toEqual([{ topic: "other", durable: false }]);
  });

  it("a topic as long as messages or requests of it have a handler", async () => {
    const b = world.peer("b-1");
    const messages = await b.handle("t", nothing);
    const requests = await b.respond("t", () => "answer");
    await b.start();
    const a = await world.started("a-1");
    expect((await a.request("t", "")).text()).toBe("answer");
    await messages.stop();
    expect((await a.request("t", "")).text()).toBe("answer");
    await a.send("t", "nobody handles it");
    expect(await world.deadLetters(1)).toMatchObject([{ topic: "t", error_code: "rejected", attempts: 1 }]);
    await requests.stop();
    await requests.closed;
    await eventually("it is known", async () => (await a.listenersOf("t", { refresh: true })).length === 0);
    await failure("no_listener", a.send("t", "x"));
  });

  it("each topic durable or not, also those that are handled after the start", async () => {
    const b = world.peer("b-1");
    await b.handle("kept", { durable: true }, nothing);
    await b.handle("left", nothing);
    await b.start();
    await b.handle("later", { durable: true }, nothing);
    await b.respond("left", { durable: true }, () => "");
    expect(await served()).toEqual([
      { topic: "kept", durable: true },
      { topic: "later", durable: true },
      { topic: "left", durable: true },
    ]);
    await b.stop();
    expect((await served()).map(({ topic }) => topic)).toEqual(["kept", "later", "left"]);
    const plain = world.peer("b-1");
    await plain.handle("left", nothing);
    await plain.start();
    await plain.stop();
    expect(await served()).toEqual([]);
  });

  it("all its topics as a member of one group, and refuses another one", async () => {
    const b = world.peer("b-1", { defaults: { group: "packing" } });
    await b.handle("one", nothing);
    const refused = await failure("invalid_argument", b.handle("two", { group: "billing" }, nothing));
    expect(refused.message).toBe(
      'group "billing" of "two": the other topics of the peer have "packing", but all topics of a peer must have the same; give it under defaults, or use two peers',
    );
    await failure("invalid_argument", b.handle("two", { group: false }, nothing));
    await failure("invalid_argument", b.respond("two", { takeoverMs: 5_000 }, nothing));
    await b.start();
    expect(await world.query("SELECT group_name FROM hawser_peer_data.peers")).toEqual([{ group_name: "packing" }]);
    const later = await failure("invalid_argument", b.handle("two", { group: true }, nothing));
    expect(later.message).toContain("or handle the topic before start");
    await b.handle("two", { group: "packing" }, nothing);
  });
});

describe("a message", () => {
  it("has its payload as text and JSON, and its headers by name", async () => {
    const b = world.peer("b-1");
    const seen: unknown[] = [];
    await b.handle("t", { retry: { attempts: 3, delayMs: 1 } }, (message) => {
      const { headers } = message;
      seen.push([headers.get("TRACE"), headers.getAll("trace"), headers.get("none"), JSON.stringify(headers)]);
      seen.push(message.json());
    });
    await b.start();
    const a = await world.started("a-1");
    await a.send("t", { left: 3 }, { headers: { trace: ["1", "2"] } });
    const all = '[["content-type","application/json"],["trace","1"],["trace","2"]]';
    expect(seen).toEqual([["1", ["1", "2"], undefined, all], { left: 3 }]);
    await a.send("t", "{ no JSON", { headers: new Map([["trace", "3"]]) });
    expect(await world.deadLetters(1)).toMatchObject([{ error_code: "invalid_message", attempts: 1 }]);
    // Given types of content stay as they are.
    await a.send("t", { left: 4 }, { headers: [["Content-Type", "text/x"]] });
    expect(seen.at(-2)).toEqual([undefined, [], undefined, '[["Content-Type","text/x"]]']);
  });
});

describe("a peer", () => {
  it("takes handlers before the start without a database", async () => {
    const a = new Peer({ name: "a-1", databaseUrl: "postgres://127.0.0.1:1/none" });
    const { topics } = await a.handle("t", { durable: true }, nothing);
    expect([topics, a.topic, a.address, a.localAddress]).toEqual([["t"], "a-1", "", ""]);
    expect(a.health()).toEqual({ ready: false, problems: ['the peer "a-1" is stopped'] });
  });

  it("is ready while it runs, and closed when it has stopped", async () => {
    const a = world.peer("a-1");
    const { closed } = a;
    expect(await a.start()).toBe(a);
    expect(a.health()).toEqual({ ready: true, problems: [] });
    await a.stop();
    await closed;
    expect(a.health().ready).toBe(false);
    await a.start();
    let isClosed = false;
    void a.closed.then(() => (isClosed = true));
    await new Promise(setImmediate);
    expect(isClosed).toBe(false);
    await a.stop();
    await a.closed;
  });

  it("tells of its status as an event emitter does", async () => {
    const a = await world.started("a-1");
    let once = 0;
    a.once("status", () => {
      once += 1;
    });
    for (const b of [await world.started("b-1"), await world.started("c-1")]) await a.send(b.topic, "x");
    await eventually("there are several", () => a.statuses.all.length > 1);
    expect([once, a.listenerCount("status")]).toEqual([1, 1]);
  });

  it("is named when its process ends and it has handlers, but was never started", async () => {
    const env = { HAWSER_DATABASE_URL: world.url };
    const { status, stdout, stderr } = await startProgram("test/peer/programs/not-started.ts", [], { env }).ended;
    expect([status, stdout]).toEqual([0, "done\n"]);
    expect(stderr.match(/Hawser.*/g)).toEqual([
      'HawserWarning: the peer "forgotten" has handlers and was never started: await its start(), or stop() it',
    ]);
    expect(stderr).toContain("[HAWSER_NOT_STARTED]");
  });

  it.each(["SIGTERM", "SIGINT"] as const)("stops at %s with stopOnSignals, and its process ends", async (signal) => {
    const env = { HAWSER_DATABASE_URL: world.url };
    const program = startProgram("test/peer/programs/stops-on-signals.ts", [], { env });
    expect(await program.firstLine).toBe("running");
    program.child.kill(signal);
    expect(await program.ended).toMatchObject({ status: 0, stdout: "running\nclosed\n", stderr: "" });
    expect(await world.query("SELECT clean FROM hawser_peer_data.peers")).toEqual([{ clean: true }]);
  });
});
