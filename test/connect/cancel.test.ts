/**
 * The end of calls over NATS that their callers cause: by canceling, or by going away.
 */
import { Code, type ConnectError, createClient } from "@connectrpc/connect";
import { connect, deferred, headers, type NatsConnection, nuid } from "@nats-io/transport-node";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Logger } from "../../src/foundation/runtime/index.js";
import { createNatsTransport, type ServeNatsOptions, serveNats } from "../../src/protobuf/connect/index.js";
import type { Routes } from "../../src/protobuf/connect/routes.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { startProgram } from "../support/program.js";
import { failureOf, natsConnection } from "./carriers.js";
import { Warehouse } from "./generated/acme/warehouse/v1/warehouse_pb.js";

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  vi.restoreAllMocks();
  for (const end of ends.splice(0).reverse()) await end();
});
const connection = (url?: string): Promise<NatsConnection> => natsConnection((end) => ends.push(end), url);

/** A call that waits in its handler. */
interface Waiting {
  readonly sku: string;
  readonly id: string;
  readonly signal: AbortSignal;
  answer(): void;
}

/** Handlers that answer when the test says so. */
function waitingRoutes(): { readonly calls: Map<string, Waiting>; readonly routes: Routes } {
  const calls = new Map<string, Waiting>();
  const routes: Routes = (router) =>
    router.rpc(Warehouse.method.reserve, async ({ sku }, { signal, requestHeader }) => {
      const proceed = deferred<void>();
      const id = requestHeader.get("hawser-rpc-call") ?? "";
      calls.set(sku, { sku, id, signal, answer: () => proceed.resolve() });
      await proceed;
      return { reserved: 1 };
    });
  return { calls, routes };
}

async function served(options: ServeNatsOptions = {}) {
  const subjectPrefix = `test.${nuid.next()}`;
  const [service, caller] = [await connection(), await connection()];
  const { calls, routes } = waitingRoutes();
  const server = await serveNats(service, routes, { subjectPrefix, ...options });
  const client = createClient(Warehouse, createNatsTransport(caller, { subjectPrefix }));
  const running = async (...skus: string[]) => {
    await eventually(`the calls ${skus} run`, () => skus.every((sku) => calls.has(sku)));
    return skus.map((sku) => calls.get(sku)!);
  };
  const cancelSubject = `${subjectPrefix}.acme.warehouse.v1.Warehouse.hawser-cancel`;
  return { server, service, caller, client, calls, routes, running, subjectPrefix, cancelSubject };
}

const abortOf = async ({ signal }: Waiting): Promise<ConnectError> => {
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
  return signal.reason as ConnectError;
};

describe("a caller that aborts", () => {
  it("aborts its call at the process that has it, and no other call", async () => {
    const { client, running, routes, calls, subjectPrefix } = await served();
    await serveNats(await connection(), routes, { subjectPrefix });
    const controllers = Array.from({ length: 20 }, () => new AbortController());
    const made = controllers.map(({ signal }, n) => client.reserve({ sku: `${n}` }, { signal, timeoutMs: 0 }));
    const ended = Promise.allSettled(made);
    await running(...controllers.map((_, n) => `${n}`));
    for (const n of [3, 4, 11]) controllers[n]!.abort();
    for (const n of [3, 4, 11]) {
      expect(await abortOf(calls.get(`${n}`)!)).toMatchObject({
        code: Code.Canceled,
        rawMessage: "the caller has canceled the call",
      });
    }
    const others = [...calls.values()].filter(({ sku }) => !["3", "4", "11"].includes(sku));
    expect(others.map(({ signal }) => signal.aborted)).toEqual(Array(17).fill(false));
    for (const each of calls.values()) each.answer();
    const codes = (await ended).map((each) => (each.status === "rejected" ? (each.reason as ConnectError).code : 0));
    expect(codes.map((code, n) => [code, n]).filter(([code]) => code !== 0)).toEqual([
      [Code.Canceled, 3],
      [Code.Canceled, 4],
      [Code.Canceled, 11],
    ]);
  });

  it("aborts a call that runs while its service stops", async () => {
    const { client, running, server } = await served();
    const controller = new AbortController();
    const call = failureOf(client.reserve({ sku: "rope" }, { signal: controller.signal }));
    const [rope] = await running("rope");
    const stopped = server.stop();
    controller.abort();
    expect((await abortOf(rope!)).rawMessage).toBe("the caller has canceled the call");
    expect((await call).code).toBe(Code.Canceled);
    rope!.answer();
    await stopped;
  });

  it("has the deadline for its reason where a time limit is in its signal", async () => {
    const { client, running } = await served();
    const call = failureOf(client.reserve({ sku: "rope" }, { signal: AbortSignal.timeout(400), timeoutMs: 0 }));
    const [rope] = await running("rope");
    expect((await abortOf(rope!)).code).toBe(Code.Canceled);
    await call;
  });

  it("does not abort by the id of another call, or at another service", async () => {
    const { client, running, caller, cancelSubject, subjectPrefix } = await served();
    const call = client.reserve({ sku: "rope" }, { timeoutMs: 0 });
    const [rope] = await running("rope");
    caller.publish(cancelSubject, "_INBOX.other.1");
    caller.publish(cancelSubject, "\xff");
    caller.publish(`${subjectPrefix}.acme.warehouse.v1.Office.hawser-cancel`, rope!.id);
    // A message from the same connection arrives behind those.
    const second = client.reserve({ sku: "tar" });
    const [tar] = await running("tar");
    expect(rope!.signal.aborted).toBe(false);
    caller.publish(cancelSubject, rope!.id);
    expect((await abortOf(rope!)).code).toBe(Code.Canceled);
    for (const each of [rope!, tar!]) each.answer();
    // Whoever has canceled it, its caller still waits for the answer.
    expect((await call).reserved).toBe(1);
    await second;
  });
});

