/** Services over NATS: each is a micro service (ADR-32) with one endpoint per method. */
import { Code, ConnectError, type ContextKey, createContextKey } from "@connectrpc/connect";
import { type Msg, type NatsConnection, nuid } from "@nats-io/transport-node";
import {
  checkNatsServiceSettings,
  type NatsServiceSettings,
  type NatsServiceSettingsInput,
  natsServiceSettingsDefaults,
} from "../../../generated/ts/settings/connect.js";
import {
  checkedSettings,
  checkOptionNames,
  HawserError,
  invalidArgument,
  namesOf,
} from "../../foundation/errors/index.js";
import {
  inSpan,
  type Logger,
  type Subscription,
  silentLogger,
  traceContextOf,
  tracer,
  within,
} from "../../foundation/runtime/index.js";
import {
  confirmed,
  Discovery,
  EndpointCounters,
  errorHeaders,
  isAnswerable,
  type MicroEndpoint,
  type MicroService,
  SubscriptionSet,
} from "../../nats/connections/index.js";
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
import { collectRoutes, type Route, type RouteOptions, type Routes, routeOptions, unaryMethodOf } from "./routes.js";
import { startCall } from "./spans.js";

/** Options of {@link serveNats}. */
export interface ServeNatsOptions extends RouteOptions, NatsServiceSettingsInput {
  /** Queue group of the services: each call goes to one member. Default: `q`, the default of micro services. */
  readonly queue?: string | undefined;
  /** Prefix of all subjects; callers need the same one. Default: no prefix. */
  readonly subjectPrefix?: string | undefined;
  /** Version of the services as shown by discovery, in semantic versioning. Default: `1.0.0`. */
  readonly version?: string | undefined;
  /**
   * Receiver of log entries, such as a pino logger; it gets the causes of failed calls, which callers do not see.
   * Default: no logging.
   */
  readonly logger?: Logger | undefined;
}

/** Context key of the NATS message of a call: `context.values.get(natsMessage)` in a handler. */
export const natsMessage: ContextKey<Msg | undefined> = createContextKey<Msg | undefined>(undefined, {
  description: "hawser: the message of NATS",
});

const nats: CallSource<NatsCall> = {
  scheme: "nats",
  prepare: (values, { message }) => values.set(natsMessage, message),
};

const optionNames = namesOf<ServeNatsOptions>({
  queue: true,
  subjectPrefix: true,
  version: true,
  logger: true,
  ...natsServiceSettingsDefaults,
  ...routeOptions,
});

/**
 * Serves the methods that the routes register. Resolves when the NATS server has confirmed the subscriptions.
 *
 * `stop()` accepts no further calls, and resolves when the running calls are answered. Calls that are still running
 * after `stopTimeoutMs` are aborted and answered with `unavailable`. The connection stays open.
 *
 * After a reconnect nats.js restores the subscriptions. A process that should serve only while it is healthy has to
 * stop the service and serve again.
 *
 * @param connection stays open and belongs to the caller
 * @throws HawserError (as a rejection) `invalid_argument`; `nats_permission_denied`; `nats_unavailable`
 */
