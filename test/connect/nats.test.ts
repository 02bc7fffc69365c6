/**
 * Calls over NATS alone: micro services, queue groups, the end of a service, limits, permissions, and messages of
 * others.
 */

import { Code, createClient } from "@connectrpc/connect";
import { connect, deferred, headers, type Msg, MsgHdrsImpl, type NatsConnection, nuid } from "@nats-io/transport-node";
import { connect as connectOther, RequestStrategy } from "nats";
import { afterEach, describe, expect, it } from "vitest";
import { HawserError } from "../../src/foundation/errors/index.js";
import {
  createNatsTransport,
  type NatsTransportOptions,
  type ServeNatsOptions,
  serveNats,
} from "../../src/protobuf/connect/index.js";
import type { Routes } from "../../src/protobuf/connect/routes.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { failureOf, natsConnection, warehouse } from "./carriers.js";
import { Office, Warehouse } from "./generated/acme/warehouse/v1/warehouse_pb.js";

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});
const connection = (url?: string): Promise<NatsConnection> => natsConnection((end) => ends.push(end), url);

/** Serves under a prefix of its own, and has a client and a raw connection beside. */
async function served(routes: Routes, options: ServeNatsOptions = {}) {
  const subjectPrefix = `test.${nuid.next()}`;
  const [service, caller] = [await connection(), await connection()];
  const server = await serveNats(service, routes, { subjectPrefix, ...options });
  const client = createClient(Warehouse, createNatsTransport(caller, { subjectPrefix }));
  return { server, service, caller, client, subjectPrefix, look: `${subjectPrefix}.acme.warehouse.v1.Warehouse.Look` };
}

const causeOf = (error: { cause: unknown }) => (error.cause as { code?: string } | undefined)?.code;

