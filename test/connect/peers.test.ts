/**
 * Calls over peers alone: topics, listeners that are missing or lost, headers, and messages that are no calls.
 */
import { Code, ConnectError, type ConnectRouter, createClient } from "@connectrpc/connect";
import { deferred } from "@nats-io/transport-node";
import { describe, expect, it } from "vitest";
import { Peer } from "../../src/jobs-and-peers/peer/index.js";
import {
  createPeerTransport,
  type PeerTransportOptions,
  peerMessage,
  type ServePeerOptions,
  servePeer,
} from "../../src/protobuf/connect/index.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { failureOf, warehouse } from "./carriers.js";
import { Office, ShortageSchema, Warehouse } from "./generated/acme/warehouse/v1/warehouse_pb.js";

const world = sharedPeerWorld();

const causeOf = (error: { cause: unknown }) => (error.cause as { code?: string } | undefined)?.code;

describe("services", () => {
  it("have topics of their names, or share one; a peer without another handler serves them", async () => {
    const [caller] = await world.running("caller-1");
    const service = world.peer("service-1");
    const server = await servePeer(service, (router) => {
      warehouse(router);
      router.service(Office, { open: () => ({}) });
    });
    expect(server.topics).toEqual(["acme.warehouse.v1.Warehouse", "acme.warehouse.v1.Office"]);
    await service.start();
    expect((await createClient(Warehouse, createPeerTransport(caller)).look({})).left).toBe(10);
    await createClient(Office, createPeerTransport(caller)).open({});

    const shared = await servePeer(service, warehouse, { topic: "service" });
    const client = createClient(Warehouse, createPeerTransport(caller, { topic: "service" }));
    expect((await client.look({})).left).toBe(10);
    const missing = await failureOf(createClient(Office, createPeerTransport(caller, { topic: "service" })).open({}));
    expect(missing).toMatchObject({
      code: Code.Unimplemented,
      rawMessage: expect.stringMatching(/^"service" has no method acme\.warehouse\.v1\.Office\.Open; it has acme/),
    });
    await shared.stop();
    expect(await failureOf(client.look({}))).toMatchObject({ code: Code.Unavailable });
    await server.stop();
    const gone = await failureOf(createClient(Office, createPeerTransport(caller)).open({}));
    expect(gone.code).toBe(Code.Unavailable);
    // The second one before the caller has heard of it.
    expect(["no_listener", "unsubscribed"]).toContain(causeOf(gone));
  });

  it("take calls in turn", async () => {
    const [caller, one, two] = await world.running("caller-1", "service-1", "service-2");
    const counts = [0, 0];
    for (const [index, peer] of [one, two].entries()) {
      await servePeer(peer, (router) =>
        router.rpc(Warehouse.method.look, () => {
          counts[index]! += 1;
          return {};
        }),
      );
    }
    const client = createClient(Warehouse, createPeerTransport(caller));
    for (let n = 0; n < 10; n++) await client.look({});
    expect(counts).toEqual([5, 5]);
  });

  it("answer what is no call by an error, and set messages aside that nobody waits for", async () => {
    const caller = await world.started("caller-1");
    const service = world.peer("service-1");
    await servePeer(service, warehouse, { topic: "service" });
    await service.start();
    const answer = await caller.request("service", "hello");
    expect(JSON.parse(Buffer.from(answer.payload).toString())).toMatchObject({
      code: "unimplemented",
      message: expect.stringMatching(/^the request to "service" has no header hawser-rpc-method; it has acme/),
    });
    await caller.send("service", "hello");
    const [letter] = await world.deadLetters(1);
    expect(letter).toMatchObject({ error_code: "rejected", attempts: 1 });
  });

  it("leave nothing of a transactional handler whose call is answered by an error", async () => {
    const [caller] = await world.running("caller-1");
    await world.query("CREATE TABLE reserved (sku text)");
    const handled: string[] = [];
    const errors = new Map<string, unknown>([
      ["connect", new ConnectError("none left", Code.FailedPrecondition)],
      ["other", new Error("a bug")],
      [
        "detail",
        new ConnectError("none left", Code.NotFound, {}, [{ desc: ShortageSchema, value: { left: -1 } as never }]),
      ],
    ]);
    const service = world.peer("service-1");
    const reserve = (router: ConnectRouter) =>
      router.rpc(
        Warehouse.method.reserve,
        async ({ sku }, { values, responseHeader, signal }) => {
          const { client } = values.get(peerMessage)!;
          await client.query("INSERT INTO reserved VALUES ($1)", [sku]);
          handled.push(sku);
          if (errors.has(sku)) throw errors.get(sku);
          if (sku === "late" && !signal.aborted)
            await new Promise((resolve) => signal.addEventListener("abort", resolve));
          if (sku === "headers") for (let n = 0; n < 256; n++) responseHeader.set(`name-${n}`, "");
          if (sku === "encoding") return { reserved: -1 };
          return sku === "long" ? { note: new Uint8Array(2_000) } : {};
        },
        { writeMaxBytes: 1_000 },
      );
    await servePeer(service, reserve, { transactional: true });
    await service.start();
    const client = createClient(Warehouse, createPeerTransport(caller));
    await client.reserve({ sku: "good" });
    const failed = async (sku: string) => (await failureOf(client.reserve({ sku }))).code;
    expect(await failed("connect")).toBe(Code.FailedPrecondition);
    expect(await failed("other")).toBe(Code.Internal);
    expect(await failed("detail")).toBe(Code.Internal);
    expect(await failed("encoding")).toBe(Code.Internal);
    expect(await failed("long")).toBe(Code.ResourceExhausted);
    expect(await failed("headers")).toBe(Code.ResourceExhausted);
    // The caller waits for longer than the time limit that it tells, and so hears what is answered.
    const headers = {
      "content-type": "application/json",
      "connect-timeout-ms": "20",
      "hawser-rpc-method": "acme.warehouse.v1.Warehouse.Reserve",
    };
    const late = await caller.request("acme.warehouse.v1.Warehouse", '{"sku":"late"}', { headers });
    expect(late.headers.get("hawser-rpc-error")).toBe("deadline_exceeded");
    expect(await world.query("SELECT sku FROM reserved")).toEqual([{ sku: "good" }]);
    expect(handled).toEqual(["good", "connect", "other", "detail", "encoding", "long", "headers", "late"]);
  });
});

