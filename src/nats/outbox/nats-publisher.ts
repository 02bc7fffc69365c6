/**
 * Publishes messages of the outbox to NATS, thousands concurrently, each by one publish with an acknowledgement.
 * Messages that are not acknowledged, and messages to a JetStream domain, are published as SQL functions do, which
 * reports why NATS refuses a message.
 *
 * Operations that need JetStream requests are limited, with a share for each role, so that a role that publishes to
 * domains that do not answer leaves the connection to others.
 *
 * A message that may already have been published is first searched for in its stream. `doubt.ts` of the outbox decides
 * what follows from the result. A message to core NATS cannot be searched for: no server keeps it.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { namedRules } from "../../../generated/ts/rules/named.js";
import { checkText } from "../../../generated/ts/rules/violation.js";
import { errorMessageOf, HawserError, refuse } from "../../foundation/errors/index.js";
import { Semaphore, shared, shareOf } from "../../foundation/runtime/index.js";
import {
  type FoundStream,
  isStreamFull,
  isStreamMissing,
  type NatsConnector,
  NatsOperations,
  natsFailure,
  readHeaders,
  type StreamContent,
  searchStream,
  searchWholeStream,
  streamOf,
} from "../connections/index.js";
import {
  isDroppedByItself,
  needsGaps,
  requiredSearch,
  type SearchRange,
  type StreamMemory,
  verdictOf,
} from "./doubt.js";
import { publishTimeoutMs } from "./nats-outbox.js";
import type { EnqueuedMessage } from "./outbox-table.js";
import type { PublishOutcome, PublishStep } from "./relay.js";

/**
 * Delay of a publish from which the message may already be in its stream: a failover may have undone that it was
 * moved to the outbox before.
 */
const dueDoubtMs = 5_000;
/**
 * Maximum number of subjects of one role that are searched in their streams at once, if it is the only role. Several
 * roles share it.
 */
export const scans = 16;
/**
 * Maximum number of concurrent publishes of one role that need requests to JetStream, if it is the only role. Several
 * roles share it.
 */
const slowPublishes = 4;
/**
 * Maximum difference between the clocks of the servers of a NATS cluster. The clocks of Postgres and of the relay are
 * not compared with them.
 */
const skewMs = 5_000;
/**
 * Time before the earliest possible publish at which a search of a stream starts, because the stream's clock may have
 * been changed.
 */
const marginMs = 330_000;
/** Maximum number of pending message requests to a stream, where a search cannot use a consumer. */
const requests = 64;
/**
 * Maximum number of messages that a search of a stream reads. If the stream received more in the range, a message
 * that was not found is in doubt.
 */
const maxMessages = 1_000_000;

/** Codes of messages that NATS refused. All other failures concern the connection or unavailable servers. */
const refusalCodes: ReadonlySet<string> = new Set([
  "invalid_argument",
  "nats_failed",
  "nats_permission_denied",
  "not_supported",
  "payload_too_large",
]);

/**
 * Codes of failed searches that show nothing about the content of a stream: the search is repeated before a publish.
 */
const inconclusiveCodes: ReadonlySet<string> = new Set([
  "jetstream_unavailable",
  "nats_timeout",
  "nats_unavailable",
  "outcome_unknown",
]);

/** Result of a publish: stored now, found in the stream, or dropped by the stream as a duplicate. */
type Published = "stored" | "known" | "dropped";

/** Codes of a connection that was closed or missing. */
const connectionFailureCodes: ReadonlySet<string> = new Set(["nats_unavailable", "outcome_unknown"]);

/** Operations of one connection. */
interface ConnectionTools {
  readonly operations: NatsOperations;
  /** Resolves when the server has processed everything that was published before the call. */
  readonly flush: () => Promise<void>;
  /** Running publishes to core NATS; refusals that arrive while there are any are kept in {@link notPermitted}. */
  flushing: number;
  readonly notPermitted: Map<string, { readonly at: number; readonly message: string }>;
}

/** Search for the messages of a subject, or of a whole stream. Times are those of `performance.now()`. */
interface Search {
  readonly connection: NatsConnection;
  /** Start of the time range that the search covers. */
  readonly since: number;
  /** Time at which the search started; Infinity before. The search covers messages stored until then. */
  readonly started: { readonly at: number };
  /** True if the search also finds the time since which the stream is complete, which not every message needs. */
  readonly findsGaps: boolean;
  readonly found: Promise<StreamContent>;
}

