/**
 * A server for Connect's conformance suite, whose calls go through Hawser: what comes by HTTP is called by a transport of
 * ours, over peers or NATS, at a service of ours, which does what the suite asks of a server.
 *
 *     SERVER_URL=DATABASE-URL|NATS-URL conformance-server.ts peers|NATS IMAGE
 *
 * The image is that of the suite's protos. Standard input and output are as the suite wants them: a message with its length
 * before it, of what the server shall be and of where it is.
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import {
  create,
  createFileRegistry,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  toBinary,
} from "@bufbuild/protobuf";
import { anyPack, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { ConnectError, createConnectRouter, type HandlerContext, type Transport } from "@connectrpc/connect";
import { createFetchHandler } from "@connectrpc/connect/protocol";
import { connect } from "@nats-io/transport-node";
import { Peer } from "../../../src/jobs-and-peers/peer/index.js";
import { createNatsTransport, createPeerTransport, serveNats, servePeer } from "../../../src/protobuf/connect/index.js";
import type { RouteOptions, Routes } from "../../../src/protobuf/connect/routes.js";
import type { TransportOptions } from "../../../src/protobuf/connect/transport.js";

const [carrier, image] = process.argv.slice(2) as [string, string];
const url = process.env["SERVER_URL"]!;
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(image)));

/** A message of the suite: its types are known at run time only. */
// biome-ignore lint/suspicious/noExplicitAny: there is no generated code of the suite.
type SuiteMessage = any;

const descOf = (name: string): DescMessage => registry.getMessage(`connectrpc.conformance.v1.${name}`)!;
const service = registry.getService("connectrpc.conformance.v1.ConformanceService")!;
const unaryMethods = service.methods.filter((method): method is DescMethodUnary => method.methodKind === "unary");

/** The service: what the suite asks of a server, for unary methods. */
const answering: Routes = (router) => {
  const implementations: SuiteMessage = {};
  for (const method of unaryMethods) {
    if (method.name === "Unimplemented") continue;
    implementations[method.localName] = async (
      { responseDefinition, ...request }: SuiteMessage,
      context: HandlerContext,
    ) => {
      const timeoutMs = context.timeoutMs();
      const info = create(descOf("ConformancePayload.RequestInfo"), {
        requestHeaders: [...context.requestHeader].map(([name, value]) => ({ name, value: value.split(", ") })),
        ...(timeoutMs !== undefined && { timeoutMs: BigInt(Math.round(timeoutMs)) }),
        requests: [anyPack(method.input, { responseDefinition, ...request })],
      } as SuiteMessage);
      if (responseDefinition === undefined) return { payload: { requestInfo: info } };
      const { responseHeaders, responseTrailers, responseDelayMs, response } = responseDefinition;
      add(context.responseHeader, responseHeaders);
      add(context.responseTrailer, responseTrailers);
      if (responseDelayMs > 0) await delay(responseDelayMs);
      if (response.case !== "error") return { payload: { data: response.value, requestInfo: info } };
      const { code, message, details } = response.value;
      const error = new ConnectError(message ?? "", code);
      const packed = [...details, anyPack(descOf("ConformancePayload.RequestInfo"), info)];
      error.details = packed.map(({ typeUrl, value }) => ({ type: typeUrl.split("/").at(-1), value }));
      throw error;
    };
  }
  router.service(service, implementations);
};

function add(target: Headers, headers: SuiteMessage[]): void {
  for (const { name, value } of headers) for (const each of value) target.append(name, each);
}

/** Value of Connect for no time limit. */
const noLimit = 0;

/** The server that the suite calls: hands every call to a transport, in the format in which it came. */
function bridging(transportOf: (useBinaryFormat: boolean) => Transport): Routes {
  const transports = { proto: transportOf(true), json: transportOf(false) };
  return (router) => {
    for (const method of unaryMethods) {
      router.rpc(method, async (request, context) => {
        const { requestHeader, responseHeader, responseTrailer } = context;
        const transport = transports[requestHeader.get("content-type") === "application/json" ? "json" : "proto"];
        const own = new Headers([...requestHeader].filter(([name]) => isMetadata(name)));
        try {
          const answer = await transport.unary(method, context.signal, context.timeoutMs() ?? noLimit, own, request);
          copy(answer.header, responseHeader);
          copy(answer.trailer, responseTrailer);
          return answer.message;
        } catch (reason) {
          const { rawMessage, code, metadata, details } = ConnectError.from(reason);
          copy(metadata, responseHeader);
          const error = new ConnectError(rawMessage, code);
          error.details = details;
          throw error;
        }
      });
    }
  };
}