describe("a caller that has gone", () => {
  it("aborts its calls when its connection ends", async () => {
    const { client, caller, running } = await served({ callerCheckMs: 100 });
    const made = ["rope", "tar"].map((sku) => failureOf(client.reserve({ sku }, { timeoutMs: 0 })));
    const calls = await running("rope", "tar");
    await caller.close();
    for (const each of calls) {
      expect(await abortOf(each)).toMatchObject({ code: Code.Canceled, rawMessage: "the caller has disconnected" });
      each.answer();
    }
    for (const each of made) expect((await each).code).toBe(Code.Unavailable);
  });

  it("aborts its call when its process is killed", async () => {
    const subjectPrefix = `test.${nuid.next()}`;
    const aborted = deferred<ConnectError>();
    const begun = deferred<void>();
    const routes: Routes = (router) =>
      router.rpc(Warehouse.method.look, async (_, { signal }) => {
        signal.addEventListener("abort", () => aborted.resolve(signal.reason));
        begun.resolve();
        await aborted;
        return {};
      });
    const server = await serveNats(await connection(), routes, { subjectPrefix, callerCheckMs: 100 });
    const program = startProgram("test/connect/programs/nats-caller.ts", [testNatsUrl(), subjectPrefix]);
    await Promise.race([begun, program.firstLine]);
    program.child.kill("SIGKILL");
    expect((await program.ended).signal).toBe("SIGKILL");
    expect(await aborted).toMatchObject({ code: Code.Canceled, rawMessage: "the caller has disconnected" });
    await server.stop();
  });
});