/** Limit of concurrent operations of each role. @param alone limit of a role while no other role has operations */
function limitOfRole(alone: number): Semaphore {
  return new Semaphore(Number.POSITIVE_INFINITY, (held, _free, roles) => held <= shareOf(alone * 2, roles));
}

/** Error of a search that could not prove whether the stream has stored the message. */
class UndecidedError extends HawserError {}

export class NatsPublisher {
  readonly #connector: NatsConnector;
  /** Tools by connection, of the current one and of replaced ones whose publishes have not ended. */
  readonly #tools = new WeakMap<NatsConnection, ConnectionTools>();
  /** Streams by domain and subject, kept for a short time. */
  readonly #streams = new Map<string, { readonly connection: NatsConnection; readonly found: Promise<FoundStream> }>();
  readonly #searches = new Map<string, Search>();
  readonly #searchLimit = limitOfRole(scans);
  /** Id of the NATS server, which changes with each of its starts, and the time of the first publish to it. */
  #server: { readonly id: string | undefined; readonly since: number } = { id: undefined, since: 0 };
  readonly #slowLimit = limitOfRole(slowPublishes);

  readonly #logProblem: (problem: string) => void;

  /** @param logProblem logs the problem of a message that is tried again */
  constructor(connector: NatsConnector, logProblem: (problem: string) => void) {
    this.#connector = connector;
    this.#logProblem = logProblem;
    connector.on("refused", ({ operation, subject, message }, connection) => {
      const tools = this.#tools.get(connection);
      if (operation !== "publish" || tools === undefined || tools.flushing === 0) return;
      tools.notPermitted.set(subject, { at: performance.now(), message });
    });
  }

  /** Publishes one message. Does not reject. */
  publish(step: PublishStep<EnqueuedMessage>): Promise<PublishOutcome> {
    const { connection } = this.#connector;
    if (connection === undefined) {
      return Promise.resolve({ kind: "unavailable", scope: "connection", mayBeThere: false });
    }
    const id = connection.info?.server_id;
    if (id !== this.#server.id) this.#server = { id, since: performance.now() };
    const ended = this.#connector.use(connection);
    return this.#searchAndSend(connection, step).then(
      (as): PublishOutcome => {
        ended();
        return { kind: "published", as };
      },
      async (error: unknown) => {
        const outcome = await this.#outcomeOfFailure(connection, step, error);
        ended();
        return outcome;
      },
    );
  }