function copy(source: Headers, target: Headers): void {
  for (const [name, value] of source) if (isMetadata(name)) target.append(name, value);
}

/** True for a header that does not belong to the protocol of one hop. */
function isMetadata(name: string): boolean {
  return !/^(content-|connect-|hawser-|accept|host$|user-agent$|connection$|transfer-encoding$|te$)/.test(name);
}

/** Serves by the carrier. @returns a transport that calls it */
async function carry(options: RouteOptions): Promise<(own: TransportOptions) => Transport> {
  if (carrier === "NATS") {
    const subjectPrefix = `conformance.${process.pid}`;
    const connection = await connect({ servers: url });
    await serveNats(connection, answering, { ...options, subjectPrefix });
    return (own) => createNatsTransport(connection, { ...own, subjectPrefix });
  }
  const peer = (name: string) =>
    new Peer({
      name: `${name}-${process.pid}`,
      topic: `${name}-${process.pid}`,
      listen: "127.0.0.1:0",
      databaseUrl: url,
    });
  const [caller, service] = [peer("caller"), peer("service")];
  const topic = `conformance-${process.pid}`;
  await servePeer(service, answering, { ...options, topic });
  await Promise.all([caller.start(), service.start()]);
  process.once("SIGTERM", () => void Promise.all([caller.stop(), service.stop()]));
  return (own) => createPeerTransport(caller, { ...own, topic });
}

/** Reads the whole body first: unary calls need all of it. */
async function requestOf(incoming: IncomingMessage, signal: AbortSignal): Promise<Request> {
  const body = await buffer(incoming);
  const headers = new Headers();
  for (let i = 0; i < incoming.rawHeaders.length; i += 2)
    headers.append(incoming.rawHeaders[i]!, incoming.rawHeaders[i + 1]!);
  return new Request(`http://${incoming.headers.host}${incoming.url}`, {
    method: incoming.method!,
    headers,
    body,
    signal,
  });
}

const wanted: SuiteMessage = await (async () => {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) {
    chunks.push(chunk);
    const read = Buffer.concat(chunks);
    if (read.length >= 4 && read.length >= 4 + read.readUInt32BE()) {
      return fromBinary(descOf("ServerCompatRequest"), read.subarray(4, 4 + read.readUInt32BE()));
    }
  }
})();
const jsonOptions = { registry };
const limit = wanted.messageReceiveLimit > 0 ? { readMaxBytes: wanted.messageReceiveLimit } : {};
const transportOf = await carry({ jsonOptions, ...limit });
const router = createConnectRouter({ grpc: false, grpcWeb: false, jsonOptions });
bridging((useBinaryFormat) => transportOf({ jsonOptions, useBinaryFormat }))(router);
const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, createFetchHandler(handler)]));

const server = createServer(async (incoming, outgoing) => {
  const gone = new AbortController();
  outgoing.on("close", () => gone.abort());
  const handler = handlers.get(incoming.url!);
  if (handler === undefined) {
    outgoing.writeHead(404).end();
    return;
  }
  const response = await handler(await requestOf(incoming, gone.signal));
  outgoing.writeHead(response.status, [...response.headers].flat());
  outgoing.end(Buffer.from(await response.arrayBuffer()));
});
server.listen(0, "127.0.0.1");
await once(server, "listening");
process.once("SIGTERM", () => setTimeout(() => process.exit(0), 100));
const { port } = server.address() as AddressInfo;
const where = create(descOf("ServerCompatResponse"), { host: "127.0.0.1", port } as SuiteMessage);
const bytes = toBinary(descOf("ServerCompatResponse"), where);
const length = Buffer.alloc(4);
length.writeUInt32BE(bytes.length);
process.stdout.write(Buffer.concat([length, bytes]));
