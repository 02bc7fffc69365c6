/**
 * Publishes messages of the outbox to NATS, thousands at a time, by the pipeline of the connection. What that leaves open, and
 * what names a JetStream domain, is published by the operations that SQL functions have, which say why NATS refuses it.
 *
 * A stream drops a message that it has already, by its Nats-Msg-Id, for as long as its duplicate window. A message that may
 * have been published longer ago is looked for in the stream first, and so is one that is published again, or late.
 */
import { DeliverPolicy, PubHeaders } from "@nats-io/jetstream";
import { jserrors } from "@nats-io/jetstream/internal";
import { millis, type NatsConnection } from "@nats-io/transport-node";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { HawserError, NatsError } from "../errors/index.js";
import {
  jetStreamOf,
  type NatsConnector,
  NatsOperations,
  natsFailure,
  PublishPipeline,
  readHeaders,
} from "../nats/index.js";
import type { EnqueuedMessage, PublishOutcome, PublishStep } from "../outbox/index.js";
import { Fifo, shared } from "../runtime/index.js";

const { publishTimeoutMs, clockSkewMs, dueDoubtMs, scans } = outboxConstants;

/** NATS has said no. All other failures are of the connection, or of servers that are away. */
const refusals: ReadonlySet<string> = new Set([
  "invalid_argument",
  "nats_failed",
  "nats_permission_denied",
  "no_stream",
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

const published: PublishOutcome = { kind: "published" };
const unavailable: PublishOutcome = { kind: "unavailable", scope: "connection" };

/** What one connection was used for. */
interface Used {
  readonly operations: NatsOperations;
  readonly pipeline: PublishPipeline;
  /** Resolves when the server has taken all that was published until the call. */
  readonly flush: () => Promise<void>;
}

/** The messages of a subject that a stream has. */
interface Scan {
  readonly connection: NatsConnection;
  readonly startedAt: number;
  /** By the clock of the day. */
  readonly startedOn: number;
  readonly since: Date;
  readonly found: Promise<{ readonly windowMs: number; readonly ids: ReadonlySet<string> }>;
}

export class NatsPublisher {
  readonly #connector: NatsConnector;
  #used: Used | undefined;
  /** Publishes to core NATS that are under way, and what the server has not let pass since the first of them. */
  #flushing = 0;
  readonly #notPermitted = new Map<string, { readonly at: number; readonly message: string }>();
  readonly #scans = new Map<string, Scan>();
  /** How many more scans may go on, and those that wait for others to end. */
  #freeScans: number = scans;
  readonly #waitingScans = new Fifo<() => void>();

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
    if (connection === undefined) return Promise.resolve(unavailable);
    const ended = this.#connector.use(connection);
    return this.#published(connection, step).then(
      () => {
        ended();
        return published;
      },
      (error: unknown) => {
        ended();
        return this.#failed(step, error);
      },
    );
  }

  #failed({ message }: PublishStep<EnqueuedMessage>, error: unknown): PublishOutcome {
    if (HawserError.is(error) && refusals.has(error.code)) {
      return { kind: "refused", code: error.code, message: error.message };
    }
    this.#tell(`${message.destination}: ${error instanceof Error ? error.message : String(error)}`);
    return unavailable;
  }

  /** Resolves when NATS has it. */
  async #published(connection: NatsConnection, step: PublishStep<EnqueuedMessage>): Promise<void> {
    const used = this.#over(connection);
    if (isInDoubt(step) && (await this.#isThere(connection, step))) return;
    await this.#send(used, step);
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

  #send(used: Used, step: PublishStep<EnqueuedMessage>): Promise<unknown> {
    const { message, doubtfulSince } = step;
    if (!message.toStream) return this.#sendToCore(used, message);
    const begunAt = performance.now();
    // Where this relay got no answer it asks what is there: a missing stream can show by silence alone.
    const isUnanswered = doubtfulSince !== undefined && doubtfulSince > 0;
    if (isUnanswered || this.#domainOf(message) !== undefined || !used.pipeline.isPossible) {
      return this.#sendToStream(used, message, begunAt);
    }
    const { destination, payload, messageId, headers } = message;
    return used.pipeline
      .publishStream(destination, payload, messageId, headers === null ? undefined : readHeaders(headers))
      .then((isStored) => (isStored ? undefined : this.#sendToStream(used, message, begunAt)));
  }

  async #sendToStream({ operations }: Used, message: EnqueuedMessage, begunAt: number): Promise<void> {
    await operations.publishStream(message.destination, message.payload, {
      headers: readHeaders(message.headers),
      domain: this.#domainOf(message),
      messageId: message.messageId,
      timeoutMs: Math.max(1, begunAt + publishTimeoutMs - performance.now()),
    });
  }

  async #sendToCore({ operations, pipeline, flush }: Used, message: EnqueuedMessage): Promise<void> {
    const { destination, payload } = message;
    const headers = readHeaders(message.headers);
    const begunAt = performance.now();
    this.#flushing += 1;
    try {
      if (pipeline.isPossible) await pipeline.publish(destination, payload, headers);
      else await operations.publish(destination, payload, { headers, timeoutMs: publishTimeoutMs });
      await flush();
      // The server tells before it answers the flush.
      const refusal = this.#notPermitted.get(destination);
      if (refusal === undefined || refusal.at < begunAt) return;
      throw new NatsError(
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

  /** Whether a message that is in doubt is in its stream, as far as that does not drop it by itself. */
  async #isThere(
    connection: NatsConnection,
    { message, doubtfulSince }: PublishStep<EnqueuedMessage>,
  ): Promise<boolean> {
    const found = await this.#scan(connection, message, doubtfulSince).catch((error: unknown) => {
      const name = `look for a message to "${message.destination}"`;
      const failure = natsFailure(error, { name, changes: false, timeoutMs: publishTimeoutMs });
      if (silences.has(failure.code) && !(error instanceof jserrors.JetStreamNotEnabled)) throw failure;
      // There is no stream, or this user may not ask for it: whether it takes the message shows when that is published.
      return undefined;
    });
    if (found === undefined) return false;
    const { windowMs, ids } = found;
    const ageMs = Date.now() - message.enqueuedAt.getTime() + clockSkewMs;
    return (isAgain(message) || ageMs > windowMs / 2) && ids.has(message.messageId);
  }

  /** One scan of a subject serves all its messages that are in doubt. */
  #scan(connection: NatsConnection, message: EnqueuedMessage, doubtfulSince: number | undefined): Scan["found"] {
    const domain = this.#domainOf(message);
    const name = `${domain ?? ""} ${message.destination}`;
    const known = this.#scans.get(name);
    const from = message.firstEnqueuedAt ?? message.enqueuedAt;
    if (known?.connection === connection && known.since <= from && isBehind(known, message, doubtfulSince))
      return known.found;
    const since = new Date(from.getTime() - clockSkewMs);
    const found = this.#inTurn(() => idsIn(connection, message.destination, domain, since));
    const scan = { connection, startedAt: performance.now(), startedOn: Date.now(), since, found };
    this.#scans.set(name, scan);
    const forget = (): void => {
      if (this.#scans.get(name) === scan) this.#scans.delete(name);
    };
    found.then(() => setTimeout(forget, publishTimeoutMs).unref(), forget);
    return found;
  }

  async #inTurn<T>(scan: () => Promise<T>): Promise<T> {
    if (this.#freeScans === 0) await new Promise<void>((resolve) => this.#waitingScans.push(resolve));
    else this.#freeScans -= 1;
    try {
      return await scan();
    } finally {
      const next = this.#waitingScans.shift();
      if (next === undefined) this.#freeScans += 1;
      else next();
    }
  }
}

