/**
 * Unary calls, over peers and over NATS: what comes of a call, of metadata, errors, time limits and interceptors.
 */
import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  createClient,
  createContextKey,
  createContextValues,
  decodeBinaryHeader,
  encodeBinaryHeader,
  type HandlerContext,
  type Interceptor,
} from "@connectrpc/connect";
import { deferred } from "@nats-io/transport-node";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { natsMessage, peerMessage } from "../../src/protobuf/connect/index.js";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { withEnoughTime } from "../support/timers.js";
import { failureOf, natsCarrier, pairedPeerCarrier, type TestCarrier, warehouse } from "./carriers.js";
import { Office, ReserveRequestSchema, ShortageSchema, Warehouse } from "./generated/acme/warehouse/v1/warehouse_pb.js";

let world: PeerWorld;
beforeAll(async () => {
  world = await peerWorld({ nats: false, keepsConnections: true });
});
afterAll(() => world?.[Symbol.asyncDispose]());
const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

const undo = (end: () => Promise<unknown>) => void ends.push(end);
const carriers: readonly TestCarrier[] = [pairedPeerCarrier(() => world, undo), natsCarrier(undo)];

describe.each(carriers)("a call over $name", (carrier) => {
  it("comes to the handler and back, in binary and as JSON", async () => {
    const types: (string | null)[] = [];
    const calling = await carrier.serve((router) =>
      router.rpc(Warehouse.method.reserve, ({ quantity, note, sku }, { requestHeader }) => {
        types.push(requestHeader.get("content-type"));
        return { reserved: quantity, note: note.length > 0 ? note : Buffer.from(sku) };
      }),
    );
    for (const useBinaryFormat of [true, false]) {
      const client = createClient(Warehouse, calling.transport({ useBinaryFormat }));
      const note = new Uint8Array([0, 255, 10, 13]);
      expect(await client.reserve({ sku: "rope", quantity: 3, note })).toMatchObject({ reserved: 3, note });
      const empty = await client.reserve({});
      expect([empty.$typeName, empty.reserved, empty.note.length]).toEqual(["acme.warehouse.v1.ReserveResponse", 0, 0]);
      const text = await client.reserve({ sku: "größe ⛵" });
      expect(Buffer.from(text.note).toString()).toBe("größe ⛵");
    }
    expect(types).toEqual([...Array(3).fill("application/proto"), ...Array(3).fill("application/json")]);
  });

  it("is one of many under way, each with its own answer", async () => {
    const calling = await carrier.serve((router) =>
      router.rpc(Warehouse.method.reserve, async ({ quantity }) => {
        await delay(Math.random() * 20);
        return { reserved: quantity };
      }),
    );
    const client = createClient(Warehouse, calling.transport());
    const quantities = Array.from({ length: 200 }, (_, n) => n);
    const answers = await Promise.all(quantities.map((quantity) => client.reserve({ quantity })));
    expect(answers.map(({ reserved }) => reserved)).toEqual(quantities);
  });

  it("has the message that it came by among its context values", async () => {
    const seen: unknown[] = [];
    const calling = await carrier.serve((router) =>
      router.rpc(Warehouse.method.look, (_, { values, url, protocolName, requestMethod }) => {
        seen.push([values.get(peerMessage)?.sender, values.get(natsMessage)?.subject.split(".").slice(2).join(".")]);
        seen.push([url, protocolName, requestMethod]);
        return {};
      }),
    );
    await createClient(Warehouse, calling.transport()).look({});
    const isPeers = carrier.name === "peers";
    expect(seen).toEqual([
      isPeers ? ["caller-1", undefined] : [undefined, "acme.warehouse.v1.Warehouse.Look"],
      [`${isPeers ? "peer" : "nats"}:///acme.warehouse.v1.Warehouse/Look`, "connect", "POST"],
    ]);
  });
});

