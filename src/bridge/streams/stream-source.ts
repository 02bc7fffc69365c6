/**
 * One subscription's stream and consumers at NATS, over one connection.
 *
 * Messages are asked for in one request at a time, as many as there is room for. The server says every second that it has
 * none, and when a request has ended.
 */
import {
  AckPolicy,
  type ConsumerConfig,
  type ConsumerInfo,
  DeliverPolicy,
  JetStreamApiError,
  type JetStreamManager,
  ReplayPolicy,
} from "@nats-io/jetstream";
import { jserrors } from "@nats-io/jetstream/internal";
import { createInbox, type Msg, type NatsConnection, nanos, type Subscription } from "@nats-io/transport-node";
import { gatewayConstants, streamConstants } from "../../../generated/ts/settings/nats.js";
import { jetStreamOf, natsFailure } from "../../nats/index.js";
import type { ConsumerLook, Delivery, Prepared, PrepareStep, StreamLook, StreamState } from "./reader.js";
import type { StreamConfig } from "./stream-table.js";

const { streamTimeoutMs, streamAckWaitMs, streamHeartbeatMs, streamPullMs, streamPullMessages, streamPullBytes } =
  streamConstants;

/** Codes of the JetStream API. */
const consumerNotFound = 10014;
const noMessageFound = 10037;

/** Whether the stream has the message is not known: it is asked again. */
const silences: ReadonlySet<string> = new Set(["jetstream_unavailable", "nats_timeout", "nats_unavailable"]);

/** What a message may take besides its payload and headers. */
const subjectBytes = 4096;

/** A message, with what its reply subject tells. */
export interface StreamMessage extends Omit<Delivery, "bytes"> {
  readonly message: Msg;
  /** How many messages the consumer has not delivered. */
  readonly pending: number;
}

/** What reading tells. */
export interface ReadingEvents {
  onMessage(message: StreamMessage): void;
  /** The server has said that there is none. */
  onHeard(): void;
  /** A request was sent. */
  onAsked(): void;
  /** The consumer is gone, or the server refuses. */
  onEnd(problem: string): void;
  /** How much may be asked for now; undefined: nothing. */
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

  /** @param domain of the server, for subscriptions without one */
  static async over(
    connection: NatsConnection,
    config: StreamConfig,
    domain: string | undefined,
  ): Promise<StreamSource> {
    const chosen = config.domain ?? domain;
    const { manager } = await jetStreamOf(connection, chosen, streamTimeoutMs);
    return new StreamSource(connection, config, chosen, manager);
  }

