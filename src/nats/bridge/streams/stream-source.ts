/**
 * Stream and consumers of one subscription in NATS, over one connection.
 *
 * Messages are pulled by one request at a time, for as many as there is room for. While there are none, the server
 * sends a heartbeat every `streamHeartbeatMs`, and a status when a request ends.
 */
import {
  AckPolicy,
  type ConsumerConfig,
  type ConsumerInfo,
  DeliverPolicy,
  JetStreamApiCodes,
  JetStreamApiError,
  type JetStreamManager,
  ReplayPolicy,
} from "@nats-io/jetstream";
import { jserrors } from "@nats-io/jetstream/internal";
import { createInbox, type Msg, type NatsConnection, nanos, type Subscription } from "@nats-io/transport-node";
import { gatewayConstants } from "../../../../generated/ts/settings/nats.js";
import { HawserError } from "../../../foundation/errors/index.js";
import {
  type Delivery,
  isConsumerMissing,
  jetStreamOf,
  matchesOwnInbox,
  natsFailure,
  parseDelivery,
} from "../../connections/index.js";
import type { ConsumerState, Prepared, PrepareStep, StreamInfo, StreamState } from "./reader.js";
import type { StreamConfig } from "./stream-table.js";

/** Number of messages in one request. */
const streamPullMessages = 5_000;
/** Bytes in one request, or one message of the greatest size that the server allows. */
const streamPullBytes = 8 * 1024 * 1024;
/** Time for which the server keeps a request for messages. */
const streamPullMs = 30_000;
/** Interval at which the server reports that it has no messages. */
const streamHeartbeatMs = 1_000;
/** Time limit for an answer of NATS. */
const streamTimeoutMs = 5_000;
/**
 * After so long the server sends a message again that is not acknowledged. Such messages are dropped: a process that begins
 * to read makes the consumer anew.
 */
const streamAckWaitMs = 600_000;

/** Codes of failures that do not show whether the stream has a message: the request is repeated. */
const inconclusiveCodes: ReadonlySet<string> = new Set(["jetstream_unavailable", "nats_timeout", "nats_unavailable"]);

/** Bytes reserved for subject and reply of a message, besides its payload and headers. */
const subjectBytes = 4096;

/** Largest `max_msgs_per_subject` of a key-value bucket. A larger one is a safeguard, not the reason why messages are gone. */
const mostHistory = 64;

/** Events of a read. */
export interface ReadingEvents {
  onMessage(message: Delivery): void;
  /** The server has no message for the request now: it sent a heartbeat, or the request ended. */
  onAnswer(): void;
  /** A request was sent. */
  onRequest(): void;
  /** The consumer is gone, or the server refused the request. */
  onEnd(problem: string): void;
  /** Messages and bytes that may be requested now; undefined if there is no room. */
  room(): { readonly messages: number; readonly bytes: number } | undefined;
}

export class StreamSource {
  readonly connection: NatsConnection;
  readonly #config: StreamConfig;
  readonly #domain: string | undefined;
  readonly #manager: JetStreamManager;

  private constructor(
    connection: NatsConnection,
    config: StreamConfig,
    domain: string | undefined,
    manager: JetStreamManager,
  ) {
    this.connection = connection;
    this.#config = config;
    this.#domain = domain;
    this.#manager = manager;
  }

  /** Creates a source. @param domain JetStream domain for subscriptions that name none */
  static async over(
    connection: NatsConnection,
    config: StreamConfig,
    domain: string | undefined,
  ): Promise<StreamSource> {
    const chosen = config.domain ?? domain;
    const { manager } = await jetStreamOf(connection, chosen, streamTimeoutMs);
    return new StreamSource(connection, config, chosen, manager);
  }

