/**
 * The interceptor that checks the rules of `buf.validate`: in calls over peers and NATS, and in streams of Connect's own.
 */
import {
  clone,
  create,
  createFileRegistry,
  type DescService,
  type FileRegistry,
  fromBinary,
  setExtension,
  toBinary,
} from "@bufbuild/protobuf";
import { FieldOptionsSchema, FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { createValidator } from "@bufbuild/protovalidate";
import * as standard from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import {
  Code,
  type ConnectError,
  type ConnectRouter,
  createClient,
  createRouterTransport,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Logger } from "../../src/foundation/runtime/index.js";
import { createRulesInterceptor } from "../../src/protobuf/connect/index.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { compileSchemas } from "../typed/support/compile.js";
import { failureOf, natsCarrier, peerCarrier, type TestCarrier } from "./carriers.js";

const proto = `
syntax = "proto3";
package acme.stock.v1;
import "buf/validate/validate.proto";

service Stock {
  rpc Take(TakeRequest) returns (TakeResponse);
  rpc Follow(stream TakeRequest) returns (stream TakeResponse);
}
message TakeRequest {
  string sku = 1 [(buf.validate.field).string.pattern = "^[A-Z]{2}-[0-9]+$"];
  uint32 quantity = 2;
  repeated TakeRequest more = 3;
}
message TakeResponse {
  uint32 left = 1 [(buf.validate.field).uint32.lte = 100];
}
`;

/** By the names that protoc-gen-es gives. */
interface Take {
  sku: string;
  quantity?: number;
  more?: Take[];
}
interface Client {
  take(request: Take): Promise<{ left: number }>;
  follow(requests: AsyncIterable<Take>): AsyncIterable<{ left: number }>;
}

let registry: FileRegistry;
let service: DescService;
beforeAll(async () => {
  registry = await compileSchemas({ "acme/stock/v1/stock.proto": proto });
  service = registry.getService("acme.stock.v1.Stock")!;
});

const world = sharedPeerWorld();
const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

const clientOf = (transport: Transport, of = service): Client => createClient(of, transport) as unknown as Client;

/** Answers with what is taken, and remembers what it was asked. */
function stock(of = service) {
  const seen: string[] = [];
  const routes = (router: ConnectRouter) =>
    router.service(of, {
      take: ({ sku, quantity }: Required<Take>) => {
        seen.push(sku);
        return { left: quantity };
      },
      async *follow(requests: AsyncIterable<Required<Take>>) {
        for await (const { sku, quantity } of requests) {
          seen.push(sku);
          yield { left: quantity };
        }
      },
    } as never);
  return { seen, routes };
}

const badSku = 'acme.stock.v1.TakeRequest.sku "rope": must match ^[A-Z]{2}-[0-9]+$ (string.pattern)';
const badNested = 'acme.stock.v1.TakeRequest.more[1].sku "": must match ^[A-Z]{2}-[0-9]+$ (string.pattern)';
const badLeft = "the answer breaks a rule: acme.stock.v1.TakeResponse.left 101: must be at most 100 (uint32.lte)";

const carriers: readonly TestCarrier[] = [peerCarrier(world), natsCarrier((end) => ends.push(end))];

describe.each(carriers)("rules in calls over $name", (carrier) => {
  it.each(["service", "transport"] as const)("are checked by the interceptor of a %s", async (side) => {
    const { seen, routes } = stock();
    const logged: unknown[] = [];
    const logger = { error: (details: { err: Error }) => logged.push(details.err.message) } as unknown as Logger;
    const interceptors = [createRulesInterceptor()];
    const calling = await carrier.serve(routes, side === "service" ? { interceptors, logger } : { logger });
    const client = clientOf(calling.transport(side === "transport" ? { interceptors } : {}));
    expect((await client.take({ sku: "RO-1", quantity: 100 })).left).toBe(100);
    expect(seen.splice(0)).toEqual(["RO-1"]);
    const request = await failureOf(client.take({ sku: "rope" }));
    expect([request.code, request.rawMessage]).toEqual([Code.InvalidArgument, badSku]);
    const nested = await failureOf(client.take({ sku: "RO-1", more: [{ sku: "RO-1" }, { sku: "" }] }));
    expect([nested.code, nested.rawMessage]).toEqual([Code.InvalidArgument, badNested]);
    expect(seen.splice(0)).toEqual([]);
    const answer = await failureOf(client.take({ sku: "RO-1", quantity: 101 }));
    expect([answer.code, answer.rawMessage]).toEqual([Code.Internal, badLeft]);
    expect(seen).toEqual(["RO-1"]);
    // A caller has its error; only the side that is at fault logs.
    const own = "acme.stock.v1.TakeResponse.left 101: must be at most 100 (uint32.lte)";
    expect(logged).toEqual(side === "service" ? [own] : []);
  });
});

describe("rules in streams of Connect", () => {
  async function* requests(...skus: string[]): AsyncGenerator<Take> {
    for (const [index, sku] of skus.entries()) yield { sku, quantity: index === 2 ? 101 : index };
  }

  const sides: readonly (readonly [string, (interceptors: Interceptor[]) => object])[] = [
    ["service", (interceptors) => ({ router: { interceptors } })],
    ["transport", (interceptors) => ({ transport: { interceptors } })],
  ];
  it.each(sides)("are checked in each message, by the interceptor of a %s", async (_, options) => {
    const { seen, routes } = stock();
    const client = clientOf(createRouterTransport(routes, options([createRulesInterceptor()])));
    const collect = async (...skus: string[]) => {
      const lefts: number[] = [];
      try {
        for await (const { left } of client.follow(requests(...skus))) lefts.push(left);
        return { lefts, error: undefined };
      } catch (error) {
        return { lefts, error: error as ConnectError };
      }
    };
    expect(await collect("RO-1", "RO-2")).toEqual({ lefts: [0, 1], error: undefined });
    const request = await collect("RO-1", "rope");
    expect([request.error?.code, request.error?.rawMessage]).toEqual([Code.InvalidArgument, badSku]);
    expect(seen).not.toContain("rope");
    const answer = await collect("RO-1", "RO-2", "RO-3");
    expect([answer.error?.code, answer.error?.rawMessage]).toEqual([Code.Internal, badLeft]);
    expect(answer.lefts).toEqual([0, 1]);
  });
});

describe("a rule that Hawser does not support", () => {
  /** The same service, whose `quantity` has a rule in CEL. */
  function withCel(): DescService {
    const file = clone(FileDescriptorProtoSchema, registry.getFile("acme/stock/v1/stock.proto")!.proto);
    const field = file.messageType[0]!.field[1]!;
    field.options = create(FieldOptionsSchema);
    const cel = [{ id: "quantity.even", message: "must be even", expression: "this % 2u == 0u" }];
    setExtension(field.options, standard.field, create(standard.FieldRulesSchema, { cel }));
    // As it comes from a file: without knowledge of the extension.
    const set = create(FileDescriptorSetSchema, {
      file: [
        ...[...registry.files].filter(({ proto: { name } }) => name !== file.name).map((each) => each.proto),
        file,
      ],
    });
    const read = fromBinary(FileDescriptorSetSchema, toBinary(FileDescriptorSetSchema, set));
    return createFileRegistry(read).getService("acme.stock.v1.Stock")!;
  }

  it("fails each call, by its name", async () => {
    const of = withCel();
    const { seen, routes } = stock(of);
    const transport = createRouterTransport(routes, { transport: { interceptors: [createRulesInterceptor()] } });
    const error = await failureOf(clientOf(transport, of).take({ sku: "RO-1" }));
    expect([error.code, error.cause]).toMatchObject([Code.Internal, { code: "invalid_schema" }]);
    expect(error.rawMessage).toMatch(
      /^the rules of acme\.stock\.v1\.TakeRequest cannot be checked: acme\.stock\.v1\.TakeRequest\.quantity: rule cel: not supported; .* Remove the rule, or give the interceptor a validator of @bufbuild\/protovalidate$/,
    );
    expect(seen).toEqual([]);
  });

  it("is checked by a validator of protovalidate", async () => {
    const of = withCel();
    const { routes } = stock(of);
    const interceptors = [createRulesInterceptor({ validator: createValidator() })];
    const client = clientOf(createRouterTransport(routes, { transport: { interceptors } }), of);
    expect((await client.take({ sku: "RO-1", quantity: 4 })).left).toBe(4);
    const odd = await failureOf(client.take({ sku: "RO-1", quantity: 3 }));
    expect(odd.code).toBe(Code.InvalidArgument);
    expect(odd.rawMessage).toBe("acme.stock.v1.TakeRequest: quantity: must be even [quantity.even]");
    const answer = await failureOf(client.take({ sku: "RO-1", quantity: 102 }));
    expect(answer.code).toBe(Code.Internal);
    expect(answer.rawMessage).toMatch(
      /^the answer breaks a rule: acme\.stock\.v1\.TakeResponse: left: .*\[uint32\.lte\]$/,
    );
  });

  it("fails each call if the validator cannot check it either", async () => {
    const broken = { validate: () => ({ kind: "error" as const, error: new Error("no such overload") }) };
    const { routes } = stock();
    const interceptors = [createRulesInterceptor({ validator: broken })];
    const error = await failureOf(
      clientOf(createRouterTransport(routes, { transport: { interceptors } })).take({ sku: "RO-1" }),
    );
    expect([error.code, error.rawMessage]).toEqual([
      Code.Internal,
      "the rules of acme.stock.v1.TakeRequest cannot be checked: no such overload",
    ]);
  });
});

it("an interceptor refuses options that it does not have, and a validator that is none", () => {
  expect(() => createRulesInterceptor({ validators: 1 } as never)).toThrow(/validators/);
  const words = "validator: must have a method validate. Example: createValidator() of @bufbuild/protovalidate";
  expect(() => createRulesInterceptor({ validator: {} as never })).toThrow(words);
});