  /** @throws JetStreamApiError, or what the library throws */
  async look(state: StreamState, isRead: boolean): Promise<StreamLook> {
    const { stream } = this.#config;
    const info = await this.#manager.streams.info(stream);
    const consumers = await Promise.all([this.#consumer(0), this.#consumer(1)]);
    const { retention } = info.config;
    const { messages, first_seq, last_seq } = info.state;
    return {
      created: info.created,
      first: messages === 0 ? last_seq + 1 : first_seq,
      last: last_seq,
      retention: retention === "interest" || retention === "workqueue" ? retention : "limits",
      lastDoneAt: isRead ? undefined : await this.#timeOf(state.lastDone?.number),
      consumers: [
        consumers[0] && this.#lookOf(consumers[0], retention),
        consumers[1] && this.#lookOf(consumers[1], retention),
      ],
    };
  }

  /** @returns where the consumer stands. @throws JetStreamApiError, or what the library throws */
  async prepare(step: PrepareStep): Promise<Prepared> {
    for (const nth of step.deleteBefore) await this.#delete(nth);
    let info: ConsumerInfo;
    if (step.isThere) info = (await this.#consumer(step.nth))!;
    else info = await this.#manager.consumers.add(this.#config.stream, this.#configOf(step));
    for (const nth of step.deleteAfter) await this.#delete(nth);
    const { created, config } = await this.#manager.streams.info(this.#config.stream);
    return { created, ...this.#lookOf(info, config.retention) };
  }

  /** Deletes what it has at NATS. */
  async deleteConsumers(): Promise<void> {
    for (const nth of [0, 1] as const) await this.#delete(nth);
  }

  /** Asks for messages, and goes on as there is room. */
  read(nth: 0 | 1, events: ReadingEvents): StreamReading {
    const api = this.#domain === undefined ? "$JS.API" : `$JS.${this.#domain}.API`;
    const subject = `${api}.CONSUMER.MSG.NEXT.${this.#config.stream}.${this.#nameOf(nth)}`;
    return new StreamReading(this.connection, subject, events);
  }

  async #consumer(nth: 0 | 1): Promise<ConsumerInfo | undefined> {
    try {
      return await this.#manager.consumers.info(this.#config.stream, this.#nameOf(nth));
    } catch (error) {
      if (error instanceof JetStreamApiError && error.code === consumerNotFound) return undefined;
      throw error;
    }
  }

  async #delete(nth: 0 | 1): Promise<void> {
    try {
      await this.#manager.consumers.delete(this.#config.stream, this.#nameOf(nth));
    } catch (error) {
      if (!(error instanceof JetStreamApiError && error.code === consumerNotFound)) throw error;
    }
  }

  /** Two names: a new consumer is made before the old one is deleted. */
  #nameOf(nth: 0 | 1): string {
    return `${this.#config.consumer}_${nth === 0 ? "a" : "b"}`;
  }

  async #timeOf(number: number | undefined): Promise<bigint | undefined> {
    if (number === undefined) return undefined;
    try {
      const stored = await this.#manager.streams.getMessage(this.#config.stream, { seq: number });
      return stored === null ? undefined : nanosOf(stored.timestamp);
    } catch (error) {
      // It is gone, or this user may not read single messages: then the stream is recognized by less.
      if (error instanceof JetStreamApiError && error.code === noMessageFound) return undefined;
      const name = `look at a message of "${this.#config.stream}"`;
      const { code } = natsFailure(error, { name, changes: false, timeoutMs: streamTimeoutMs });
      // An account may have this part of the API, and not that one.
      const isThere = !(error instanceof jserrors.JetStreamNotEnabled);
      if (isThere && silences.has(code)) throw error;
      return undefined;
    }
  }

