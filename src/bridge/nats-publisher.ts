/**
 * Publishes messages of the outbox to NATS, thousands at a time, by the pipeline of the connection. What that leaves open, and
 * what names a JetStream domain, is published by the operations that SQL functions have, which say why NATS refuses it.
 *
 * What needs requests to JetStream has a limit, of which each role has a share: who publishes to domains that do not answer
 * leaves the connection to others.
 *
 * A message that may have been published is looked for in its stream first. What follows from that is in `doubt.ts` of the outbox. A
 * message to core NATS is not looked for: nobody can tell who has got it.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { namedRules } from "../../generated/ts/rules/named.js";
import { checkText } from "../../generated/ts/rules/violation.js";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { HawserError } from "../errors/index.js";
import {
  type FoundStream,
  isStreamFull,
  isStreamMissing,
  lookInto,
  lookIntoAll,
  type NatsConnector,
  NatsOperations,
  natsFailure,
  PublishPipeline,
  readHeaders,
  type StreamContent,
  streamOf,
} from "../nats/index.js";
import {
  type EnqueuedMessage,
  isDroppedByItself,
  needsGaps,
  type PublishOutcome,
  type PublishStep,
  requiredSearch,
  type SearchRange,
  type StreamMemory,
  verdictOf,
} from "../outbox/index.js";
import { shared } from "../runtime/index.js";
import { RoleGate } from "./role-gate.js";

const { publishTimeoutMs, dueDoubtMs, scans, slowPublishes } = outboxConstants;
const { clockSkewMs: skewMs, lookMarginMs: marginMs } = outboxConstants;
const { lookRequests: requests, lookMessages: maxMessages } = outboxConstants;

/** NATS has said no. All other failures are of the connection, or of servers that are away. */
const refusals: ReadonlySet<string> = new Set([
  "invalid_argument",
  "nats_failed",
  "nats_permission_denied",
  "not_supported",
  "payload_too_large",
]);

/** Nothing is known of what a stream has: it is asked again before anything is published. */
const silences: ReadonlySet<string> = new Set([
  "jetstream_unavailable",
  "nats_timeout",
  "nats_unavailable",
  "outcome_unknown",
]);

type Published = "stored" | "known" | "dropped";

/** The connection has ended, or was not there. */
const connectionFailures: ReadonlySet<string> = new Set(["nats_unavailable", "outcome_unknown"]);

/** What one connection was used for. */
interface Used {
  readonly operations: NatsOperations;
  readonly pipeline: PublishPipeline;
  /** Resolves when the server has taken all that was published until the call. */
  readonly flush: () => Promise<void>;
}

/** A look for the messages of a subject. Times are by `performance.now()`. */
interface Look {
  readonly connection: NatsConnection;
  readonly since: number;
  readonly begun: { readonly at: number };
  /** The look finds out since when it is complete, which not every message needs. */
  readonly tellsGaps: boolean;
  readonly found: Promise<StreamContent>;
}

/** Error of a look that could not prove whether the stream has had the message. */
class Undecided extends HawserError {}

export class NatsPublisher {
  readonly #connector: NatsConnector;
  #used: Used | undefined;
  /** Publishes to core NATS that are under way, and what the server has not let pass since the first of them. */
  #flushing = 0;
  readonly #notPermitted = new Map<string, { readonly at: number; readonly message: string }>();
  /** By the route and the subject, for a short time. */
  readonly #streams = new Map<string, { readonly connection: NatsConnection; readonly found: Promise<FoundStream> }>();
  readonly #looks = new Map<string, Look>();
  readonly #lookGate = new RoleGate(scans);
  /** The NATS server, which has another id after each start, and since when this has published to it. */
  #server: { readonly id: string | undefined; readonly since: number } = { id: undefined, since: 0 };
  readonly #slowGate = new RoleGate(slowPublishes);

  readonly #tell: (problem: string) => void;