  /**
   * Reads the state of stream and consumers.
   *
   * @param isRead true while the stream is being read: the time of the last done message is then not needed
   * @throws JetStreamApiError; errors of nats.js; HawserError `not_supported` if the subscription would read replies to
   * Hawser's own requests
   */
  async inspect(state: StreamState, isRead: boolean): Promise<StreamInfo> {
    const { stream } = this.#config;
    const info = await this.#manager.streams.info(stream);
    this.#checkSubjects(info.config.subjects ?? []);
    const consumers = await Promise.all([this.#consumer(0), this.#consumer(1)]);
    const { retention, max_msgs_per_subject } = info.config;
    const { messages, first_seq, last_seq } = info.state;
    return {
      created: info.created,
      first: messages === 0 ? last_seq + 1 : first_seq,
      last: last_seq,
      retention: retention === "interest" || retention === "workqueue" ? retention : "limits",
      overwrites: max_msgs_per_subject > 0 && max_msgs_per_subject <= mostHistory,
      lastDoneAt: isRead ? undefined : await this.#timeOf(state.lastDone?.number),
      consumers: [
        consumers[0] && this.#infoOf(consumers[0], retention),
        consumers[1] && this.#infoOf(consumers[1], retention),
      ],
    };
  }

  /**
   * Refuses a stream that stores the replies to Hawser's requests: it would store each message read from it again,
   * without an end, and the function would receive the replies to other roles' requests.
   *
   * @throws HawserError `not_supported`
   */
  #checkSubjects(subjects: readonly string[]): void {
    const own = subjects.find(matchesOwnInbox);
    const { filters } = this.#config;
    if (own === undefined || (filters.length > 0 && !filters.some(matchesOwnInbox))) return;
    const { natsInboxPrefix } = gatewayConstants;
    throw new HawserError(
      "not_supported",
      `the stream stores "${own}", and so the replies to requests that Hawser makes, below "${natsInboxPrefix}"; remove the subject ` +
        "from the stream, or subscribe again with a filter that leaves them out",
    );
  }

  /**
   * Creates the consumer of the step unless it exists, deletes others, and returns its state.
   *
   * @throws JetStreamApiError; errors of nats.js
   */
  async prepare(step: PrepareStep): Promise<Prepared> {
    for (const nth of step.deleteBefore) await this.#delete(nth);
    let info: ConsumerInfo;
    if (step.exists) info = (await this.#consumer(step.nth))!;
    else info = await this.#manager.consumers.add(this.#config.stream, this.#configOf(step));
    for (const nth of step.deleteAfter) await this.#delete(nth);
    const { created, config } = await this.#manager.streams.info(this.#config.stream);
    return { created, ...this.#infoOf(info, config.retention) };
  }

  /** Deletes both consumers. */
  async deleteConsumers(): Promise<void> {
    for (const nth of [0, 1] as const) await this.#delete(nth);
  }

  /** Starts to pull messages whenever there is room. */
  read(nth: 0 | 1, events: ReadingEvents): StreamReading {
    const api = this.#domain === undefined ? "$JS.API" : `$JS.${this.#domain}.API`;
    const subject = `${api}.CONSUMER.MSG.NEXT.${this.#config.stream}.${this.#nameOf(nth)}`;
    return new StreamReading(this.connection, subject, events);
  }

  async #consumer(nth: 0 | 1): Promise<ConsumerInfo | undefined> {
    try {
      return await this.#manager.consumers.info(this.#config.stream, this.#nameOf(nth));
    } catch (error) {
      if (isConsumerMissing(error)) return undefined;
      throw error;
    }
  }

  async #delete(nth: 0 | 1): Promise<void> {
    try {
      await this.#manager.consumers.delete(this.#config.stream, this.#nameOf(nth));
    } catch (error) {
      if (!isConsumerMissing(error)) throw error;
    }
  }

  /**
   * Name of a consumer. Consumers alternate between two names, so that the next can exist before the previous is
   * deleted.
   */
  #nameOf(nth: 0 | 1): string {
    return `${this.#config.consumer}_${nth === 0 ? "a" : "b"}`;
  }

  /** Time of a message; undefined if the stream does not have the message, or the user may not read it. */
  async #timeOf(number: number | undefined): Promise<bigint | undefined> {
    if (number === undefined) return undefined;
    try {
      const stored = await this.#manager.streams.getMessage(this.#config.stream, { seq: number });
      return stored === null ? undefined : nanosOf(stored.timestamp);
    } catch (error) {
      // The stream is then identified without this message.
      if (error instanceof JetStreamApiError && error.code === JetStreamApiCodes.NoMessageFound) return undefined;
      const name = `read a message of "${this.#config.stream}"`;
      const { code } = natsFailure(error, { name, changes: false, timeoutMs: streamTimeoutMs });
      // JetStream seems not to be enabled if this account has only other parts of the JetStream API.
      const isEnabled = !(error instanceof jserrors.JetStreamNotEnabled);
      if (isEnabled && inconclusiveCodes.has(code)) throw error;
      return undefined;
    }
  }

  #configOf({ nth, from, retention }: PrepareStep): Partial<ConsumerConfig> & { durable_name: string } {
    const { filters } = this.#config;
    const name = this.#nameOf(nth);
    const start =
      retention === "workqueue"
        ? { deliver_policy: DeliverPolicy.All }
        : "time" in from
          ? { deliver_policy: DeliverPolicy.StartTime, opt_start_time: from.time }
          : { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: from.number };
    return {
      name,
      durable_name: name,
      ack_policy: ackPolicyOf(retention),
      ack_wait: nanos(streamAckWaitMs),
      max_ack_pending: -1,
      max_deliver: -1,
      replay_policy: ReplayPolicy.Instant,
      ...start,
      ...(filters.length === 1 && { filter_subject: filters[0]! }),
      ...(filters.length > 1 && { filter_subjects: [...filters] }),
    };
  }

  #infoOf(info: ConsumerInfo, retention: string): ConsumerState {
    const { config, delivered, ack_floor, num_pending } = info;
    const filters = config.filter_subjects ?? (config.filter_subject ? [config.filter_subject] : []);
    const hasFilters = [...filters].sort().join(" ") === [...this.#config.filters].sort().join(" ");
    // With any of these options, the consumer would deliver messages without payloads, or refuse requests.
    const isLimited = config.headers_only || config.max_batch || config.max_bytes || config.max_expires;
    return {
      fits:
        hasFilters &&
        !isLimited &&
        config.ack_policy === ackPolicyOf(retention) &&
        config.deliver_subject === undefined,
      delivered: delivered.stream_seq,
      deliveries: delivered.consumer_seq,
      ackFloor: ack_floor.stream_seq,
      pending: num_pending,
    };
  }
}