describe("a caller that is there", () => {
  it("keeps its calls, and is looked for once for all of them", async () => {
    const { client, service, running } = await served({ callerCheckMs: 100 });
    const request = vi.spyOn(service, "request");
    const made = ["rope", "tar"].map((sku) => client.reserve({ sku }, { timeoutMs: 0 }));
    const calls = await running("rope", "tar");
    await eventually("it was looked for", () => request.mock.calls.length >= 4);
    expect(new Set(request.mock.calls.map(([subject]) => subject)).size).toBe(1);
    expect(calls.map(({ signal }) => signal.aborted)).toEqual([false, false]);
    for (const each of calls) each.answer();
    for (const each of made) expect((await each).reserved).toBe(1);
  });

  it("is not looked for if it does not tell the id of its call, as older ones", async () => {
    const { client, service, running, subjectPrefix } = await served({ callerCheckMs: 100 });
    const request = vi.spyOn(service, "request");
    const old = await connection();
    const told = headers();
    told.set("content-type", "application/json");
    const subject = `${subjectPrefix}.acme.warehouse.v1.Warehouse.Reserve`;
    const answer = old.request(subject, '{"sku":"old"}', { headers: told, timeout: 100_000 });
    const made = client.reserve({ sku: "new" }, { timeoutMs: 0 });
    const [first, second] = await running("old", "new");
    await eventually("the other one was looked for", () => request.mock.calls.length >= 3);
    expect(new Set(request.mock.calls.map(([subject]) => subject))).toEqual(new Set([second!.id]));
    expect([first!.id, first!.signal.aborted]).toEqual(["", false]);
    for (const each of [first!, second!]) each.answer();
    expect((await answer).json()).toEqual({ reserved: 1 });
    await made;
  });

  it("keeps its calls from another account, where the service cannot look for it, and cancels them", async () => {
    const config = `accounts {
      S: { users: [{ user: s, password: x }], exports: [{ service: "acme.>" }] }
      C: { users: [{ user: c, password: x }], imports: [{ service: { account: S, subject: "acme.>" } }] }
    }`;
    await using server = await startNatsServer({ config });
    const as = async (user: string) => {
      const made = await connect({ servers: server.url, user, pass: "x", reconnect: false });
      ends.push(() => made.close());
      return made;
    };
    const service = await as("s");
    const request = vi.spyOn(service, "request");
    const { calls, routes } = waitingRoutes();
    await serveNats(service, routes, { callerCheckMs: 100 });
    const client = async (user: string) => createClient(Warehouse, createNatsTransport(await as(user)));
    const far = await client("c");
    const controller = new AbortController();
    const made = [
      far.reserve({ sku: "far" }, { timeoutMs: 0 }),
      (await client("s")).reserve({ sku: "near" }, { timeoutMs: 0 }),
    ];
    const canceled = failureOf(far.reserve({ sku: "canceled" }, { timeoutMs: 0, signal: controller.signal }));
    await eventually("they run", () => calls.size === 3);
    await eventually("the near one was looked for", () => request.mock.calls.length >= 4);
    expect(new Set(request.mock.calls.map(([subject]) => subject))).toEqual(new Set([calls.get("near")!.id]));
    expect(calls.get("far")!.signal.aborted).toBe(false);
    controller.abort();
    expect((await abortOf(calls.get("canceled")!)).rawMessage).toBe("the caller has canceled the call");
    expect((await canceled).code).toBe(Code.Canceled);
    for (const each of calls.values()) each.answer();
    for (const each of made) expect((await each).reserved).toBe(1);
  });
});

describe("without the permissions for it", () => {
  it("calls are answered, and the logger is told", async () => {
    const user = (name: string, permissions: string) =>
      `{ user: ${name}, password: x, permissions: { ${permissions} } }`;
    const config = `authorization { users: [
      ${user("service", 'publish: { deny: ["_INBOX.>"] }, subscribe: { deny: ["acme.*.*.*.hawser-cancel"] }, allow_responses: true')}
      ${user("caller", 'publish: { deny: ["acme.*.*.*.hawser-cancel"] }')}
    ] }`;
    await using server = await startNatsServer({ config });
    const as = async (name: string) => {
      const made = await connect({ servers: server.url, user: name, pass: "x", reconnect: false });
      ends.push(() => made.close());
      return made;
    };
    const warnings: string[] = [];
    const logger = { debug() {}, info() {}, error() {}, warn: (_: object, words: string) => warnings.push(words) };
    const { calls, routes } = waitingRoutes();
    await serveNats(await as("service"), routes, { callerCheckMs: 100, logger: logger as unknown as Logger });
    const client = createClient(Warehouse, createNatsTransport(await as("caller")));
    const made = client.reserve({ sku: "rope" }, { timeoutMs: 0 });
    const controller = new AbortController();
    const canceled = failureOf(client.reserve({ sku: "tar" }, { timeoutMs: 0, signal: controller.signal }));
    await eventually("both run", () => calls.size === 2);
    await eventually("both were told", () => warnings.length === 2);
    expect(warnings).toEqual([
      "NATS does not permit cancellations; calls are answered, and their time limits apply",
      "NATS does not permit checks for disconnected callers; calls are answered",
    ]);
    controller.abort();
    expect((await canceled).code).toBe(Code.Canceled);
    for (const each of calls.values()) each.answer();
    expect((await made).reserved).toBe(1);
    expect(calls.get("tar")!.signal.reason).toMatchObject({ rawMessage: "the call has ended" });
  });
});
