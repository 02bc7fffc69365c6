/**
 * Publishing into JetStream streams: settled when the stream has stored the message.
 *
 * Each message carries a Nats-Msg-Id, by which its stream knows a repetition for some time (its duplicate_window). So
 * where an answer is missing, the message is sent again as long as its stream certainly still knows the first one.
 */
import { type PubAck, PubHeaders } from "@nats-io/jetstream";
import { jserrors } from "@nats-io/jetstream/internal";
import {
  errors,
  type Msg,
  type MsgHdrs,
  millis,
  type NatsConnection,
  type QueuedIterator,
} from "@nats-io/transport-node";
import type { PublishAckResponse } from "../../../generated/ts/nats-functions/methods.js";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { HawserError } from "../../errors/index.js";
import { Deadline, within } from "../../runtime/index.js";
import { checkHeaderValue, copyOfHeaders } from "../headers.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { checkSubject } from "./core.js";
import { type Attempt, isStreamMissing, natsFailure, noStream, timedOut, wrongDomain } from "./failure.js";
import { BoundedSet, jetStreamOf, lastChanceMs } from "./jetstream.js";
import { type OutgoingHeaders, outgoingHeaders } from "./write-side.js";

/** How messages are published into a stream. */
export interface StreamPublishOptions {
  /** As `readHeaders` makes them. */
  readonly headers?: MsgHdrs | undefined;
  /** The JetStream domain that must store the message; without one, whichever does. */
  readonly domain?: string | undefined;
  /**
   * The Nats-Msg-Id: the same for each repetition of the call, also over another connection. One among the headers wins.
   * The messages of a batch have it with "-0", "-1", … behind it.
   */
  readonly messageId: string;
  /** How long the whole call may take, in milliseconds. */
  readonly timeoutMs: number;
}

const { natsAnswerTimeoutMs, natsOtherDomainMs, natsRepetitionMs, maxUnacknowledgedPublishes } = gatewayConstants;
const maxKnownDomains = 100;

/** A message as it is sent, each time it is. */
interface OutgoingMessage {
  readonly subject: string;
  readonly payload: Uint8Array;
  readonly outgoing: OutgoingHeaders;
}

/** Publishes into the streams that one connection reaches. */
export class StreamPublisher {
  readonly #watch: ConnectionWatch;
  /** Domains that have answered. */
  readonly #domains = new BoundedSet(maxKnownDomains);

  constructor(watch: ConnectionWatch) {
    this.#watch = watch;
  }