  /** @param tell of messages that are tried again */
  constructor(connector: NatsConnector, tell: (problem: string) => void) {
    this.#connector = connector;
    this.#tell = tell;
    connector.on("refused", ({ operation, subject, message }, connection) => {
      if (operation !== "publish" || this.#used?.operations.connection !== connection) return;
      this.#used.pipeline.refused(subject);
      if (this.#flushing > 0) this.#notPermitted.set(subject, { at: performance.now(), message });
    });
  }

  /** Publishes a message. Does not reject. */
  publish(step: PublishStep<EnqueuedMessage>): Promise<PublishOutcome> {
    const { connection } = this.#connector;
    if (connection === undefined) {
      return Promise.resolve({ kind: "unavailable", scope: "connection", mayBeThere: false });
    }
    const id = connection.info?.server_id;
    if (id !== this.#server.id) this.#server = { id, since: performance.now() };
    const ended = this.#connector.use(connection);
    return this.#published(connection, step).then(
      (as): PublishOutcome => {
        ended();
        return { kind: "published", as };
      },
      async (error: unknown) => {
        const outcome = await this.#failed(connection, step, error);
        ended();
        return outcome;
      },
    );
  }

  async #failed(
    connection: NatsConnection,
    { message }: PublishStep<EnqueuedMessage>,
    error: unknown,
  ): Promise<PublishOutcome> {
    if (error instanceof HawserError && !isStreamFull(error)) {
      const refusal = { code: error.code, message: error.message };
      if (error instanceof Undecided) return { kind: "undecided", ...refusal };
      if (refusals.has(refusal.code)) return { kind: "refused", ...refusal };
      if (refusal.code === "no_stream") {
        return { kind: "missing", mayBeThere: error.outcome === "unknown", ...refusal };
      }
    }
    this.#tell(`${message.destination}: ${error instanceof Error ? error.message : String(error)}`);
    const code = error instanceof HawserError ? error.code : undefined;
    // What goes to core NATS fails with the connection alone.
    const mayBeThere = !(error instanceof HawserError) || error.outcome === "unknown";
    if (!message.toStream || (code !== undefined && connectionFailures.has(code))) {
      return { kind: "unavailable", scope: "connection", mayBeThere };
    }
    // Where nothing came: whether the server answers at all.
    const isAnswering = code !== "nats_timeout" || (await this.#answers(connection));
    const scope = isAnswering && this.#connector.connection === connection ? "route" : "connection";
    return { kind: "unavailable", scope, mayBeThere };
  }

  #answers(connection: NatsConnection): Promise<boolean> {
    return this.#over(connection)
      .flush()
      .then(
        () => true,
        () => false,
      );
  }

  async #published(connection: NatsConnection, step: PublishStep<EnqueuedMessage>): Promise<Published> {
    const used = this.#over(connection);
    const { message, doubt } = step;
    const needed = message.toStream ? requiredSearch(message, doubt, performance.now(), dueDoubtMs) : undefined;
    if (needed === undefined) return (await this.#send(used, step)) === "duplicate" ? "dropped" : "stored";
    const begunAt = performance.now();
    const found = await this.#look(connection, step, needed);
    if (found !== "dropped by itself") {
      const verdict = verdictOf(message, doubt, needed, found);
      if (verdict === "known") return "known";
      if (verdict === "undecided") {
        throw new Undecided(
          "outcome_unknown",
          `The message to "${message.destination}" may have been published before, and its stream, which has removed messages of that time, ` +
            "does not show whether it was. Find out whether it was handled; a retry publishes it.",
          { outcome: "unknown" },
        );
      }
      // Another relay may be at work by now, and have published it.
      if (performance.now() - begunAt > publishTimeoutMs) {
        throw new HawserError("nats_unavailable", "The look for it took long, and is used for the next try.");
      }
    }
    const sent = await this.#send(used, step);
    if (sent !== "duplicate") return "stored";
    return found === "dropped by itself" ? "known" : "dropped";
  }

  #over(connection: NatsConnection): Used {
    if (this.#used?.operations.connection !== connection) {
      const operations = new NatsOperations(connection);
      this.#used = {
        operations,
        pipeline: new PublishPipeline(connection, publishTimeoutMs),
        flush: shared(() => operations.flush({ timeoutMs: publishTimeoutMs })),
      };
    }
    return this.#used;
  }

  async #send(used: Used, { message, doubt }: PublishStep<EnqueuedMessage>): Promise<"stored" | "duplicate"> {
    if (!message.toStream) {
      await this.#sendToCore(used, message);
      return "stored";
    }
    const begunAt = performance.now();
    const domain = this.#domainOf(message);
    if (domain !== undefined) checkDomain(domain);
    // Where this relay got no answer it asks what is there: a missing stream can show by silence alone.
    const isUnanswered = doubt !== undefined && doubt.from !== Number.NEGATIVE_INFINITY;
    if (!isUnanswered && domain === undefined) {
      const { destination, payload, messageId, headers } = message;
      const outgoing = headers === null ? undefined : readHeaders(headers);
      const ack = await used.pipeline.publishStream(destination, payload, messageId, outgoing);
      if (ack !== undefined) return ack.duplicate === true ? "duplicate" : "stored";
      // A stream may have it by then.
      await this.#sendToStream(used, message, begunAt);
      return "stored";
    }
    return this.#sendToStream(used, message, begunAt);
  }

  #sendToStream({ operations }: Used, message: EnqueuedMessage, begunAt: number): Promise<"stored" | "duplicate"> {
    return this.#slowGate.run(message.role, async () => {
      const timeoutMs = begunAt + publishTimeoutMs - performance.now();
      // A message that waited so long may be another relay's by now.
      if (timeoutMs <= 0) throw new HawserError("nats_unavailable", "Other messages of its role were published first.");
      const { duplicate } = await operations.streams.publish(message.destination, message.payload, {
        headers: readHeaders(message.headers),
        domain: this.#domainOf(message),
        messageId: message.messageId,
        timeoutMs,
      });
      return duplicate ? "duplicate" : "stored";
    });
  }

  async #sendToCore({ pipeline, flush }: Used, message: EnqueuedMessage): Promise<void> {
    const { destination, payload } = message;
    const headers = readHeaders(message.headers);
    const begunAt = performance.now();
    this.#flushing += 1;
    try {
      await pipeline.publish(destination, payload, headers);
      await flush();
      // The server tells before it answers the flush.
      const refusal = this.#notPermitted.get(destination);
      if (refusal === undefined || refusal.at < begunAt) return;
      throw new HawserError(
        "nats_permission_denied",
        `The NATS server does not permit the publish to "${destination}".`,
        {
          detail: refusal.message,
        },
      );
    } finally {
      this.#flushing -= 1;
      if (this.#flushing === 0) this.#notPermitted.clear();
    }
  }

  #domainOf({ domain }: EnqueuedMessage): string | undefined {
    return domain ?? this.#connector.options?.domain;
  }

  async #look(
    connection: NatsConnection,
    step: PublishStep<EnqueuedMessage>,
    needed: SearchRange,
  ): Promise<StreamContent | "dropped by itself"> {
    const { message } = step;
    try {
      const stream = await this.#streamOf(connection, message);
      const isDropped = isDroppedByItself(message, needed, performance.now(), this.#memoryOf(stream));
      if (isDropped) return "dropped by itself";
      return await this.#contentOf(stream, step, needed);
    } catch (error) {
      const name = `look for a message to "${message.destination}"`;
      const failure = natsFailure(error, { name, changes: false, timeoutMs: publishTimeoutMs });
      if (silences.has(failure.code)) throw failure;
      // A stream of another account, or behind a mapping of subjects, does not show itself, and may have it.
      if (isStreamMissing(error)) {
        throw new HawserError(
          "no_stream",
          `The message to "${message.destination}" may have been published before, and no stream for it can be found.`,
          { cause: failure },
        );
      }
      throw new Undecided(
        "outcome_unknown",
        `The message to "${message.destination}" may have been published before, and could not be looked for: ${failure.message} ` +
          "Find out whether it was handled; a retry publishes it. The rights that a look needs are in transactional.md.",
        { cause: failure, outcome: "unknown" },
      );
    }
  }

  /** Tells since when a stream surely knows the ids of the messages that it has had. */
  #memoryOf({ windowMs, keepsSince, isAlone, jetStream: { connection } }: FoundStream): StreamMemory {
    // A server without JetStream is a leaf node of the one that has the stream.
    const { server_id: id, jetstream } = connection.info ?? {};
    const isSameServer = isAlone && jetstream === true && id === this.#server.id;
    return { windowMs, since: Math.min(keepsSince, isSameServer ? this.#server.since : Number.POSITIVE_INFINITY) };
  }

  /** Kept for a short time: many messages are in doubt at once. */
  #streamOf(connection: NatsConnection, message: EnqueuedMessage): Promise<FoundStream> {
    const key = this.#keyOf(message);
    const known = this.#streams.get(key);
    if (known?.connection === connection) return known.found;
    const found = this.#lookGate.run(message.role, () =>
      streamOf(connection, message.destination, this.#domainOf(message), publishTimeoutMs),
    );
    this.#keep(this.#streams, key, { connection, found });
    return found;
  }

  /** Looks for a message. All messages of its subject that are in doubt share a look, or all of its stream. */
  #contentOf(
    stream: FoundStream,
    { message, doubt }: PublishStep<EnqueuedMessage>,
    { since, after }: SearchRange,
  ): Promise<StreamContent> {
    const { connection } = stream.jetStream;
    const key = this.#keyOf(message);
    const streamKey = `${this.#domainOf(message) ?? ""} stream ${stream.name}`;
    const tellsGaps = needsGaps(message, doubt);
    const known = (name: string): Look["found"] | undefined => {
      const look = this.#looks.get(name);
      if (look?.connection !== connection || look.since > since || look.begun.at <= after) return undefined;
      return look.tellsGaps || !tellsGaps ? look.found : undefined;
    };
    const ofSubject = known(key);
    if (ofSubject !== undefined) return ofSubject;
    // Until its turn comes it serves whatever happens.
    const begun = { at: Number.POSITIVE_INFINITY };
    const found = this.#lookGate.run(message.role, () => {
      begun.at = performance.now();
      const range = { since, skewMs, marginMs, requests, maxMessages, needsGaps: tellsGaps };
      return lookInto(stream, range, () => {
        const ofStream = known(streamKey);
        if (ofStream !== undefined) return ofStream;
        // Twice as far back, so that few of those that wait need another one.
        const wider = { ...range, since: 2 * since - performance.now() };
        const look = { connection, since: wider.since, begun: { at: performance.now() }, tellsGaps: true };
        const foundInAll = lookIntoAll(stream, wider);
        this.#keep(this.#looks, streamKey, { ...look, found: foundInAll });
        return foundInAll;
      });
    });
    this.#keep(this.#looks, key, { connection, since, begun, tellsGaps, found });
    return found;
  }

  #keep<T extends { readonly found: Promise<unknown> }>(kept: Map<string, T>, key: string, value: T): void {
    kept.set(key, value);
    const forget = (): void => {
      if (kept.get(key) === value) kept.delete(key);
    };
    value.found.then(() => setTimeout(forget, publishTimeoutMs).unref(), forget);
  }

  #keyOf(message: EnqueuedMessage): string {
    return `${this.#domainOf(message) ?? ""} ${message.destination}`;
  }
}

/** @throws HawserError invalid_argument: as a part of a subject it would reach others than a domain */
function checkDomain(domain: string): void {
  const bad = checkText("domain", namedRules.jetstreamDomain, domain);
  if (bad === undefined) return;
  throw new HawserError("invalid_argument", `domain ${bad.value}: ${bad.rule}. ${bad.remedy}`);
}