export async function serveNats(
  connection: NatsConnection,
  routes: Routes,
  options: ServeNatsOptions = {},
): Promise<Subscription> {
  checkOptionNames(options, "a service over NATS", optionNames);
  const { queue = "q", subjectPrefix, version = "1.0.0", logger = silentLogger, ...rest } = options;
  const { concurrency, stopTimeoutMs, callerCheckMs, ...ofRoutes } = rest;
  checkQueue(queue);
  checkVersion(version);
  checkSubjectPrefix(subjectPrefix);
  const settings = checkedSettings(checkNatsServiceSettings({ concurrency, stopTimeoutMs, callerCheckMs }));
  const server = new Server(connection, settings, logger);
  await server.start(collectRoutes(routes, ofRoutes), { queue, subjectPrefix, version });
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

/** Call that is running or was answered. */
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
  /** Running calls whose headers were read; others are answered with an error at once. */
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
          const text = "NATS does not permit cancellations; calls are answered, and their time limits apply";
          logger.warn({ subject, reason: error.message }, text);
          return;
        }
        this.#refusal ??= error;
        logger.error(
          { subject, reason: error.message },
          "NATS does not permit serving this method: its calls are not answered",
        );
      },
    });
    this.#callers = new CallerWatch(connection, this.#calls, settings.callerCheckMs, (error) => {
      const text = "NATS does not permit checks for disconnected callers; calls are answered";
      logger.warn({ reason: error.message }, text);
    });
    this.#discovery = new Discovery(connection, (error) =>
      logger.warn({ reason: error.message }, "NATS does not permit service discovery ($SRV.>); calls are answered"),
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
      const text = `NATS does not permit this user to serve: ${this.#refusal.message}. Allow the subscription`;
      throw new HawserError("nats_permission_denied", text, { cause: this.#refusal });
    }
    if (!isTaken) {
      throw new HawserError("nats_unavailable", "the connection to NATS is closed: the services are not served");
    }
    await this.#discovery.update(services);
  }

  get topics(): readonly string[] {
    return [...this.#endpoints.keys()];
  }

  /**
   * Cancellation subjects of all endpoints, without a queue group: callers do not know which process runs a call, so
   * every process gets each cancellation.
   */
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
    // Running calls can still be canceled.
    this.#subscriptions.sync(this.#cancelSubjects);
    await Promise.all([confirmed(this.#connection), this.#discovery.end()]);
    const idle = new Promise<void>((resolve) => {
      this.#onIdle = resolve;
      if (this.#running.size === 0) resolve();
    });
    await within(this.#settings.stopTimeoutMs, idle);
    const error = new ConnectError("the service is stopping; the call may have had effects", Code.Unavailable);
    for (const call of this.#calls) call.abort(error);
    this.#callers.end();
    for (const call of this.#running) this.#answer(call, errorAnswer(error));
    await this.#subscriptions.drain();
  }

  #receive(endpoint: Endpoint, message: Msg): void {
    const { reply } = message;
    if (!isAnswerable(reply)) {
      endpoint.counters.ignored += 1;
      this.#logger.debug({ subject: endpoint.subject }, "ignored a message without a reply subject");
      return;
    }
    const call: Answering = { endpoint, reply, isAnswered: false };
    const { concurrency } = this.#settings;
    if (this.#running.size < concurrency) {
      void this.#run(call, message);
      return;
    }
    endpoint.counters.busy += 1;
    const text = `busy: this process is already running ${concurrency} calls (concurrency); try again later`;
    this.#answer(call, errorAnswer(new ConnectError(text, Code.ResourceExhausted)));
  }

  async #run(call: Answering, message: Msg): Promise<void> {
    this.#running.add(call);
    const { endpoint } = call;
    const startedAt = performance.now();
    try {
      const answer = await this.#answerOf(endpoint, message);
      endpoint.counters.ran(performance.now() - startedAt);
      const cause = answer.error?.cause;
      if (cause !== undefined) this.#logger.error({ subject: endpoint.subject, err: cause }, "an RPC handler failed");
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
    const span = tracer && startCall("respond", unaryMethodOf(route), read.payload, traceContextOf(read.headers));
    const answer =
      span === undefined
        ? answerCall(route, call, nats)
        : inSpan(
            span,
            async () => answerCall(route, call, nats),
            ({ error }) => error && { code: nameOfCode(error.code), message: error.rawMessage },
          );
    if (!(answer instanceof Promise)) return answer;
    this.#addCall(call);
    return answer.finally(() => this.#removeCall(call));
  }

  #addCall(call: NatsCall): void {
    this.#calls.add(call);
    if (call.id === undefined) return;
    this.#callsById.set(call.id, call);
    this.#callers.begin();
  }

  #removeCall(call: NatsCall): void {
    this.#calls.delete(call);
    if (call.id !== undefined) this.#callsById.delete(call.id);
  }

  /** Aborts a call. Its answer is still sent, because NATS does not reveal who published the cancellation. */
  #cancel(subject: string, { data }: Msg): void {
    const call = this.#callsById.get(Buffer.from(data).toString("latin1"));
    if (call?.cancelSubject === subject)
      call.abort(new ConnectError("the caller has canceled the call", Code.Canceled));
  }

  /** Sends the answer of a call, unless an answer was already sent. */
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

  /** Maximum message size of the NATS server, headers included. */
  get #maxPayload(): number {
    return this.#connection.info?.max_payload ?? Number.POSITIVE_INFINITY;
  }
}

/** Headers of an answer, including the error headers that tools for micro services read. */
function headersOf({ pairs, error }: OutgoingAnswer) {
  const headers = natsHeaders(pairs);
  if (error === undefined) return headers;
  const errorPairs = errorHeaders({ status: statusOfCode(error.code), text: error.rawMessage });
  for (const name of errorPairs.keys()) headers.set(name, errorPairs.get(name));
  return headers;
}

function tooLarge({ error }: OutgoingAnswer, bytes: number, maxPayload: number): OutgoingAnswer {
  const what = error === undefined ? "answer" : `answer, an error ${nameOfCode(error.code)},`;
  const text = `the ${what} has ${bytes} bytes with its headers; the NATS server accepts at most ${maxPayload} (max_payload)`;
  return errorAnswer(new ConnectError(text, Code.ResourceExhausted));
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
  throw invalidArgument(`queue ${JSON.stringify(queue)}: must be a name without spaces and wildcards. Example: "q"`);
}

function checkVersion(version: unknown): void {
  if (typeof version === "string" && /^\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?$/.test(version)) return;
  throw invalidArgument(`version ${JSON.stringify(version)}: must be semantic. Example: "1.0.0"`);
}