  /**
   * Publishes a message, and resolves when a stream has stored it.
   *
   * @throws HawserError no_stream; jetstream_unavailable; payload_too_large; not_supported (headers); nats_failed: the
   *   stream refused it; nats_timeout and outcome_unknown: it may have been stored, and repeating it with the same
   *   `messageId` does no harm within the duplicate_window of the stream; nats_unavailable: not sent
   */
  async publish(subject: string, payload: Uint8Array, options: StreamPublishOptions): Promise<PublishAckResponse> {
    const attempt = attemptOf(`publish into a stream, subject "${subject}"`, subject, options);
    const message = this.#message(attempt, payload, options.messageId, options.headers);
    const deadline = new Deadline(options.timeoutMs);
    return this.#watch.run(attempt, deadline, async () => {
      await this.#checkDomain(attempt, deadline);
      return this.#store(attempt, deadline, message);
    });
  }

  /**
   * Publishes many messages, and resolves when all have been stored, in their order (unless an answer got lost).
   *
   * @returns where they are, in their order
   * @throws HawserError as {@link publish}, of the first that failed; message and detail say how many were stored
   */
  async publishBatch(
    subject: string,
    payloads: readonly Uint8Array[],
    options: StreamPublishOptions,
  ): Promise<PublishAckResponse[]> {
    const attempt = attemptOf(
      `publish of ${payloads.length} messages into a stream, subject "${subject}"`,
      subject,
      options,
    );
    if (payloads.length > 1 && ownId(options.headers) !== undefined) {
      throw new HawserError(
        "invalid_argument",
        `headers: one ${PubHeaders.MsgIdHdr} for ${payloads.length} messages would make all but the first duplicates.`,
      );
    }
    const messages = payloads.map((payload, index) =>
      this.#message(attempt, payload, `${options.messageId}-${index}`, options.headers),
    );
    const deadline = new Deadline(options.timeoutMs);
    const acks = new Array<PublishAckResponse | undefined>(messages.length).fill(undefined);
    try {
      return await this.#watch.run(attempt, deadline, async () => {
        await this.#checkDomain(attempt, deadline);
        await this.#storeAll(attempt, deadline, messages, acks);
        return acks as PublishAckResponse[];
      });
    } catch (error) {
      throw partly(natsFailure(error, attempt), acks);
    }
  }

  async #storeAll(
    attempt: Attempt,
    deadline: Deadline,
    messages: readonly OutgoingMessage[],
    acks: (PublishAckResponse | undefined)[],
  ): Promise<void> {
    let next = 0;
    let failed = false;
    const storeInTurn = async () => {
      while (next < messages.length && !failed) {
        const index = next++;
        try {
          // What is not sent any more is not stored: the call has not done what it was to do.
          if (deadline.isOver) throw timedOut(attempt);
          if (this.#watch.isCongested) await this.#watch.drained(attempt, deadline);
          acks[index] = await this.#store(attempt, deadline, messages[index]!);
        } catch (error) {
          failed = true;
          throw error;
        }
      }
    };
    const workers = Array.from({ length: Math.min(maxUnacknowledgedPublishes, messages.length) }, storeInTurn);
    // All of them, so that each answer that still comes is counted.
    const failure = (await Promise.allSettled(workers)).find(({ status }) => status === "rejected");
    if (failure !== undefined) throw (failure as PromiseRejectedResult).reason;
  }

  /** Sends the message, again if need be, until an answer comes. */
  async #store(attempt: Attempt, deadline: Deadline, message: OutgoingMessage): Promise<PublishAckResponse> {
    try {
      const ack = await this.#acknowledged(attempt, deadline, message);
      return { stream: ack.stream, seq: BigInt(ack.seq), duplicate: ack.duplicate ?? false };
    } catch (error) {
      if (isNobody(error)) throw await this.#whyNobody(attempt, deadline, error);
      throw error;
    }
  }

  async #acknowledged(attempt: Attempt, deadline: Deadline, message: OutgoingMessage): Promise<PubAck> {
    const sentAt = performance.now();
    const answers: Promise<PubAck>[] = [];
    for (;;) {
      answers.push(this.#sendOnce(attempt, message, deadline.remainingMs));
      const limitMs = answerTimeoutMs(deadline);
      const ack = await within(limitMs, Promise.race(answers)).catch((error: unknown) => {
        // An answer that nobody listens says nothing of the messages that were sent before this one. A refusal by the stream does:
        // the stream got them in order.
        throw answers.length > 1 && isNobody(error) ? timedOut(attempt, error) : error;
      });
      if (ack !== undefined) return answers.length === 1 ? ack : { ...ack, duplicate: false };
      // Where others listen to the subject, a missing stream shows by silence alone.
      const { missing, stream, windowMs } = await inspectStream(
        this.#watch.connection,
        attempt,
        answerTimeoutMs(deadline),
      );
      if (missing !== undefined) throw afterSilence(missing);
      const isRepeatable = windowMs !== undefined && performance.now() - sentAt + natsRepetitionMs < windowMs;
      if (isRepeatable && limitMs === natsAnswerTimeoutMs) continue;
      const late = await within(lastChanceMs(deadline), Promise.race(answers));
      if (late !== undefined) return late;
      throw isRepeatable ? timedOut(attempt) : notRepeated(attempt, stream, windowMs);
    }
  }

  async #sendOnce(attempt: Attempt, message: OutgoingMessage, timeoutMs: number): Promise<PubAck> {
    const { connection } = this.#watch;
    const { subject, payload, outgoing } = message;
    const { domain } = attempt;
    if (domain === undefined) {
      return readAck(attempt, await this.#watch.ask(subject, payload, timeoutMs, outgoing));
    }
    // Streams of several domains may store it, and each acknowledges for itself.
    let other: PubAck | undefined;
    const { headers } = outgoing;
    const answers = await connection.requestMany(subject, payload, { strategy: "timer", maxWait: timeoutMs, headers });
    let otherDomainTimer: NodeJS.Timeout | undefined;
    try {
      for await (const answer of answers) {
        const ack = readAck(attempt, answer);
        if (ack.domain === domain) return ack;
        other = ack;
        otherDomainTimer ??= setTimeout(
          () => (answers as QueuedIterator<Msg>).stop(),
          Math.min(natsOtherDomainMs, timeoutMs * 0.8),
        );
      }
    } finally {
      clearTimeout(otherDomainTimer);
    }
    throw other === undefined ? new errors.TimeoutError() : wrongDomain(attempt, other);
  }

  #message(attempt: Attempt, payload: Uint8Array, messageId: string, given: MsgHdrs | undefined): OutgoingMessage {
    const subject = attempt.subject!;
    checkSubject("subject", subject);
    this.#watch.checkHeaders(attempt);
    const headers = copyOfHeaders(given);
    if (ownId(given) === undefined) {
      checkHeaderValue(PubHeaders.MsgIdHdr, messageId);
      headers.set(PubHeaders.MsgIdHdr, messageId);
    }
    const outgoing = outgoingHeaders(headers);
    this.#watch.checkSize(attempt, payload.length + outgoing.bytes.length);
    return { subject, payload, outgoing };
  }

  /** Before anything is sent: a message cannot be called back from a domain that was not named. */
  async #checkDomain(attempt: Attempt, deadline: Deadline): Promise<void> {
    const { domain } = attempt;
    if (domain === undefined || this.#domains.has(domain)) return;
    const missing = await this.#missing(attempt, deadline);
    if (missing?.code === "jetstream_unavailable") throw missing;
    this.#domains.add(domain);
  }

  async #missing(attempt: Attempt, deadline: Deadline): Promise<HawserError | undefined> {
    return (await findStream(this.#watch.connection, attempt, answerTimeoutMs(deadline))).missing;
  }

  async #whyNobody(attempt: Attempt, deadline: Deadline, cause: unknown): Promise<HawserError> {
    return (await this.#missing(attempt, deadline)) ?? noStream(attempt, cause);
  }
}

