/**
 * Services over NATS: each is a micro service (ADR-32) with an endpoint for each method.
 */
import { Code, ConnectError, type ContextKey, createContextKey } from "@connectrpc/connect";
import { type Msg, type NatsConnection, nuid } from "@nats-io/transport-node";
import {
  checkNatsServiceSettings,
  type NatsServiceSettings,
  type NatsServiceSettingsInput,
  natsServiceSettingsDefaults,
} from "../../generated/ts/settings/connect.js";
import { HawserError, namesOf } from "../errors/index.js";
import {
  confirmed,
  Discovery,
  EndpointCounters,
  errorHeaders,
  isAnswerable,
  type MicroEndpoint,
  type MicroService,
  SubscriptionSet,
} from "../nats/index.js";
import { type Logger, type Subscription, silentLogger, within } from "../runtime/index.js";
import { answerCall, type CallSource, errorAnswer, type OutgoingAnswer } from "./answer-call.js";
import { nameOfCode, statusOfCode } from "./codes.js";
import { CallerWatch, NatsCall } from "./nats-call.js";
import {
  bytesOfHeaders,
  cancelSubjectOf,
  checkSubjectPrefix,
  natsHeaders,
  type ReadMessage,
  readMessage,
  subjectOf,
} from "./nats-subjects.js";
import { checkOptionNames, invalidSetting } from "./option-checks.js";
import { collectRoutes, type Route, type RouteOptions, type Routes, routeOptionNames } from "./routes.js";

/** How services are served over NATS. */
export interface ServeNatsOptions extends RouteOptions, NatsServiceSettingsInput {
  /** Of the services of one queue group, one gets each call. Default `q`, which is that of micro services. */
  readonly queue?: string | undefined;
  /** What the subjects begin with; callers have the same one. Default: nothing. */
  readonly subjectPrefix?: string | undefined;
  /** Of the services, as others find it: a semantic version. Default `1.0.0`. */
  readonly version?: string | undefined;
  /** Hears what callers are not told: why a handler failed. Default: says nothing; a pino logger fits. */
  readonly logger?: Logger | undefined;
}

/** In a handler over NATS, `context.values.get(natsMessage)` is the message that its call came by. */
export const natsMessage: ContextKey<Msg | undefined> = createContextKey<Msg | undefined>(undefined, {
  description: "hawser: the message of NATS",
});

const nats: CallSource<NatsCall> = {
  scheme: "nats",
  prepare: (values, { message }) => values.set(natsMessage, message),
};

const optionNames: readonly string[] = [
  ...namesOf<Omit<ServeNatsOptions, keyof NatsServiceSettings | keyof RouteOptions>>({
    queue: true,
    subjectPrefix: true,
    version: true,
    logger: true,
  }),
  ...Object.keys(natsServiceSettingsDefaults),
  ...routeOptionNames,
];

/**
 * Answers calls to the methods that the routes register, and resolves when the NATS server has taken the subscriptions.
 *
 * `stop()` takes no more calls, and resolves when those that run are answered. After `stopTimeoutMs` the signals of the
 * calls that still run are aborted, and they are answered by `unavailable`. The connection stays open.
 *
 * When the connection reconnects, nats.js subscribes again. A process that is to answer only while it is healthy stops and
 * serves again.
 *
 * @param connection stays the caller's: it is not closed here
 * @throws HawserError (as a rejection) `invalid_argument`; `nats_permission_denied`; `nats_unavailable`
 */
export async function serveNats(
  connection: NatsConnection,
  routes: Routes,
  options: ServeNatsOptions = {},
): Promise<Subscription> {
  checkOptionNames(options, "a service over NATS", optionNames);
  const { queue = "q", subjectPrefix, version = "1.0.0", logger = silentLogger, ...rest } = options;
  const { concurrency, stopTimeoutMs, callerCheckMs, ...routeOptions } = rest;
  checkQueue(queue);
  checkVersion(version);
  checkSubjectPrefix(subjectPrefix);
  const checked = checkNatsServiceSettings({ concurrency, stopTimeoutMs, callerCheckMs });
  if (!checked.ok) throw invalidSetting(checked.violation);
  const server = new Server(connection, checked.settings, logger);
  await server.start(collectRoutes(routes, routeOptions), { queue, subjectPrefix, version });
  return server;
}

interface Naming {
  readonly queue: string;
  readonly subjectPrefix: string | undefined;
  readonly version: string;
}

interface Endpoint extends MicroEndpoint {
  readonly route: Route;
  readonly cancelSubject: string;
}

/** A call that runs, or has been answered. */
interface Answering {
  readonly endpoint: Endpoint;
  readonly reply: string;
  isAnswered: boolean;
}