describe("a call", () => {
  it("fails where no listener is known, the listener is gone, or the own peer does not run", async () => {
    const caller = world.peer("caller-1");
    const client = createClient(Warehouse, createPeerTransport(caller));
    const notRunning = await failureOf(client.look({}));
    expect([notRunning.code, causeOf(notRunning)]).toEqual([Code.Unavailable, "not_running"]);
    await caller.start();
    const missing = await failureOf(client.look({}));
    expect([missing.code, causeOf(missing)]).toEqual([Code.Unavailable, "no_listener"]);
    await world.list("acme.warehouse.v1.Warehouse", "nobody-1");
    const gone = await failureOf(client.look({}, { timeoutMs: 60_000 }));
    expect([gone.code, causeOf(gone)]).toEqual([Code.Unavailable, "unreachable"]);
  });

  it("whose listener is lost fails, and is made again if its method may be called twice", async () => {
    const [caller, service] = await world.running("caller-1", "service-1");
    const begun = [deferred<void>(), deferred<void>()];
    const never = new Promise<never>(() => undefined);
    await servePeer(service, (router) => {
      router.rpc(Warehouse.method.reserve, () => {
        begun[0]!.resolve();
        return never;
      });
      router.rpc(Warehouse.method.look, () => {
        begun[1]!.resolve();
        return never;
      });
    });
    const client = createClient(Warehouse, createPeerTransport(caller));
    const reserving = failureOf(client.reserve({}));
    const looking = client.look({});
    await Promise.all(begun);
    await servePeer(await world.started("other-1"), warehouse);
    await caller.listenersOf("acme.warehouse.v1.Warehouse", { refresh: true });
    await service.stop({ timeoutMs: 1 });
    expect(await reserving).toMatchObject({
      code: Code.Unavailable,
      cause: { code: "listener_lost", outcome: "unknown" },
    });
    expect((await looking).left).toBe(10);
  });

  it("has headers as long as peers carry them, on both ways", async () => {
    const [caller, service] = await world.running("caller-1", "service-1");
    await servePeer(service, (router) => {
      router.rpc(Warehouse.method.look, ({ sku }, { responseTrailer }) => {
        responseTrailer.set("long", "x".repeat(Number(sku)));
        return {};
      });
      router.rpc(Warehouse.method.reserve, ({ quantity }, { responseHeader }) => {
        for (let n = 0; n < quantity; n++) responseHeader.set(`name-${n}`, "");
        return {};
      });
    });
    const client = createClient(Warehouse, createPeerTransport(caller));
    await client.look({ sku: "8192" }, { headers: { long: "x".repeat(8_192) } });
    const answer = await failureOf(client.look({ sku: "8193" }));
    expect([answer.code, answer.rawMessage]).toEqual([
      Code.ResourceExhausted,
      "header trailer-long of the answer has 8193 bytes; peers carry at most 8192",
    ]);
    const request = await failureOf(client.look({}, { headers: { long: "x".repeat(8_193) } }));
    expect([request.code, causeOf(request)]).toEqual([Code.InvalidArgument, "invalid_argument"]);
    await client.reserve({ quantity: 255 });
    expect(await failureOf(client.reserve({ quantity: 256 }))).toMatchObject({
      code: Code.ResourceExhausted,
      rawMessage: "the answer has 257 headers; peers carry at most 256",
    });
  });

  it("larger than the listener takes is refused", async () => {
    const caller = await world.started("caller-1");
    const service = await world.started("service-1", { maxMessageBytes: 1_000 });
    await servePeer(service, warehouse);
    const client = createClient(Warehouse, createPeerTransport(caller));
    await client.look({});
    const error = await failureOf(client.reserve({ note: new Uint8Array(1_001) }));
    expect(error).toMatchObject({ code: Code.ResourceExhausted, rawMessage: expect.stringContaining("1000") });
  });
});

it.each([
  [
    { queue: "q" },
    /^"queue" is not an option of a service between peers; the options are topic, transactional, logger, interceptors/,
  ],
  [{ readMaxBytes: -1 }, /readMaxBytes -1/],
])("a service refuses %j", async (options, words) => {
  const refused = await servePeer(world.peer("a-1"), warehouse, options as ServePeerOptions).catch((error) => error);
  expect(refused.message).toMatch(words);
});

it("a transport refuses options that it does not have", () => {
  const peer = new Peer({ name: "a" });
  const options = { subjectPrefix: "a" } as PeerTransportOptions;
  expect(() => createPeerTransport(peer, options)).toThrow(/^"subjectPrefix" is not an option of a peer transport; /);
});