  #configOf({ nth, from, retention }: PrepareStep): Partial<ConsumerConfig> & { durable_name: string } {
    const { filters } = this.#config;
    const name = this.#nameOf(nth);
    const where =
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
      ...where,
      ...(filters.length === 1 && { filter_subject: filters[0]! }),
      ...(filters.length > 1 && { filter_subjects: [...filters] }),
    };
  }

  #lookOf(info: ConsumerInfo, retention: string): ConsumerLook {
    const { config, delivered, ack_floor, num_pending } = info;
    const filters = config.filter_subjects ?? (config.filter_subject ? [config.filter_subject] : []);
    const hasFilters = [...filters].sort().join(" ") === [...this.#config.filters].sort().join(" ");
    // With any of these it would deliver something else, or refuse what is asked for.
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

/** A work queue takes no other. */
function ackPolicyOf(retention: string): AckPolicy {
  return retention === "workqueue" ? AckPolicy.Explicit : AckPolicy.All;
}

/** A consumer that is being read. */
export class StreamReading {
  readonly #connection: NatsConnection;
  readonly #subject: string;
  /** The stream and the consumer, as the subject ends with them. */
  readonly #names: string;
  readonly #events: ReadingEvents;
  readonly #inbox = createInbox(gatewayConstants.natsInboxPrefix);
  readonly #subscription: Subscription;
  #requests = 0;
  /** How many messages the present request may still bring; 0: there is none. */
  #left = 0;
  #hasBrought = false;
  /** The next message is larger than what may be asked for with others. */
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
        else this.#take(message);
      },
    });
    this.pull();
  }

  /** Asks for more, if there is room, and nothing is asked for. */
  pull(): void {
    if (this.#hasEnded || this.#left > 0 || this.#connection.isClosed()) return;
    const room = this.#events.room();
    if (room === undefined) return;
    const batch = this.#isLarge ? 1 : Math.min(room.messages, streamPullMessages);
    const largest = (this.#connection.info?.max_payload ?? 0) + subjectBytes;
    this.#left = batch;
    this.#hasBrought = false;
    this.#requests += 1;
    const request = {
      batch,
      max_bytes: this.#isLarge ? undefined : Math.max(largest, Math.min(room.bytes, streamPullBytes)),
      expires: nanos(streamPullMs),
      idle_heartbeat: nanos(streamHeartbeatMs),
    };
    this.#connection.publish(this.#subject, JSON.stringify(request), { reply: `${this.#inbox}.${this.#requests}` });
    this.#events.onAsked();
  }

  /** Acknowledges messages by their replies. */
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

  #take(message: Msg): void {
    if (message.subject.startsWith(`${this.#inbox}.`)) {
      this.#takeStatus(message);
      return;
    }
    const stored = placeOf(message, this.#names);
    if (stored === undefined) return;
    this.#left = Math.max(0, this.#left - 1);
    this.#hasBrought = true;
    this.#isLarge = false;
    this.#events.onMessage(stored);
    this.pull();
  }

  /** No message, but a word of the server about a request. */
  #takeStatus({ subject, headers }: Msg): void {
    const code = headers?.code ?? 0;
    // Not the server's: a responder that hears what consumers are asked has answered, too.
    if (code === 0) return;
    if (code === 100) {
      this.#events.onHeard();
      return;
    }
    // Of an earlier request.
    if (subject !== `${this.#inbox}.${this.#requests}`) return;
    const words = headers?.description ?? "";
    // 404 and 408: it is over. 409 also when the next message is too large for what is left of it.
    const isOver = code === 404 || code === 408 || (code === 409 && /bytes|batch completed/i.test(words));
    if (!isOver) {
      this.#end(`${code} ${words}`);
      return;
    }
    // It was stored when the server allowed larger ones.
    if (code === 409 && !this.#hasBrought) this.#isLarge = true;
    this.#left = 0;
    this.#events.onHeard();
    this.pull();
  }
}

/**
 * Of `$JS.ACK.<stream>.<consumer>.<times>.<number>.<nth>.<time>.<pending>`, which may have domain and account behind `ACK`, and
 * more at its end.
 *
 * @param names `<stream>.<consumer>` @returns undefined where it is no delivery of this consumer
 */
function placeOf(message: Msg, names: string): StreamMessage | undefined {
  const { reply = "" } = message;
  if (!reply.startsWith("$JS.ACK.")) return undefined;
  const dots: number[] = [];
  for (let dot = reply.indexOf("."); dot >= 0; dot = reply.indexOf(".", dot + 1)) dots.push(dot);
  if (dots.length < 8) return undefined;
  const first = dots.length === 8 ? 4 : 6;
  const word = (nth: number): string => reply.slice(dots[first + nth]! + 1, dots[first + nth + 1]);
  if (reply.slice(dots[first - 3]! + 1, dots[first - 1]) !== names) return undefined;
  return {
    message,
    reply,
    number: Number(word(0)),
    nth: Number(word(1)),
    at: BigInt(word(2)),
    pending: Number(word(3)),
  };
}

/** Nanoseconds since 1970 of a time as NATS writes it, with up to nine digits of a second. */
function nanosOf(timestamp: string): bigint | undefined {
  const [, seconds, fraction = ""] = /^(.{19})(?:\.(\d{1,9}))?Z$/.exec(timestamp) ?? [];
  if (seconds === undefined) return undefined;
  const ms = Date.parse(`${seconds}Z`);
  return Number.isNaN(ms) ? undefined : BigInt(ms) * 1_000_000n + BigInt(fraction.padEnd(9, "0"));
}