describe.each(carriers)("metadata over $name", (carrier) => {
  it("goes both ways, with names that repeat, binary values and trailers", async () => {
    const seen: Record<string, string | null>[] = [];
    const calling = await carrier.serve((router) =>
      router.rpc(Warehouse.method.look, (_, { requestHeader, responseHeader, responseTrailer }) => {
        const { trace, many, "token-bin": token } = Object.fromEntries(requestHeader) as Record<string, string>;
        seen.push({ trace: trace!, many: many!, token: token! });
        responseHeader.append("shelf", "a");
        responseHeader.append("shelf", "b");
        responseTrailer.set("took", "1 ms");
        responseTrailer.set("sum-bin", token!);
        return {};
      }),
    );
    const bytes = new Uint8Array([0, 1, 254, 255]);
    const headers = new Headers({ Trace: "Äpfel", "token-bin": encodeBinaryHeader(bytes) });
    headers.append("many", "1");
    headers.append("many", "2");
    const heard: Headers[] = [];
    await createClient(Warehouse, calling.transport()).look(
      {},
      { headers, onHeader: (header) => heard.push(header), onTrailer: (trailer) => heard.push(trailer) },
    );
    expect(seen).toEqual([{ trace: "Äpfel", many: "1, 2", token: "AAH+/w" }]);
    expect(heard[0]!.get("shelf")).toBe("a, b");
    expect([...heard[1]!.keys()]).toEqual(["sum-bin", "took"]);
    expect(heard[1]!.get("took")).toBe("1 ms");
    expect(decodeBinaryHeader(heard[1]!.get("sum-bin")!)).toEqual(bytes);
  });
});

describe.each(carriers)("an error over $name", (carrier) => {
  it("has the handler's code, message, details, metadata and trailers", async () => {
    const calling = await carrier.serve((router) => {
      warehouse(router);
      router.rpc(Office.method.open, (_, { responseHeader, responseTrailer }) => {
        responseHeader.set("desk", "7");
        responseTrailer.set("hour", "9");
        throw new ConnectError("closed", Code.Unavailable);
      });
    });
    const client = createClient(Warehouse, calling.transport());
    const error = await failureOf(client.reserve({ sku: "rope ⛵", quantity: 11 }));
    expect([error.code, error.rawMessage, error.cause]).toEqual([
      Code.FailedPrecondition,
      "only 10 of rope ⛵",
      undefined,
    ]);
    expect(error.findDetails(ShortageSchema)).toEqual([create(ShortageSchema, { sku: "rope ⛵", left: 10 })]);
    expect(error.metadata.get("sku-bin")).toBe("AAE");

    const closed = await failureOf(createClient(Office, calling.transport()).open({}));
    expect([closed.code, closed.rawMessage]).toEqual([Code.Unavailable, "closed"]);
    expect([closed.metadata.get("desk"), closed.metadata.get("hour")]).toEqual(["7", "9"]);
  });

  it("arrives with each code", async () => {
    const calling = await carrier.serve((router) =>
      router.rpc(Warehouse.method.look, ({ sku }) => {
        throw new ConnectError("", Number(sku));
      }),
    );
    const client = createClient(Warehouse, calling.transport());
    const codes = Object.values(Code).filter((code) => typeof code === "number");
    const errors = await Promise.all(codes.map((code) => failureOf(client.look({ sku: `${code}` }))));
    expect(errors.map(({ code }) => code)).toEqual(codes);
    expect(codes).toHaveLength(16);
  });

  it("tells callers nothing of what else a handler throws, and the logger all of it", async () => {
    const logged: unknown[] = [];
    const ignore = () => undefined;
    const logger = { debug: ignore, info: ignore, warn: ignore, error: (details: object) => logged.push(details) };
    const defect = new TypeError("password is x");
    const calling = await carrier.serve((router) => router.rpc(Warehouse.method.look, () => Promise.reject(defect)), {
      logger,
    });
    const error = await failureOf(createClient(Warehouse, calling.transport()).look({}));
    expect([error.code, error.rawMessage]).toEqual([Code.Internal, "internal error"]);
    expect(logged).toMatchObject([{ err: defect }]);
  });

  it("of another service is handed on without its metadata", async () => {
    const calling = await carrier.serve((router) => {
      router.rpc(Warehouse.method.look, () => {
        throw new ConnectError("there", Code.NotFound, { secret: "1" });
      });
      router.rpc(Office.method.open, async () => {
        await createClient(Warehouse, calling.transport()).look({});
        return {};
      });
    });
    const error = await failureOf(createClient(Office, calling.transport()).open({}));
    expect([error.code, error.rawMessage, error.metadata.get("secret")]).toEqual([Code.NotFound, "there", null]);
  });

  it("is what a method without an implementation answers", async () => {
    const calling = await carrier.serve((router) => router.service(Warehouse, {}));
    const error = await failureOf(createClient(Warehouse, calling.transport()).look({}));
    expect([error.code, error.rawMessage]).toEqual([
      Code.Unimplemented,
      "acme.warehouse.v1.Warehouse.Look is not implemented",
    ]);
  });

  it("is what a method with streams meets, by its name and with the way out", async () => {
    const calling = await carrier.serve(warehouse);
    const watching = createClient(Warehouse, calling.transport()).watch({});
    const error = await failureOf(watching[Symbol.asyncIterator]().next());
    expect(error.code).toBe(Code.Unimplemented);
    expect(error.rawMessage).toMatch(/^acme\.warehouse\.v1\.Warehouse\.Watch is a server streaming .* unary/);
  });

  it("is unknown where a handler's code is none", async () => {
    const calling = await carrier.serve((router) =>
      router.rpc(Warehouse.method.look, () => {
        throw new ConnectError("of another system", 99 as Code);
      }),
    );
    const client = createClient(Warehouse, calling.transport({ defaultTimeoutMs: 60_000 }));
    expect(await failureOf(client.look({}))).toMatchObject({ code: Code.Unknown, rawMessage: "of another system" });
  });

  it("is what details become that are no message", async () => {
    const calling = await carrier.serve((router) =>
      router.rpc(Warehouse.method.look, () => {
        const value = { left: "many" } as never;
        throw new ConnectError("", Code.NotFound, undefined, [{ desc: ShortageSchema, value }]);
      }),
    );
    const error = await failureOf(createClient(Warehouse, calling.transport()).look({}));
    expect([error.code, error.rawMessage]).toEqual([
      Code.Internal,
      "the details of the handler's error cannot be encoded",
    ]);
  });
});

