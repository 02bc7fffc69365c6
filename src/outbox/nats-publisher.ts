/**
 * Publishes messages of the outbox to NATS.
 *
 * A stream drops a message that it has already, by its Nats-Msg-Id, for as long as its duplicate window. A message that may
 * have been published longer ago is looked for in the stream first, and so is one that is published again, or late.
 */
import { DeliverPolicy, PubHeaders } from "@nats-io/jetstream";
import { millis, type NatsConnection } from "@nats-io/transport-node";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { HawserError } from "../errors/index.js";
import { jetStreamOf, type NatsConnector, NatsOperations, readHeaders } from "../nats/index.js";
import { shared } from "../runtime/index.js";
import type { EnqueuedMessage } from "./outbox-table.js";
import type { PublishOutcome, PublishStep } from "./relay.js";

const { publishTimeoutMs, clockSkewMs, dueDoubtMs } = outboxConstants;

/** NATS has said no. All other failures are of the connection, or of servers that are away. */
const refusals: ReadonlySet<string> = new Set([
  "invalid_argument",
  "nats_failed",
  "nats_permission_denied",
  "no_stream",
  "not_supported",
  "payload_too_large",
]);

/** What one connection was used for. */
interface Used {
  readonly operations: NatsOperations;
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
  readonly #scans = new Map<string, Scan>();

  readonly #tell: (problem: string) => void;

  /** @param tell of messages that are tried again */
  constructor(connector: NatsConnector, tell: (problem: string) => void) {
    this.#connector = connector;
    this.#tell = tell;
  }

  /** Publishes a message. Does not reject. */
  async publish(step: PublishStep<EnqueuedMessage>): Promise<PublishOutcome> {
    const { connection } = this.#connector;
    if (connection === undefined) return { kind: "unavailable" };
    const ended = this.#connector.use(connection);
    try {
      const used = this.#over(connection);
      if (await this.#isThere(connection, step)) return { kind: "published" };
      await this.#send(used, step.message);
      return { kind: "published" };
    } catch (error) {
      if (!HawserError.is(error) || !refusals.has(error.code)) {
        this.#tell(`${step.message.destination}: ${error instanceof Error ? error.message : String(error)}`);
        return { kind: "unavailable" };
      }
      return { kind: "refused", code: error.code, message: error.message };
    } finally {
      ended();
    }
  }

  #over(connection: NatsConnection): Used {
    if (this.#used?.operations.connection !== connection) {
      const operations = new NatsOperations(connection);
      this.#used = { operations, flush: shared(() => operations.flush({ timeoutMs: publishTimeoutMs })) };
    }
    return this.#used;
  }

  async #send({ operations, flush }: Used, message: EnqueuedMessage): Promise<void> {
    const { destination, payload, messageId } = message;
    const headers = readHeaders(message.headers);
    const timeoutMs = publishTimeoutMs;
    if (message.toStream) {
      await operations.publishStream(destination, payload, {
        headers,
        domain: this.#domainOf(message),
        messageId,
        timeoutMs,
      });
      return;
    }
    await operations.publish(destination, payload, { headers, timeoutMs });
    await flush();
  }

  #domainOf({ domain }: EnqueuedMessage): string | undefined {
    return domain ?? this.#connector.options?.domain;
  }

  /** Whether a message that is in doubt is in its stream, as far as that does not drop it by itself. */
  async #isThere(
    connection: NatsConnection,
    { message, doubtfulSince }: PublishStep<EnqueuedMessage>,
  ): Promise<boolean> {
    const { copyOf, firstEnqueuedAt, enqueuedAt } = message;
    const isLate = firstEnqueuedAt !== undefined && Date.now() - firstEnqueuedAt.getTime() > dueDoubtMs;
    const isAgain = copyOf !== undefined || isLate;
    if ((doubtfulSince === undefined && !isAgain) || !message.toStream) return false;
    const found = await this.#scan(connection, message, doubtfulSince).catch(() => undefined);
    // There is no stream, or this user may not ask for it: whether it takes the message shows when that is published.
    if (found === undefined) return false;
    const { windowMs, ids } = found;
    const ageMs = Date.now() - enqueuedAt.getTime() + clockSkewMs;
    return (isAgain || ageMs > windowMs / 2) && ids.has(message.messageId);
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
    const found = idsIn(connection, message.destination, domain, since);
    const scan = { connection, startedAt: performance.now(), startedOn: Date.now(), since, found };
    this.#scans.set(name, scan);
    const forget = (): void => {
      if (this.#scans.get(name) === scan) this.#scans.delete(name);
    };
    found.then(() => setTimeout(forget, publishTimeoutMs).unref(), forget);
    return found;
  }
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
  if ((await consumer.info()).num_pending === 0) return { windowMs, ids };
  for await (const message of await consumer.consume()) {
    const id = message.headers?.get(PubHeaders.MsgIdHdr);
    if (id) ids.add(id);
    if (message.info.pending === 0) break;
  }
  return { windowMs, ids };
}
