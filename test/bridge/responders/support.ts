/**
 * A service of responders over real servers, whose functions are written in the test in the place of Postgres.
 */
import { connect as connectService, type NatsConnection as ServiceConnection } from "@nats-io/transport-node";
import { connect, type NatsConnection } from "nats";
import { onTestFinished } from "vitest";
import type { Responder } from "../../../src/nats/bridge/bindings.js";
import {
  type RequestOutcome,
  type ResponderRequest,
  ResponderService,
  type ResponderServiceOptions,
} from "../../../src/nats/bridge/responders/index.js";
import { startNatsServer, type TestNatsServer } from "../../support/nats-server.js";

/** Stand-in for a function. */
type TestFunction = (request: ResponderRequest) => RequestOutcome | Promise<RequestOutcome>;

/** A service and what it has logged. */
export interface TestService {
  readonly service: ResponderService;
  readonly logged: { readonly level: string; readonly details: object; readonly message: string }[];
}

/** Functions by their names, such as "public.answer(bytea)". */
export type TestFunctions = Readonly<Record<string, TestFunction>>;

/** Makes a service, stopped when the test has ended. */
export function testService(functions: TestFunctions, options: Partial<ResponderServiceOptions> = {}): TestService {
  const logged: TestService["logged"] = [];
  const log = (level: string) => (details: object, message: string) => {
    logged.push({ level, details, message });
  };
  const service = new ResponderService({
    runner: { run: async (responder, request) => functions[responder.functionName]!(request) },
    logger: { debug: log("debug"), info: log("info"), warn: log("warn"), error: log("error") },
    database: "test",
    version: "1.2.3",
    metadata: { from: "hawser" },
    responderSessions: 8,
    maxQueuedRequests: 1000,
    maxQueuedRequestBytes: 1024 * 1024,
    responderTimeoutMs: () => 5000,
    ...options,
  });
  onTestFinished(() => service.stop(0));
  return { service, logged };
}

/** A service over a server of its own, and somebody who asks. All of it ends with the test. */
export interface Served extends TestService {
  readonly server: TestNatsServer;
  readonly requester: NatsConnection;
}

/** Makes one with these responders; `config` is that of the server. */
export async function served(
  functions: TestFunctions,
  {
    responders = [responder("ask")],
    config = "",
    ...options
  }: Partial<ResponderServiceOptions> & { responders?: readonly Responder[]; config?: string } = {},
): Promise<Served> {
  const server = await startNatsServer({ config });
  onTestFinished(() => server[Symbol.asyncDispose]());
  const tested = testService(functions, options);
  await tested.service.configure(responders);
  await tested.service.attach(await serviceConnection(server.url));
  return { server, ...tested, requester: await client(server.url) };
}

/** A responder as the database has it. */
export function responder(subject: string, functionName = "public.answer(bytea)", token = 1): Responder {
  const wrapper = `wrapper_${token}`;
  return {
    ...{ kind: "responder", id: BigInt(token), subject, functionName, wrapper },
    ...{ token: new Uint8Array([token]), runAs: "app" },
  };
}

/** An answer of text. */
export function answer(text: string): RequestOutcome {
  return { kind: "answer", payload: Buffer.from(text) };
}

/** A failure as Postgres tells it. */
export function failure(code: string, message: string, timedOut = false): RequestOutcome {
  return { kind: "failed", code, message, timedOut };
}

/** An independent client, closed when the test has ended. It waits for an answer as long as a slow machine may take. */
export async function client(url: string, credentials: { user?: string; pass?: string } = {}): Promise<NatsConnection> {
  const connection = await connect({ servers: url, ...credentials });
  const request = connection.request.bind(connection);
  connection.request = (subject, payload, options = { timeout: 20_000 }) => request(subject, payload, options);
  onTestFinished(() => connection.close());
  return connection;
}

/** A connection for the service, closed when the test has ended. */
export async function serviceConnection(
  url: string,
  credentials: { user?: string; pass?: string } = {},
): Promise<ServiceConnection> {
  const connection = await connectService({ servers: url, reconnect: false, ...credentials });
  onTestFinished(() => connection.close());
  return connection;
}

/** The error that a request was answered by: code and words; undefined if it is none. Its body must be empty. */
export async function errorOf(
  requester: NatsConnection,
  subject: string,
  payload = "",
): Promise<readonly [number, string] | undefined> {
  const { headers, data } = await requester.request(subject, payload);
  if (!headers?.has("Nats-Service-Error-Code")) return undefined;
  if (data.length > 0) throw new Error("an error reply has a body");
  return [Number(headers.get("Nats-Service-Error-Code")), headers.get("Nats-Service-Error")];
}

/** A promise and what resolves it. */
export function gate<T = void>(): { readonly opened: Promise<T>; open(value: T): void } {
  let open!: (value: T) => void;
  const opened = new Promise<T>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}