/** How long one answer is waited for. */
function answerTimeoutMs(deadline: Deadline): number {
  return Math.min(natsAnswerTimeoutMs, lastChanceMs(deadline));
}

function attemptOf(name: string, subject: string, { domain, timeoutMs }: StreamPublishOptions): Attempt {
  return { name, subject, domain, changes: true, timeoutMs };
}

/** The caller's own Nats-Msg-Id; an empty one would be none to the server. */
function ownId(headers: MsgHdrs | undefined): string | undefined {
  return headers?.get(PubHeaders.MsgIdHdr) || undefined;
}

/** There is time left, but one that is sent again might be stored twice. */
function notRepeated(attempt: Attempt, stream: string | undefined, windowMs: number | undefined): HawserError {
  const { code, message } = timedOut(attempt);
  const why =
    windowMs === undefined
      ? "it is not known how long the stream knows a repetition (duplicate_window)"
      : `stream "${stream}" knows a repetition for ${windowMs} ms only (duplicate_window)`;
  return new HawserError(code, message, { outcome: "unknown", detail: `It was not sent again: ${why}.` });
}

/** The failure of a batch, with what was stored of it. */
function partly(error: HawserError, acks: readonly (PublishAckResponse | undefined)[]): HawserError {
  const stored = acks.filter((ack) => ack !== undefined).length;
  const count = `${stored} of ${acks.length} messages are known to be stored.`;
  return new HawserError(error.code, `${error.message} ${count}`, {
    cause: error,
    detail: error.detail,
    remedy: error.remedy,
    ...(stored > 0 || error.outcome !== undefined ? { outcome: "unknown" as const } : {}),
  });
}

/** What could be learned of the stream that takes a subject, to tell why a publish was not answered; nothing, if the user may not ask or the server does not answer. */
interface Lookup {
  /** There is no JetStream, or no stream. */
  readonly missing?: HawserError;
  readonly stream?: string;
  /** How long the stream knows the id of a message that it has stored (duplicate_window); only of `inspectStream`. */
  readonly windowMs?: number;
}

/**
 * Looks for the stream of the attempt's subject. Never rejects.
 *
 * @param timeoutMs of the request
 */
async function findStream(connection: NatsConnection, attempt: Attempt, timeoutMs: number): Promise<Lookup> {
  try {
    const { manager } = await jetStreamOf(connection, attempt.domain, timeoutMs);
    return { stream: await manager.streams.find(attempt.subject!) };
  } catch (error) {
    if (isStreamMissing(error)) return { missing: noStream(attempt, error) };
    const failure = natsFailure(error, attempt);
    return failure.code === "jetstream_unavailable" ? { missing: failure } : {};
  }
}

/**
 * Looks for the stream and at it. Never rejects.
 *
 * @param timeoutMs of each of two requests
 */
async function inspectStream(connection: NatsConnection, attempt: Attempt, timeoutMs: number): Promise<Lookup> {
  const found = await findStream(connection, attempt, timeoutMs);
  if (found.stream === undefined) return found;
  try {
    const { manager } = await jetStreamOf(connection, attempt.domain, timeoutMs);
    const { config } = await manager.streams.info(found.stream);
    return config.duplicate_window ? { ...found, windowMs: millis(config.duplicate_window) } : found;
  } catch {
    return found;
  }
}

/** There is no stream by now. Something was sent, and one may have been there. */
function afterSilence({ code, message, cause }: HawserError): HawserError {
  return new HawserError(code, message, { cause, outcome: "unknown" });
}

/** True if nobody listens to the subject, no stream either. */
function isNobody(error: unknown): boolean {
  if (error instanceof errors.RequestError) return error.isNoResponders();
  return error instanceof errors.NoRespondersError;
}

/** What a stream says that has the message; undefined: something else was answered. */
export function ackIn(answer: Msg): PubAck | undefined {
  try {
    return readAck({ name: "publish", changes: true, timeoutMs: 0 }, answer);
  } catch {
    return undefined;
  }
}

/** @throws JetStreamApiError what the stream said; HawserError nats_failed, if something else answered */
export function readAck({ name }: Attempt, answer: Msg): PubAck {
  let ack: Partial<PubAck> & { readonly error?: ConstructorParameters<typeof jserrors.JetStreamApiError>[0] };
  try {
    ack = answer.json();
  } catch (cause) {
    throw notAnAck(name, cause);
  }
  if (typeof ack !== "object" || ack === null) throw notAnAck(name);
  if (ack.error !== undefined) throw new jserrors.JetStreamApiError(ack.error);
  if (typeof ack.stream !== "string" || ack.stream === "" || typeof ack.seq !== "number") throw notAnAck(name);
  return ack as PubAck;
}

function notAnAck(name: string, cause?: unknown): HawserError {
  return new HawserError("nats_failed", `The ${name} was answered by something that is no stream.`, { cause });
}