/** It is published again because its stream may have lost it, or long after it was due. */
function isAgain({ copyOf, firstEnqueuedAt }: EnqueuedMessage): boolean {
  return copyOf !== undefined || (firstEnqueuedAt !== undefined && Date.now() - firstEnqueuedAt.getTime() > dueDoubtMs);
}

/** Whether its stream may have a message. */
function isInDoubt({ message, doubtfulSince }: PublishStep<EnqueuedMessage>): boolean {
  return message.toStream && (doubtfulSince !== undefined || isAgain(message));
}

/**
 * Whether a scan was begun late enough for a message: behind its last publish without an answer, and, if it is published again
 * because its stream may have lost it, behind the wish for that.
 */
function isBehind(
  scan: Scan,
  { enqueuedAt, firstEnqueuedAt, readAt }: EnqueuedMessage,
  doubtfulSince: number | undefined,
): boolean {
  if (doubtfulSince !== undefined && scan.startedAt <= doubtfulSince) return false;
  const isBehindWish = scan.startedAt > readAt || scan.startedOn > enqueuedAt.getTime() + clockSkewMs;
  return firstEnqueuedAt === undefined || isBehindWish;
}

/**
 * The ids of the messages of a subject that its stream has stored since then, and how long the stream knows them by itself.
 *
 * @throws what the library throws; there may be no stream
 */
async function idsIn(
  connection: NatsConnection,
  subject: string,
  domain: string | undefined,
  since: Date,
): Promise<{ windowMs: number; ids: ReadonlySet<string> }> {
  const { client, manager } = await jetStreamOf(connection, domain, publishTimeoutMs);
  const stream = await manager.streams.find(subject);
  const { config } = await manager.streams.info(stream);
  const windowMs = millis(config.duplicate_window ?? 0);
  const ids = new Set<string>();
  const consumer = await client.consumers.get(stream, {
    filter_subjects: [subject],
    deliver_policy: DeliverPolicy.StartTime,
    opt_start_time: since.toISOString(),
    headers_only: true,
  });
  try {
    if ((await consumer.info()).num_pending === 0) return { windowMs, ids };
    const messages = await consumer.consume();
    // It may never come to the end: of what was pending, the stream may have removed the last ones meanwhile.
    const timer = setTimeout(() => messages.stop(), publishTimeoutMs);
    try {
      for await (const message of messages) {
        const id = message.headers?.get(PubHeaders.MsgIdHdr);
        if (id) ids.add(id);
        if (message.info.pending === 0) return { windowMs, ids };
        timer.refresh();
      }
    } finally {
      clearTimeout(timer);
    }
  } finally {
    // The server would keep it for minutes, and a stream has a limit for its consumers.
    consumer.delete().catch(() => undefined);
  }
  throw new NatsError("nats_timeout", `The messages of the subject "${subject}" did not all come.`);
}