describe.each(carriers)("the time limit of a call over $name", (carrier) => {
  it("ends it on both ends", async () => {
    const ended: Promise<[reason: ConnectError, leftMs: number | undefined]>[] = [];
    const calling = await carrier.serve((router) =>
      router.rpc(Warehouse.method.look, async (_, { signal, timeoutMs }) => {
        const leftMs = timeoutMs();
        const aborted = new Promise((resolve) => signal.addEventListener("abort", resolve));
        ended.push(aborted.then(() => [signal.reason, leftMs]));
        await aborted;
        return {};
      }),
    );
    const client = createClient(Warehouse, calling.transport());
    const [limitMs, [reason, leftMs]] = await withEnoughTime(250, async (timeoutMs) => {
      expect((await failureOf(client.look({}, { timeoutMs }))).code).toBe(Code.DeadlineExceeded);
      const end = ended.pop();
      return end && ([timeoutMs, await end] as const);
    });
    // The caller's time may end first, and then it cancels.
    const codes = carrier.name === "peers" ? [Code.DeadlineExceeded, Code.Canceled] : [Code.DeadlineExceeded];
    expect(codes).toContain(reason.code);
    expect(leftMs).toBeGreaterThan(0);
    expect(leftMs).toBeLessThanOrEqual(limitMs);
  });

  it("is that of the transport where the call has none, and may be none", async () => {
    const seen: (string | null)[] = [];
    const calling = await carrier.serve((router) =>
      router.rpc(Warehouse.method.look, (_, { requestHeader }) => {
        seen.push(requestHeader.get("connect-timeout-ms"));
        return {};
      }),
    );
    await createClient(Warehouse, calling.transport()).look({});
    await createClient(Warehouse, calling.transport({ defaultTimeoutMs: 70_000 })).look({});
    await createClient(Warehouse, calling.transport()).look({}, { timeoutMs: 0.5 + 60_000 });
    await createClient(Warehouse, calling.transport()).look({}, { timeoutMs: 0 });
    expect(seen).toEqual(["30000", "70000", "60001", null]);
  });

  it("counts over all tries of an interceptor", async () => {
    const retry: Interceptor = (next) => async (request) => {
      for (;;) {
        try {
          return await next(request);
        } catch (error) {
          if ((error as ConnectError).code !== Code.Aborted) throw error;
          await delay(10);
        }
      }
    };
    let tries = 0;
    const calling = await carrier.serve((router) =>
      router.rpc(Warehouse.method.look, () => {
        tries += 1;
        throw new ConnectError("again", Code.Aborted);
      }),
    );
    const client = createClient(Warehouse, calling.transport({ interceptors: [retry] }));
    await withEnoughTime(150, async (timeoutMs) => {
      tries = 0;
      expect((await failureOf(client.look({}, { timeoutMs }))).code).toBe(Code.DeadlineExceeded);
      return tries > 1 || undefined;
    });
  });

  it("may be no longer than the service allows", async () => {
    const calling = await carrier.serve(warehouse, { maxTimeoutMs: 1_000 });
    const error = await failureOf(createClient(Warehouse, calling.transport()).look({}, { timeoutMs: 1_001 }));
    expect([error.code, error.rawMessage]).toEqual([
      Code.InvalidArgument,
      "the timeout of 1001 ms exceeds maxTimeoutMs, 1000 ms",
    ]);
  });
});