  async #outcomeOfFailure(
    connection: NatsConnection,
    { message }: PublishStep<EnqueuedMessage>,
    error: unknown,
  ): Promise<PublishOutcome> {
    if (error instanceof HawserError && !isStreamFull(error)) {
      const refusal = { code: error.code, message: error.message };
      if (error instanceof UndecidedError) return { kind: "undecided", ...refusal };
      if (refusalCodes.has(refusal.code)) return { kind: "refused", ...refusal };
      if (refusal.code === "no_stream") {
        return { kind: "missing", mayBeThere: error.outcome === "unknown", ...refusal };
      }
    }
    this.#logProblem(`${message.destination}: ${errorMessageOf(error)}`);
    const code = error instanceof HawserError ? error.code : undefined;
    // A message to core NATS that NATS does not refuse fails only with the connection.
    const mayBeThere = !(error instanceof HawserError) || error.outcome === "unknown";
    if (!message.toStream || (code !== undefined && connectionFailureCodes.has(code))) {
      return { kind: "unavailable", scope: "connection", mayBeThere };
    }
    // After a timeout, a flush shows whether the server answers at all.
    const isAnswering = code !== "nats_timeout" || (await this.#isAnswering(connection));
    const scope = isAnswering && this.#connector.connection === connection ? "route" : "connection";
    return { kind: "unavailable", scope, mayBeThere };
  }

  #isAnswering(connection: NatsConnection): Promise<boolean> {
    return this.#toolsOf(connection)
      .flush()
      .then(
        () => true,
        () => false,
      );
  }

  async #searchAndSend(connection: NatsConnection, step: PublishStep<EnqueuedMessage>): Promise<Published> {
    const tools = this.#toolsOf(connection);
    const { message, doubt } = step;
    const needed = message.toStream ? requiredSearch(message, doubt, performance.now(), dueDoubtMs) : undefined;
    if (needed === undefined) return (await this.#send(tools, step)) === "duplicate" ? "dropped" : "stored";
    const begunAt = performance.now();
    const found = await this.#search(connection, step, needed);
    if (found !== "dropped by itself") {
      const verdict = verdictOf(message, doubt, needed, found);
      if (verdict === "known") return "known";
      if (verdict === "undecided") {
        throw new UndecidedError(
          "outcome_unknown",
          `The message to "${message.destination}" may have been published before. Its stream has removed messages of that time, ` +
            "so it does not show whether it was. Find out whether the message was handled; a retry publishes it.",
          { outcome: "unknown" },
        );
      }
      // After so long a search, another relay may have taken over and published the message.
      if (performance.now() - begunAt > publishTimeoutMs) {
        throw new HawserError(
          "nats_unavailable",
          "The search for the message took too long; the next attempt uses its result.",
        );
      }
    }
    const sent = await this.#send(tools, step);
    if (sent !== "duplicate") return "stored";
    return found === "dropped by itself" ? "known" : "dropped";
  }

  #toolsOf(connection: NatsConnection): ConnectionTools {
    let tools = this.#tools.get(connection);
    if (tools === undefined) {
      const operations = new NatsOperations(connection);
      const flush = shared(() => operations.flush({ timeoutMs: publishTimeoutMs }));
      tools = { operations, flush, flushing: 0, notPermitted: new Map() };
      this.#tools.set(connection, tools);
    }
    return tools;
  }

  async #send(
    tools: ConnectionTools,
    { message, doubt }: PublishStep<EnqueuedMessage>,
  ): Promise<"stored" | "duplicate"> {
    if (!message.toStream) {
      await this.#sendToCore(tools, message);
      return "stored";
    }
    const begunAt = performance.now();
    const domain = this.#domainOf(message);
    if (domain !== undefined) checkDomain(domain);
    // If an earlier attempt was not answered, one publish is not enough: only the operation finds out whether the
    // stream is missing, which may be why nothing answers.
    const isUnanswered = doubt !== undefined && doubt.from !== Number.NEGATIVE_INFINITY;
    if (!isUnanswered && domain === undefined) {
      const { destination, payload, messageId } = message;
      const options = { headers: readHeaders(message.headers), messageId, timeoutMs: publishTimeoutMs };
      const ack = await tools.operations.streams.publishOnce(destination, payload, options);
      if (ack !== undefined) return ack.duplicate === true ? "duplicate" : "stored";
      // The message may have been stored although no acknowledgement arrived, so a duplicate counts as stored.
      await this.#sendToStream(tools, message, begunAt);
      return "stored";
    }
    return this.#sendToStream(tools, message, begunAt);
  }

  #sendToStream(
    { operations }: ConnectionTools,
    message: EnqueuedMessage,
    begunAt: number,
  ): Promise<"stored" | "duplicate"> {
    return this.#slowLimit.run(message.role, async () => {
      const timeoutMs = begunAt + publishTimeoutMs - performance.now();
      // After so long a wait, another relay may have taken over and published the message.
      if (timeoutMs <= 0)
        throw new HawserError("nats_unavailable", "The message waited too long behind others of its role.");
      const { duplicate } = await operations.streams.publish(message.destination, message.payload, {
        headers: readHeaders(message.headers),
        domain: this.#domainOf(message),
        messageId: message.messageId,
        timeoutMs,
      });
      return duplicate ? "duplicate" : "stored";
    });
  }

  async #sendToCore(tools: ConnectionTools, message: EnqueuedMessage): Promise<void> {
    const { operations, flush, notPermitted } = tools;
    const { destination, payload } = message;
    const headers = readHeaders(message.headers);
    const begunAt = performance.now();
    tools.flushing += 1;
    try {
      await operations.publishSoon(destination, payload, { headers, timeoutMs: publishTimeoutMs });
      await flush();
      // The server reports a refusal before it answers the flush.
      const refusal = notPermitted.get(destination);
      if (refusal === undefined || refusal.at < begunAt) return;
      throw new HawserError(
        "nats_permission_denied",
        `The NATS server does not permit this user to publish to "${destination}".`,
        {
          detail: refusal.message,
        },
      );
    } finally {
      tools.flushing -= 1;
      if (tools.flushing === 0) notPermitted.clear();
    }
  }

  #domainOf({ domain }: EnqueuedMessage): string | undefined {
    return domain ?? this.#connector.options?.domain;
  }

  async #search(
    connection: NatsConnection,
    step: PublishStep<EnqueuedMessage>,
    needed: SearchRange,
  ): Promise<StreamContent | "dropped by itself"> {
    const { message } = step;
    try {
      const stream = await this.#streamOf(connection, message);
      const isDropped = isDroppedByItself(message, needed, performance.now(), this.#memoryOf(stream));
      if (isDropped) return "dropped by itself";
      return await this.#searchFor(stream, step, needed);
    } catch (error) {
      const name = `search for a message to "${message.destination}"`;
      const failure = natsFailure(error, { name, changes: false, timeoutMs: publishTimeoutMs });
      if (inconclusiveCodes.has(failure.code)) throw failure;
      // A stream in another account or behind a subject mapping is not visible, but may have stored the message.
      if (isStreamMissing(error)) {
        throw new HawserError(
          "no_stream",
          `The message to "${message.destination}" may have been published before, and no stream that stores its subject can be found.`,
          { cause: failure },
        );
      }
      throw new UndecidedError(
        "outcome_unknown",
        `The message to "${message.destination}" may have been published before, and the search for it failed: ${failure.message} ` +
          "Find out whether the message was handled; a retry publishes it. docs/transactional.md lists the permissions that a search needs.",
        { cause: failure, outcome: "unknown" },
      );
    }
  }

  /** Period for which a stream certainly knows the ids of its messages. */
  #memoryOf({ windowMs, keepsSince, isAlone, jetStream: { connection } }: FoundStream): StreamMemory {
    // A server without JetStream can be a leaf node of the server that has the stream.
    const { server_id: id, jetstream } = connection.info ?? {};
    const isSameServer = isAlone && jetstream === true && id === this.#server.id;
    return { windowMs, since: Math.min(keepsSince, isSameServer ? this.#server.since : Number.POSITIVE_INFINITY) };
  }

  /**
   * Finds the stream of a message. The result is cached for a short time, because many messages are in doubt at once.
   */
  #streamOf(connection: NatsConnection, message: EnqueuedMessage): Promise<FoundStream> {
    const key = this.#keyOf(message);
    const known = this.#streams.get(key);
    if (known?.connection === connection) return known.found;
    const found = this.#searchLimit.run(message.role, () =>
      streamOf(connection, message.destination, this.#domainOf(message), publishTimeoutMs),
    );
    this.#keep(this.#streams, key, { connection, found });
    return found;
  }

  /** Searches for a message. Messages in doubt share the search of their subject, or of their stream. */
  #searchFor(
    stream: FoundStream,
    { message, doubt }: PublishStep<EnqueuedMessage>,
    { since, after }: SearchRange,
  ): Promise<StreamContent> {
    const { connection } = stream.jetStream;
    const key = this.#keyOf(message);
    const streamKey = `${this.#domainOf(message) ?? ""} stream ${stream.name}`;
    const findsGaps = needsGaps(message, doubt);
    const known = (name: string): Search["found"] | undefined => {
      const search = this.#searches.get(name);
      if (search?.connection !== connection || search.since > since || search.started.at <= after) return undefined;
      return search.findsGaps || !findsGaps ? search.found : undefined;
    };
    const ofSubject = known(key);
    if (ofSubject !== undefined) return ofSubject;
    // A search that has not started yet covers every message up to its start.
    const started = { at: Number.POSITIVE_INFINITY };
    const found = this.#searchLimit.run(message.role, () => {
      started.at = performance.now();
      const range = { since, skewMs, marginMs, requests, maxMessages, needsGaps: findsGaps };
      return searchStream(stream, range, () => {
        const ofStream = known(streamKey);
        if (ofStream !== undefined) return ofStream;
        // The range starts twice as long ago, so that few of the waiting messages need another search.
        const wider = { ...range, since: 2 * since - performance.now() };
        const startedNow = { at: performance.now() };
        const content = searchWholeStream(stream, wider);
        const search = { connection, since: wider.since, started: startedNow, findsGaps: true, found: content };
        this.#keep(this.#searches, streamKey, search);
        return content;
      });
    });
    this.#keep(this.#searches, key, { connection, since, started, findsGaps, found });
    return found;
  }

  /** Caches a value until shortly after its promise resolves; a rejected one is removed at once. */
  #keep<T extends { readonly found: Promise<unknown> }>(kept: Map<string, T>, key: string, value: T): void {
    kept.set(key, value);
    const remove = (): void => {
      if (kept.get(key) === value) kept.delete(key);
    };
    value.found.then(() => setTimeout(remove, publishTimeoutMs).unref(), remove);
  }

  #keyOf(message: EnqueuedMessage): string {
    return `${this.#domainOf(message) ?? ""} ${message.destination}`;
  }
}

/** @throws HawserError invalid_argument, because another text would address subjects outside of the domain's API */
function checkDomain(domain: string): void {
  refuse(checkText("domain", namedRules.jetstreamDomain, domain));
}