/** Policy of acknowledgements. A work-queue stream requires explicit ones. */
function ackPolicyOf(retention: string): AckPolicy {
  return retention === "workqueue" ? AckPolicy.Explicit : AckPolicy.All;
}

/** Read of a consumer, which runs until {@link stop}, or until `onEnd` is called. */
export class StreamReading {
  readonly #connection: NatsConnection;
  readonly #subject: string;
  /** End of the subject: `<stream>.<consumer>`. */
  readonly #names: string;
  readonly #events: ReadingEvents;
  readonly #inbox = createInbox(gatewayConstants.natsInboxPrefix);
  readonly #subscription: Subscription;
  #requests = 0;
  /** Messages that the current request may still deliver; 0 without a request. */
  #left = 0;
  #hasDelivered = false;
  /** True if the next message exceeds the byte limit of a request and must be requested alone. */
  #isLarge = false;
  #hasEnded = false;

  constructor(connection: NatsConnection, subject: string, events: ReadingEvents) {
    this.#connection = connection;
    this.#subject = subject;
    this.#names = subject.split(".").slice(-2).join(".");
    this.#events = events;
    this.#subscription = connection.subscribe(`${this.#inbox}.*`, {
      callback: (error, message) => {
        if (this.#hasEnded) return;
        if (error !== null) this.#end(error.message);
        else this.#onMessage(message);
      },
    });
    this.pull();
  }

  /** Sends a request if there is room and none is pending. */
  pull(): void {
    if (this.#hasEnded || this.#left > 0 || this.#connection.isClosed()) return;
    const room = this.#events.room();
    if (room === undefined) return;
    const batch = this.#isLarge ? 1 : Math.min(room.messages, streamPullMessages);
    const largest = (this.#connection.info?.max_payload ?? 0) + subjectBytes;
    this.#left = batch;
    this.#hasDelivered = false;
    this.#requests += 1;
    const request = {
      batch,
      max_bytes: this.#isLarge ? undefined : Math.max(largest, Math.min(room.bytes, streamPullBytes)),
      expires: nanos(streamPullMs),
      idle_heartbeat: nanos(streamHeartbeatMs),
    };
    this.#connection.publish(this.#subject, JSON.stringify(request), { reply: `${this.#inbox}.${this.#requests}` });
    this.#events.onRequest();
  }

  /** Acknowledges messages by their reply subjects. */
  acknowledge(replies: readonly string[]): void {
    if (this.#connection.isClosed()) return;
    for (const reply of replies) this.#connection.publish(reply, "+ACK");
  }

  stop(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#subscription.unsubscribe();
  }

  #end(problem: string): void {
    this.stop();
    this.#events.onEnd(problem);
  }

  #onMessage(message: Msg): void {
    if (message.subject.startsWith(`${this.#inbox}.`)) {
      this.#onStatus(message);
      return;
    }
    const stored = parseDelivery(message, this.#names);
    if (stored === undefined) return;
    this.#left = Math.max(0, this.#left - 1);
    this.#hasDelivered = true;
    this.#isLarge = false;
    this.#events.onMessage(stored);
    this.pull();
  }

  /** Handles a status message about a request. */
  #onStatus({ subject, headers }: Msg): void {
    const code = headers?.code ?? 0;
    // A message without a status is from another responder, which also receives the requests to the consumer.
    if (code === 0) return;
    if (code === 100) {
      this.#events.onAnswer();
      return;
    }
    // The status is about an earlier request.
    if (subject !== `${this.#inbox}.${this.#requests}`) return;
    const description = headers?.description ?? "";
    // 404 and 408 end a request. So does 409 if the next message exceeds the remaining bytes.
    const isOver = code === 404 || code === 408 || (code === 409 && /bytes|batch completed/i.test(description));
    if (!isOver) {
      this.#end(`${code} ${description}`);
      return;
    }
    // A message that exceeds even the limit of a new request was stored when the server allowed larger messages.
    if (code === 409 && !this.#hasDelivered) this.#isLarge = true;
    this.#left = 0;
    this.#events.onAnswer();
    this.pull();
  }
}

/** Parses a time of NATS, with up to nine decimal digits, into nanoseconds since 1970. */
function nanosOf(timestamp: string): bigint | undefined {
  const [, seconds, fraction = ""] = /^(.{19})(?:\.(\d{1,9}))?Z$/.exec(timestamp) ?? [];
  if (seconds === undefined) return undefined;
  const ms = Date.parse(`${seconds}Z`);
  return Number.isNaN(ms) ? undefined : BigInt(ms) * 1_000_000n + BigInt(fraction.padEnd(9, "0"));
}