describe.each(carriers)("a signal over $name", (carrier) => {
  it("ends the call with canceled", async () => {
    const [begun, aborted] = [deferred<void>(), deferred<ConnectError>()];
    const calling = await carrier.serve((router) =>
      router.rpc(Warehouse.method.look, async (_, { signal }) => {
        signal.addEventListener("abort", () => aborted.resolve(signal.reason));
        begun.resolve();
        await aborted;
        return {};
      }),
    );
    const controller = new AbortController();
    const call = createClient(Warehouse, calling.transport()).look(
      {},
      { signal: controller.signal, timeoutMs: 60_000 },
    );
    call.catch(() => undefined);
    await begun;
    controller.abort();
    expect((await failureOf(call)).code).toBe(Code.Canceled);
    expect((await aborted).code).toBe(Code.Canceled);
  });

  it("that is aborted already sends nothing", async () => {
    let calls = 0;
    const calling = await carrier.serve((router) =>
      router.rpc(Warehouse.method.look, () => {
        calls += 1;
        return {};
      }),
    );
    const client = createClient(Warehouse, calling.transport());
    const reason = new ConnectError("enough", Code.Aborted);
    const error = await failureOf(client.look({}, { signal: AbortSignal.abort(reason) }));
    expect([error.code, calls]).toEqual([Code.Aborted, 0]);
  });
});