class Server implements Subscription {
  readonly closed: Promise<void>;
  readonly #connection: NatsConnection;
  readonly #settings: NatsServiceSettings;
  readonly #logger: Logger;
  readonly #endpoints = new Map<string, Endpoint>();
  readonly #subscriptions: SubscriptionSet;
  readonly #discovery: Discovery;
  readonly #running = new Set<Answering>();
  /** Running calls whose messages have been read. */
  readonly #calls = new Set<NatsCall>();
  readonly #callsById = new Map<string, NatsCall>();
  readonly #callers: CallerWatch;
  #onIdle: (() => void) | undefined;
  #refusal: Error | undefined;
  #stopped: Promise<void> | undefined;
  #end!: () => void;

  constructor(connection: NatsConnection, settings: NatsServiceSettings, logger: Logger) {
    this.#connection = connection;
    this.#settings = settings;
    this.#logger = logger;
    this.closed = new Promise((resolve) => {
      this.#end = resolve;
    });
    void connection.closed().then(() => this.#end());
    this.#subscriptions = new SubscriptionSet(connection, {
      onMessage: (subject, message) => {
        const endpoint = this.#endpoints.get(subject);
        if (endpoint === undefined) this.#cancel(subject, message);
        else this.#receive(endpoint, message);
      },
      onRefused: (subject, error) => {
        if (!this.#endpoints.has(subject)) {
          const words = "NATS does not let calls be canceled; they are answered, and their time limits hold";
          logger.warn({ subject, reason: error.message }, words);
          return;
        }
        this.#refusal ??= error;
        logger.error({ subject, reason: error.message }, "NATS does not let this method be served: it is not answered");
      },
    });
    this.#callers = new CallerWatch(connection, this.#calls, settings.callerCheckMs, (error) => {
      const words = "NATS does not let this service notice that callers have gone; calls are answered";
      logger.warn({ reason: error.message }, words);
    });
    this.#discovery = new Discovery(connection, (error) =>
      logger.warn({ reason: error.message }, "NATS does not let services be found ($SRV.>); calls are answered"),
    );
  }

  async start(routes: readonly Route[], naming: Naming): Promise<void> {
    const services = servicesOf(routes, naming);
    for (const { endpoints } of services) for (const each of endpoints) this.#endpoints.set(each.subject, each);
    const endpoints = [...this.#endpoints.values()];
    const wanted = new Map<string, string | undefined>(endpoints.map(({ subject }) => [subject, naming.queue]));
    this.#subscriptions.sync(new Map([...wanted, ...this.#cancelSubjects]));
    const isTaken = await confirmed(this.#connection);
    if (this.#refusal !== undefined) {
      await this.#subscriptions.drain();
      const words = `NATS does not let this user serve: ${this.#refusal.message}. Allow the subscription`;
      throw new HawserError("nats_permission_denied", words, { cause: this.#refusal });
    }
    if (!isTaken) {
      throw new HawserError("nats_unavailable", "the connection to NATS is closed: the services are not served");
    }
    await this.#discovery.update(services);
  }

  get topics(): readonly string[] {
    return [...this.#endpoints.keys()];
  }

  /** Without a queue group: callers do not know which process has a call. */
  get #cancelSubjects(): Map<string, undefined> {
    return new Map([...this.#endpoints.values()].map(({ cancelSubject }) => [cancelSubject, undefined]));
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop().finally(() => this.#end());
    return this.#stopped;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #stop(): Promise<void> {
    // Calls that still run can be canceled.
    this.#subscriptions.sync(this.#cancelSubjects);
    await Promise.all([confirmed(this.#connection), this.#discovery.end()]);
    const idle = new Promise<void>((resolve) => {
      this.#onIdle = resolve;
      if (this.#running.size === 0) resolve();
    });
    await within(this.#settings.stopTimeoutMs, idle);
    const error = new ConnectError("the service stops; what the call did may last or not", Code.Unavailable);
    for (const call of this.#calls) call.abort(error);
    this.#callers.end();
    for (const call of this.#running) this.#answer(call, errorAnswer(error));
    await this.#subscriptions.drain();
  }

  #receive(endpoint: Endpoint, message: Msg): void {
    const { reply } = message;
    if (!isAnswerable(reply)) {
      endpoint.counters.ignored += 1;
      this.#logger.debug({ subject: endpoint.subject }, "a message without a reply subject is no call: it was not run");
      return;
    }
    const call: Answering = { endpoint, reply, isAnswered: false };
    const { concurrency } = this.#settings;
    if (this.#running.size < concurrency) {
      void this.#run(call, message);
      return;
    }
    endpoint.counters.busy += 1;
    const words = `busy: this process answers ${concurrency} calls already (concurrency); try again later`;
    this.#answer(call, errorAnswer(new ConnectError(words, Code.ResourceExhausted)));
  }

  async #run(call: Answering, message: Msg): Promise<void> {
    this.#running.add(call);
    const { endpoint } = call;
    const began = performance.now();
    try {
      const answer = await this.#answerOf(endpoint, message);
      endpoint.counters.ran(performance.now() - began);
      const cause = answer.error?.cause;
      if (cause !== undefined) this.#logger.error({ subject: endpoint.subject, err: cause }, "a handler of RPC failed");
      this.#answer(call, answer);
    } finally {
      this.#running.delete(call);
      if (this.#running.size === 0) this.#onIdle?.();
    }
  }

  #answerOf({ route, cancelSubject }: Endpoint, message: Msg): OutgoingAnswer | Promise<OutgoingAnswer> {
    let read: ReadMessage;
    try {
      read = readMessage(message);
    } catch {
      return errorAnswer(new ConnectError("the headers of the call cannot be read", Code.InvalidArgument));
    }
    const call = new NatsCall(message, read.headers, read.payload, cancelSubject);
    const answer = answerCall(route, call, nats);
    if (!(answer instanceof Promise)) return answer;
    this.#begin(call);
    return answer.finally(() => this.#removeCall(call));
  }

  #begin(call: NatsCall): void {
    this.#calls.add(call);
    if (call.id === undefined) return;
    this.#callsById.set(call.id, call);
    this.#callers.begin();
  }

  #removeCall(call: NatsCall): void {
    this.#calls.delete(call);
    if (call.id !== undefined) this.#callsById.delete(call.id);
  }

  /** Its answer is sent nevertheless: NATS does not tell who has canceled the call. */
  #cancel(subject: string, { data }: Msg): void {
    const call = this.#callsById.get(Buffer.from(data).toString("latin1"));
    if (call?.cancelSubject === subject)
      call.abort(new ConnectError("the caller has canceled the call", Code.Canceled));
  }

  /** Once for each call. */
  #answer(call: Answering, answer: OutgoingAnswer): void {
    if (call.isAnswered) return;
    call.isAnswered = true;
    const { counters } = call.endpoint;
    let [sent, headers] = [answer, headersOf(answer)];
    const bytes = bytesOfHeaders(headers) + answer.payload.length;
    if (bytes > this.#maxPayload) {
      sent = tooLarge(answer, bytes, this.#maxPayload);
      headers = headersOf(sent);
    }
    try {
      this.#connection.publish(call.reply, sent.payload, { headers });
    } catch {
      counters.dropped += 1;
      return;
    }
    if (sent.error === undefined) counters.answered();
    else counters.failed(statusOfCode(sent.error.code), nameOfCode(sent.error.code));
  }

  /** What the server takes in a message, headers included. */
  get #maxPayload(): number {
    return this.#connection.info?.max_payload ?? Number.POSITIVE_INFINITY;
  }
}

/** With what tools for micro services look at. */
function headersOf({ pairs, error }: OutgoingAnswer) {
  const headers = natsHeaders(pairs);
  if (error === undefined) return headers;
  const told = errorHeaders({ status: statusOfCode(error.code), text: error.rawMessage });
  for (const name of told.keys()) headers.set(name, told.get(name));
  return headers;
}

function tooLarge({ error }: OutgoingAnswer, bytes: number, maxPayload: number): OutgoingAnswer {
  const what = error === undefined ? "answer" : `answer, an error ${nameOfCode(error.code)},`;
  const words = `the ${what} has ${bytes} bytes with its headers; the NATS server takes at most ${maxPayload} (max_payload)`;
  return errorAnswer(new ConnectError(words, Code.ResourceExhausted));
}

function servicesOf(routes: readonly Route[], { queue, subjectPrefix, version }: Naming) {
  const services = new Map<string, MicroService & { readonly endpoints: Endpoint[] }>();
  for (const route of routes) {
    const { parent, name, input, output } = route.method;
    let service = services.get(parent.typeName);
    if (service === undefined) {
      service = {
        ...{ name: parent.typeName.replaceAll(".", "_"), id: nuid.next(), version },
        description: `The service ${parent.typeName}, by Connect.`,
        ...{ metadata: { service: parent.typeName }, startedAt: new Date(), endpoints: [] },
      };
      services.set(parent.typeName, service);
    }
    const metadata = { request: input.typeName, response: output.typeName };
    const subject = subjectOf(route.method, subjectPrefix);
    const cancelSubject = cancelSubjectOf(route.method, subjectPrefix);
    const counters = new EndpointCounters();
    service.endpoints.push({ name, subject, queueGroup: queue, metadata, counters, route, cancelSubject });
  }
  return [...services.values()];
}

function checkQueue(queue: unknown): void {
  if (typeof queue === "string" && /^[^\s*>]+$/.test(queue)) return;
  throw new HawserError(
    "invalid_argument",
    `queue ${JSON.stringify(queue)}: must be a name without spaces and wildcards. Example: "q"`,
  );
}

function checkVersion(version: unknown): void {
  if (typeof version === "string" && /^\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?$/.test(version)) return;
  throw new HawserError("invalid_argument", `version ${JSON.stringify(version)}: must be semantic. Example: "1.0.0"`);
}