describe("a caller", () => {
  it("calls over a connection that shows no socket, such as one of another version", async () => {
    const { caller, subjectPrefix } = await served(warehouse);
    const hiding = new Proxy(caller, {
      get(target, name) {
        const value = Reflect.get(target, name, target);
        if (name === "protocol") return undefined;
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    const client = createClient(Warehouse, createNatsTransport(hiding, { subjectPrefix }));
    await expect(client.look({})).resolves.toBeDefined();
    await caller.close();
    expect(causeOf(await failureOf(client.look({})))).toBe("nats_unavailable");
  });
});

describe("a service", () => {
  it("is found, described and measured as a micro service with an endpoint for each method", async () => {
    const routes: Routes = (router) => {
      warehouse(router);
      router.service(Office, {});
    };
    const { client, subjectPrefix } = await served(routes, { version: "2.1.0", queue: "clerks" });
    await client.look({});
    await failureOf(client.reserve({ quantity: 11 }));
    const other = await connectOther({ servers: testNatsUrl() });
    ends.push(() => other.close());
    const tools = other.services.client({ strategy: RequestStrategy.JitterTimer, jitter: 300, maxWait: 20_000 });
    const own = async <T extends { endpoints?: { subject: string }[] }>(answers: Promise<AsyncIterable<T>>) => {
      const found: T[] = [];
      for await (const each of await answers) found.push(each);
      return found.filter(({ endpoints }) => endpoints?.[0]?.subject.startsWith(subjectPrefix));
    };
    const [info] = await own(tools.info("acme_warehouse_v1_Warehouse"));
    expect(info).toMatchObject({
      version: "2.1.0",
      description: "The service acme.warehouse.v1.Warehouse, by Connect.",
      metadata: { service: "acme.warehouse.v1.Warehouse" },
    });
    const named = (name: string) => ({
      name,
      subject: `${subjectPrefix}.acme.warehouse.v1.Warehouse.${name}`,
      queue_group: "clerks",
      metadata: { request: `acme.warehouse.v1.${name}Request`, response: `acme.warehouse.v1.${name}Response` },
    });
    expect(info!.endpoints).toEqual(["Reserve", "Look", "Watch"].map(named));
    const [stats] = await own(tools.stats("acme_warehouse_v1_Warehouse"));
    const counted = stats!.endpoints!.map(({ num_requests, num_errors, last_error }) => [
      ...[num_requests, num_errors, last_error],
    ]);
    expect(counted).toEqual([
      [1, 1, "400: failed_precondition"],
      [1, 0, ""],
      [0, 0, ""],
    ]);
    expect(await own(tools.info("acme_warehouse_v1_Office"))).toHaveLength(1);
  });

  it("answers each call once, by one of its queue group", async () => {
    const counts = [0, 0];
    const counting =
      (index: number): Routes =>
      (router) =>
        router.rpc(Warehouse.method.look, () => {
          counts[index]! += 1;
          return { left: index };
        });
    const { client, subjectPrefix } = await served(counting(0));
    await serveNats(await connection(), counting(1), { subjectPrefix });
    await Promise.all(Array.from({ length: 100 }, () => client.look({})));
    expect(counts[0]! + counts[1]!).toBe(100);
    expect(Math.min(...counts)).toBeGreaterThan(0);
  });

  it("that stops answers what runs, and no call after it", async () => {
    const [begun, proceed] = [deferred<void>(), deferred<void>()];
    const { client, server, service, caller, look } = await served((router) =>
      router.rpc(Warehouse.method.look, async () => {
        begun.resolve();
        await proceed;
        return { left: 3 };
      }),
    );
    const call = client.look({});
    await begun;
    const stopped = server.stop();
    await eventually("the method is served no more", async () => {
      const answer = await caller.request(look, "", { timeout: 5_000 }).catch((error: Error) => error);
      return answer instanceof Error && answer.message.includes("no responders");
    });
    proceed.resolve();
    expect((await call).left).toBe(3);
    await stopped;
    expect(service.isClosed()).toBe(false);
    const error = await failureOf(client.look({}));
    expect([error.code, causeOf(error)]).toEqual([Code.Unavailable, "no_responders"]);
  });

  it("that stops answers after stopTimeoutMs what still runs, and aborts it", async () => {
    const [begun, aborted] = [deferred<void>(), deferred<unknown>()];
    const routes: Routes = (router) =>
      router.rpc(Warehouse.method.look, async (_, { signal }) => {
        signal.addEventListener("abort", () => aborted.resolve(signal.reason));
        begun.resolve();
        await new Promise(() => undefined);
        return {};
      });
    const { client, server } = await served(routes, { stopTimeoutMs: 20 });
    const call = failureOf(client.look({}));
    await begun;
    await server.stop();
    expect(await call).toMatchObject({ code: Code.Unavailable, rawMessage: expect.stringContaining("stopping") });
    expect(await aborted).toMatchObject({ code: Code.Unavailable });
  });

  it("refuses what comes while it runs as many calls as it may", async () => {
    const proceed = deferred<void>();
    let begun = 0;
    const routes: Routes = (router) =>
      router.rpc(Warehouse.method.look, async () => {
        begun += 1;
        await proceed;
        return {};
      });
    const { client } = await served(routes, { concurrency: 2 });
    const calls = [client.look({}), client.look({})];
    await eventually("both run", () => begun === 2);
    const error = await failureOf(client.look({}));
    expect([error.code, error.rawMessage]).toEqual([
      Code.ResourceExhausted,
      "busy: this process is already running 2 calls (concurrency); try again later",
    ]);
    proceed.resolve();
    await Promise.all(calls);
    await client.look({});
  });
});

describe("a call", () => {
  it("fails at once where nobody serves the method, or the connection is closed", async () => {
    const caller = await connection();
    const client = createClient(Warehouse, createNatsTransport(caller, { subjectPrefix: nuid.next() }));
    const missing = await failureOf(client.look({}));
    expect([missing.code, causeOf(missing)]).toEqual([Code.Unavailable, "no_responders"]);
    expect(missing.rawMessage).toMatch(/^Nobody answers the call of ".*\.acme\.warehouse\.v1\.Warehouse\.Look"/);
    await caller.close();
    const closed = await failureOf(client.look({}));
    expect([closed.code, causeOf(closed)]).toEqual([Code.Unavailable, "nats_unavailable"]);
  });

  it("fails when its connection is closed meanwhile", async () => {
    const begun = deferred<void>();
    const { client, caller } = await served((router) =>
      router.rpc(Warehouse.method.look, async () => {
        begun.resolve();
        return new Promise<never>(() => undefined);
      }),
    );
    const call = failureOf(client.look({}));
    await begun;
    await caller.close();
    expect(await call).toMatchObject({
      code: Code.Unavailable,
      cause: { code: "outcome_unknown", outcome: "unknown" },
    });
  });

  it("and its answer are refused beyond what the NATS server takes, with the sizes", async () => {
    await using server = await startNatsServer({ config: "max_payload: 5000" });
    const [service, caller] = [await connection(server.url), await connection(server.url)];
    await serveNats(service, (router) =>
      router.rpc(Warehouse.method.reserve, ({ quantity, note }) => ({ note: new Uint8Array(quantity || note.length) })),
    );
    const client = createClient(Warehouse, createNatsTransport(caller));
    expect((await client.reserve({ note: new Uint8Array(4_000) })).note.length).toBe(4_000);
    const request = await failureOf(client.reserve({ note: new Uint8Array(5_000) }));
    expect([request.code, causeOf(request)]).toEqual([Code.ResourceExhausted, "payload_too_large"]);
    expect(request.rawMessage).toMatch(/has 5\d\d\d bytes with its headers; .* at most 5000 \(max_payload\)/);
    const answer = await failureOf(client.reserve({ quantity: 5_000 }));
    expect([answer.code, answer.cause]).toEqual([Code.ResourceExhausted, undefined]);
    expect(answer.rawMessage).toMatch(/^the answer has 50\d\d bytes .* at most 5000 \(max_payload\)/);
    const headers = { long: "x".repeat(5_000) };
    expect((await failureOf(client.reserve({}, { headers }))).code).toBe(Code.ResourceExhausted);
    expect((await client.reserve({})).note.length).toBe(0);
  });

  it("and a service need the permissions of their subjects", async () => {
    const user = (name: string, permissions: string) =>
      `{ user: ${name}, password: x, permissions: { ${permissions} } }`;
    const config = `authorization { users: [
      ${user("service", 'subscribe: { deny: ["acme.warehouse.v1.Office.>", "$SRV.>"] }')}
      ${user("caller", 'publish: { deny: ["acme.warehouse.v1.Warehouse.Look"] }')}
    ] }`;
    await using server = await startNatsServer({ config });
    const as = async (name: string) => {
      const made = await connect({ servers: server.url, user: name, pass: "x", reconnect: false });
      ends.push(() => made.close());
      return made;
    };
    const service = await as("service");
    await serveNats(service, warehouse);
    const refused = await serveNats(service, (router) => router.service(Office, {})).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(HawserError);
    expect(refused).toMatchObject({ code: "nats_permission_denied", message: expect.stringContaining("Office.Open") });
    const client = createClient(Warehouse, createNatsTransport(await as("caller")));
    const error = await failureOf(client.look({}));
    expect([error.code, causeOf(error)]).toEqual([Code.PermissionDenied, "nats_permission_denied"]);
    expect((await client.reserve({ quantity: 1 })).reserved).toBe(1);
  });
});

describe("messages of others", () => {
  it("are answered as calls if they have a content type, such as those of the nats command", async () => {
    const { caller, look } = await served(warehouse);
    const told = headers();
    told.set("Content-Type", "application/json; charset=utf-8");
    const answer = await caller.request(look, '{"sku": "rope", "unknown": 1}', { headers: told, timeout: 20_000 });
    expect([answer.string(), answer.headers?.get("content-type")]).toEqual(['{"left":10}', "application/json"]);
  });

  const refusals: readonly [what: string, headers: Record<string, string>, payload: string, words: RegExp][] = [
    ["no content type", {}, "", /^the call has no header content-type; it must be/],
    ["another content type", { "content-type": "text/plain" }, "", /^content-type is text\/plain; it must be/],
    [
      "no message",
      { "content-type": "application/proto" },
      "\xff\xff",
      /^the payload is not a valid .*LookRequest in Protobuf: /,
    ],
    ["no JSON", { "content-type": "application/json" }, "{", /^the payload is not a valid .*LookRequest in JSON: /],
    [
      "a compression",
      { "content-type": "application/proto", "content-encoding": "gzip" },
      "",
      /^content-encoding is gzip/,
    ],
    [
      "a wrong time limit",
      { "content-type": "application/proto", "connect-timeout-ms": "1s" },
      "",
      /^connect-timeout-ms is "1s"/,
    ],
    [
      "a header of other characters",
      { "content-type": "application/proto", mark: "⛵" },
      "",
      /^header "mark" has a name or/,
    ],
  ];
  it.each(refusals)("with %s are answered by an error that says so", async (_, record, payload, words) => {
    const { caller, look } = await served(warehouse);
    const told = MsgHdrsImpl.fromRecord(
      Object.fromEntries(Object.entries(record).map(([name, value]) => [name, [value]])),
    );
    const answer = await caller.request(look, Buffer.from(payload, "latin1"), { headers: told, timeout: 20_000 });
    const { code, message } = answer.json<{ code: string; message: string }>();
    expect(message).toMatch(words);
    expect(answer.headers?.get("hawser-rpc-error")).toBe(code);
    expect(["invalid_argument", "unimplemented"]).toContain(code);
    expect(answer.headers?.get("Nats-Service-Error")).toMatch(words);
    expect(answer.headers?.get("Nats-Service-Error-Code")).toMatch(/^(400|501)$/);
  });

  it("with streams or without a reply subject are not run", async () => {
    const { caller, client, subjectPrefix, look } = await served(warehouse);
    const told = headers();
    told.set("content-type", "application/proto");
    const watch = await caller.request(`${subjectPrefix}.acme.warehouse.v1.Warehouse.Watch`, "", {
      headers: told,
      timeout: 20_000,
    });
    expect(watch.json()).toMatchObject({ code: "unimplemented" });
    caller.publish(look, "", { headers: told });
    caller.publish(look, "", { headers: told, reply: "$JS.API.STREAM.DELETE.ORDERS" });
    expect((await client.look({})).left).toBe(10);
  });

  it("that answer without knowing Connect are errors, with the code of their status", async () => {
    const answers: ((message: Msg) => void)[] = [
      (message) => {
        const told = headers();
        told.set("Nats-Service-Error", "Zutritt verboten ⛵");
        told.set("Nats-Service-Error-Code", "403");
        message.respond("", { headers: told });
      },
      (message) => message.respond("hello"),
      (message) => {
        const told = headers();
        told.set("hawser-rpc-error", "not_found");
        message.respond("[no error", { headers: told });
      },
      (message) => {
        const told = headers();
        told.set("hawser-rpc-error", "no such code");
        message.respond(
          '{"message": 7, "details": [null, {"type": "a", "value": "!"}, {"type": "b", "value": "AA"}]}',
          {
            headers: told,
          },
        );
      },
    ];
    const [service, caller] = [await connection(), await connection()];
    const subjectPrefix = `test.${nuid.next()}`;
    service.subscribe(`${subjectPrefix}.>`, { callback: (_, message) => answers.shift()!(message) });
    await service.flush();
    const client = createClient(Warehouse, createNatsTransport(caller, { subjectPrefix }));
    expect(await failureOf(client.look({}))).toMatchObject({
      code: Code.PermissionDenied,
      rawMessage: "Zutritt verboten ⛵",
    });
    expect(await failureOf(client.look({}))).toMatchObject({
      code: Code.Unknown,
      rawMessage: "the answer has content type null, not application/proto",
    });
    expect(await failureOf(client.look({}))).toMatchObject({ code: Code.NotFound, rawMessage: "", details: [] });
    expect(await failureOf(client.look({}))).toMatchObject({
      code: Code.Unknown,
      details: [{ type: "b", value: new Uint8Array(1) }],
    });
  });
});

it.each([
  [{ queue: "a b" }, /^queue "a b": must be a name/],
  [{ version: "1" }, /^version "1": must be semantic/],
  [{ subjectPrefix: "a.*" }, /^subjectPrefix "a\.\*": must be tokens/],
  [{ concurrency: 0 }, /^concurrency 0: must be an integer, 1 to/],
  [{ concurency: 1 }, /^"concurency" is not an option of a service over NATS; did you mean concurrency\?/],
])("a service refuses %j", async (options, words) => {
  const refused = await serveNats(await connection(), warehouse, options as ServeNatsOptions).catch(
    (error: unknown) => error,
  );
  expect(refused).toMatchObject({ code: "invalid_argument", message: expect.stringMatching(words) });
});

it.each([
  [{ subjectPrefix: "" }, /^subjectPrefix "": must be tokens/],
  [{ defaultTimeoutMs: 0 }, /^defaultTimeoutMs 0: must be an integer, 1 to/],
  [{ timeoutMs: 1 }, /^"timeoutMs" is not an option of a NATS transport; /],
])("a transport refuses %j", async (options, words) => {
  const caller = await connection();
  expect(() => createNatsTransport(caller, options as NatsTransportOptions)).toThrow(words);
});

it("routes must register a method, and each only once", async () => {
  const service = await connection();
  const words = async (routes: Routes) => (await serveNats(service, routes).catch((error: Error) => error)) as Error;
  expect(await words(() => undefined)).toMatchObject({
    message: expect.stringMatching(/^the routes register no method/),
  });
  expect(await words(undefined as never)).toMatchObject({
    message: expect.stringMatching(/^routes must be a function/),
  });
  const twice: Routes = (router) => router.service(Office, {}).service(Office, {});
  const message = "the routes register acme.warehouse.v1.Office.Open twice; leave one of them out";
  expect(await words(twice)).toMatchObject({ message });
});