describe.each(carriers)("interceptors over $name", (carrier) => {
  const key = createContextKey("");

  it("see and change calls and answers on both ends, the first one outermost", async () => {
    const seen: string[] = [];
    const around =
      (name: string): Interceptor =>
      (next) =>
      async (request) => {
        seen.push(`${name} ${request.url.split("///")[1]} ${request.contextValues.get(key)}`);
        request.header.append("way", name);
        const response = await next(request);
        seen.push(`${name} after`);
        response.header.append("back", name);
        response.trailer.append("end", name);
        return response;
      };
    const setUser: Interceptor = (next) => (request) => {
      request.contextValues.set(key, `user of ${request.header.get("way")}`);
      return next(request);
    };
    let context: HandlerContext | undefined;
    const calling = await carrier.serve(
      (router) =>
        router.rpc(Warehouse.method.look, (_, given) => {
          context = given;
          seen.push(`handler ${given.values.get(key)}`);
          return {};
        }),
      { interceptors: [around("s1"), setUser, around("s2")] },
    );
    const transport = calling.transport({ interceptors: [around("c1"), around("c2")] });
    const heard: Headers[] = [];
    await createClient(Warehouse, transport).look(
      {},
      {
        contextValues: createContextValues().set(key, "client"),
        onHeader: (header) => heard.push(header),
        onTrailer: (trailer) => heard.push(trailer),
      },
    );
    const path = "acme.warehouse.v1.Warehouse/Look";
    expect(seen).toEqual([
      ...[`c1 ${path} client`, `c2 ${path} client`, `s1 ${path} `, `s2 ${path} user of c1, c2, s1`],
      ...["handler user of c1, c2, s1", "s2 after", "s1 after", "c2 after", "c1 after"],
    ]);
    expect(context!.requestHeader.get("way")).toBe("c1, c2, s1, s2");
    expect(heard[0]!.get("back")).toBe("s2, s1, c2, c1");
    expect(heard[1]!.get("end")).toBe("s2, s1, c2, c1");
    expect(context!.signal.aborted).toBe(true);
  });

  it("may answer in the place of the handler, replace a request, and turn an error into another one", async () => {
    const answered: Interceptor = (next) => async (request) => {
      if (request.header.has("refuse")) throw new ConnectError("not you", Code.PermissionDenied);
      return next({ ...request, header: new Headers({ way: "replaced" }) } as typeof request);
    };
    const calling = await carrier.serve(
      (router) =>
        router.rpc(Warehouse.method.reserve, ({ quantity }, { requestHeader, signal }) => ({
          reserved: requestHeader.get("way") === "replaced" && !signal.aborted ? quantity : 0,
        })),
      { interceptors: [answered] },
    );
    const changed: Interceptor = (next) => async (request) => {
      if (!request.stream) (request.message as unknown as { quantity: number }).quantity = 5;
      return next(request).catch((error: ConnectError) => {
        throw new ConnectError(`changed: ${error.rawMessage}`, Code.DataLoss);
      });
    };
    const client = createClient(Warehouse, calling.transport({ interceptors: [changed] }));
    expect((await client.reserve(create(ReserveRequestSchema))).reserved).toBe(5);
    const error = await failureOf(client.reserve({}, { headers: { refuse: "1" } }));
    expect([error.code, error.rawMessage]).toEqual([Code.DataLoss, "changed: not you"]);
  });

  it("come behind the request gate, which runs before the message is read", async () => {
    const seen: string[] = [];
    const calling = await carrier.serve(warehouse, {
      interceptors: [
        (next) => (request) => {
          seen.push("interceptor");
          return next(request);
        },
      ],
      requestGate: ({ requestHeader, url }) => {
        seen.push(`gate ${url.split("/").at(-1)}`);
        if (!requestHeader.has("authorization")) throw new ConnectError("who?", Code.Unauthenticated);
      },
    });
    const client = createClient(Warehouse, calling.transport());
    expect((await failureOf(client.look({}))).code).toBe(Code.Unauthenticated);
    expect((await client.look({}, { headers: { authorization: "me" } })).left).toBe(10);
    expect(seen).toEqual(["gate Look", "gate Look", "interceptor"]);
  });
});

describe.each(carriers)("sizes over $name", (carrier) => {
  it("are limited by name on both ends", async () => {
    const calling = await carrier.serve(warehouse, { readMaxBytes: 200, writeMaxBytes: 100 });
    const client = (options?: object) => createClient(Warehouse, calling.transport(options));
    const note = (length: number) => ({ note: new Uint8Array(length) });
    const words = async (call: Promise<unknown>) => {
      const { code, rawMessage } = await failureOf(call);
      expect(code).toBe(Code.ResourceExhausted);
      return rawMessage.replace("acme.warehouse.v1.", "");
    };
    expect((await client().reserve(note(98))).note.length).toBe(98);
    expect(await words(client().reserve(note(99)))).toBe("ReserveResponse has 101 bytes; writeMaxBytes is 100");
    expect(await words(client().reserve(note(198)))).toBe("ReserveRequest has 201 bytes; readMaxBytes is 200");
    const own = client({ writeMaxBytes: 80, readMaxBytes: 50 });
    expect(await words(own.reserve(note(79)))).toBe("ReserveRequest has 81 bytes; writeMaxBytes is 80");
    expect(await words(own.reserve(note(49)))).toBe("ReserveResponse has 51 bytes; readMaxBytes is 50");
  });
});
