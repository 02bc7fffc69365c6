/**
 * Other ways of RPC from one process to another, each as its own users write it. They are no dependencies: `baselines.ts` says
 * which versions are measured. Their handlers answer with the note that they are given.
 */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { createServer as createHttp2Server } from "node:http2";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { type ConnectRouter, createClient, type Transport } from "@connectrpc/connect";
import { Warehouse } from "../../test/connect/generated/acme/warehouse/v1/warehouse_pb.js";
import { requireBaseline } from "../baselines.js";
import { thisCheckout } from "../worker.js";

/** Baselines in the order of the tables. */
export const alternativeNames = ["connect-es", "grpc-js", "tRPC HTTP", "tRPC WebSocket"] as const;
export type Alternative = (typeof alternativeNames)[number];

interface Answering {
  readonly address: string;
  close(): unknown;
}

interface Calling {
  call(): Promise<unknown>;
  close(): unknown;
}

interface RpcLibrary {
  answer(): Promise<Answering>;
  connect(address: string, note: Uint8Array): Promise<Calling>;
}

const connectEs: RpcLibrary = {
  async answer() {
    const { connectNodeAdapter } = requireBaseline<ConnectNode>("@connectrpc/connect-node");
    const routes = (router: ConnectRouter) => router.rpc(Warehouse.method.reserve, ({ note }) => ({ note }));
    const server = createHttp2Server(connectNodeAdapter({ routes }));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return { address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close: () => server.close() };
  },
  async connect(baseUrl, note) {
    const { createConnectTransport, Http2SessionManager } = requireBaseline<ConnectNode>("@connectrpc/connect-node");
    const sessionManager = new Http2SessionManager(baseUrl);
    const transport = createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true, sessionManager });
    const client = createClient(Warehouse, transport);
    return { call: () => client.reserve({ note }), close: () => sessionManager.abort() };
  },
};

interface ConnectNode {
  connectNodeAdapter(options: {
    routes: (router: ConnectRouter) => unknown;
  }): (request: object, response: object) => void;
  createConnectTransport(options: object): Transport;
  readonly Http2SessionManager: new (url: string) => { abort(): void };
}

const grpcJs: RpcLibrary = {
  async answer() {
    const { Server, ServerCredentials } = requireBaseline<GrpcJs>("@grpc/grpc-js");
    const server = new Server();
    server.addService(grpcWarehouse().service, {
      Reserve: (
        { request }: { request: object & { note: Uint8Array } },
        answer: (error: null, value: object) => void,
      ) => answer(null, { note: request.note }),
    });
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    return { address: `127.0.0.1:${port}`, close: () => server.forceShutdown() };
  },
  async connect(address, note) {
    const { credentials } = requireBaseline<GrpcJs>("@grpc/grpc-js");
    const client = new (grpcWarehouse())(address, credentials.createInsecure());
    const call = () =>
      new Promise((resolve, reject) => {
        client.reserve({ note }, (error, answer) => (error === null ? resolve(answer) : reject(error)));
      });
    return { call, close: () => client.close() };
  },
};

/** The client that grpc-js makes of the service's definition. */
function grpcWarehouse(): GrpcWarehouse {
  const { loadPackageDefinition } = requireBaseline<GrpcJs>("@grpc/grpc-js");
  const loader = requireBaseline<ProtoLoader>("@grpc/grpc-js", "@grpc/proto-loader");
  const proto = new URL("test/connect/protos/acme/warehouse/v1/warehouse.proto", thisCheckout);
  return loadPackageDefinition(loader.loadSync(fileURLToPath(proto))).acme.warehouse.v1.Warehouse;
}

interface GrpcWarehouse {
  readonly service: object;
  new (
    address: string,
    credentials: object,
  ): {
    reserve(request: object, done: (error: Error | null, answer: object) => void): void;
    close(): void;
  };
}

interface GrpcJs {
  readonly Server: new () => {
    addService(service: object, handlers: object): void;
    bindAsync(address: string, credentials: object, done: (error: Error | null, port: number) => void): void;
    forceShutdown(): void;
  };
  readonly ServerCredentials: { createInsecure(): object };
  readonly credentials: { createInsecure(): object };
  loadPackageDefinition(definition: object): { acme: { warehouse: { v1: { Warehouse: GrpcWarehouse } } } };
}

interface ProtoLoader {
  loadSync(file: string): object;
}

const trpcHttp: RpcLibrary = {
  async answer() {
    const { createHTTPHandler } = trpc<{ createHTTPHandler: (options: object) => () => void }>(
      "@trpc/server/adapters/standalone",
    );
    const server = createServer(createHTTPHandler({ router: trpcRouter() }));
    return { address: `http://${await listening(server)}`, close: () => stop(server) };
  },
  async connect(url, note) {
    const { createTRPCClient, httpBatchLink } = trpc<TrpcClient>("@trpc/client");
    const client = createTRPCClient({ links: [httpBatchLink({ url })] });
    const text = textOf(note);
    return { call: () => client.reserve.mutate(text), close: () => undefined };
  },
};

const trpcWebSocket: RpcLibrary = {
  async answer() {
    const { WebSocketServer } = trpc<WebSockets>("ws");
    const { applyWSSHandler } = trpc<{ applyWSSHandler: (options: object) => void }>("@trpc/server/adapters/ws");
    const server = createServer();
    const wss = new WebSocketServer({ server });
    applyWSSHandler({ wss, router: trpcRouter() });
    const close = () => {
      for (const client of wss.clients) client.terminate();
      server.close();
    };
    return { address: `ws://${await listening(server)}`, close };
  },
  async connect(url, note) {
    const { WebSocket } = trpc<WebSockets>("ws");
    const { createTRPCClient, createWSClient, wsLink } = trpc<TrpcClient>("@trpc/client");
    const socket = createWSClient({ url, WebSocket });
    const client = createTRPCClient({ links: [wsLink({ client: socket })] });
    const text = textOf(note);
    return { call: () => client.reserve.mutate(text), close: () => socket.close() };
  },
};

const trpc = <M>(module: string): M => requireBaseline<M>("@trpc/client", module);

function trpcRouter(): object {
  const { router, procedure } = trpc<TrpcServer>("@trpc/server").initTRPC.create();
  const note = (input: unknown): string => {
    if (typeof input !== "string") throw new TypeError("a note is a text");
    return input;
  };
  return router({ reserve: procedure.input(note).mutation(({ input }) => input) });
}

interface TrpcServer {
  readonly initTRPC: {
    create(): {
      router(procedures: object): object;
      readonly procedure: {
        input(parse: (input: unknown) => string): { mutation(handle: (call: { input: string }) => string): object };
      };
    };
  };
}

interface TrpcClient {
  createTRPCClient(options: { links: object[] }): { reserve: { mutate(note: string): Promise<string> } };
  httpBatchLink(options: object): object;
  wsLink(options: object): object;
  createWSClient(options: object): { close(): void };
}

interface WebSockets {
  readonly WebSocket: object;
  readonly WebSocketServer: new (options: { server: Server }) => { readonly clients: Set<{ terminate(): void }> };
}

/** A text of as many bytes. */
const textOf = (note: Uint8Array): string => "x".repeat(note.length);

function stop(server: Server): void {
  server.close();
  server.closeAllConnections();
}

async function listening(server: Server): Promise<string> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** All of them. */
export const alternatives: Readonly<Record<Alternative, RpcLibrary>> = {
  "connect-es": connectEs,
  "grpc-js": grpcJs,
  "tRPC HTTP": trpcHttp,
  "tRPC WebSocket": trpcWebSocket,
};
