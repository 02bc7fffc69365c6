/**
 * Publishes into JetStream streams. A call resolves when the stream has stored the message.
 *
 * Each message has a Nats-Msg-Id, by which its stream recognizes duplicates for a time (its duplicate_window). So if no
 * answer arrives, the message is sent again while the stream certainly still knows the id.
 */
import { type ApiError, type PubAck, PubHeaders } from "@nats-io/jetstream";
import { jserrors } from "@nats-io/jetstream/internal";
import {
  errors,
  type Msg,
  type MsgHdrs,
  millis,
  type NatsConnection,
  type QueuedIterator,
} from "@nats-io/transport-node";
import type { PublishAckResponse } from "../../../../generated/ts/nats-functions/methods.js";
import { HawserError } from "../../../foundation/errors/index.js";
import { Deadline, within } from "../../../foundation/runtime/index.js";
import { checkHeaderValue, copyOfHeaders, headerBlock, singleHeaderBlock } from "../headers.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { checkSubject, Publish } from "./core.js";
import {
  isStreamMissing,
  natsFailure,
  noStream,
  type OperationDescription,
  readAnswer,
  strangeAnswer,
  timedOut,
  wrongDomain,
} from "./failure.js";
import { almostRemainingMs, BoundedSet, jetStreamOf } from "./jetstream.js";
import type { PendingRequest } from "./writer.js";

/** Options of a publish into a stream. */
export interface StreamPublishOptions {
  /** Headers from `readHeaders`. */
  readonly headers?: MsgHdrs | undefined;
  /** JetStream domain that must store the message. Default: any. */
  readonly domain?: string | undefined;
  /**
   * Nats-Msg-Id, which must be the same for each repetition of the call, also over another connection. A Nats-Msg-Id in
   * the headers takes precedence. In a batch, "-0", "-1", … is appended for each message.
   */
  readonly messageId: string;
  /** Time limit of the whole call, in milliseconds. */
  readonly timeoutMs: number;
}

/** Time without an answer of a stream or bucket after which Hawser asks for the reason. */
export const natsAnswerTimeoutMs = 2_000;
/** Time by which the named JetStream domain may answer later than another one. Less than `natsAnswerTimeoutMs`. */
const natsOtherDomainMs = 1_500;
/** The margin that the duplicate window of a stream must still have when a message is sent again. */
const natsRepetitionMs = 5_000;
/** Messages of a batch that wait for the acknowledgements of their stream at once. */
const maxUnacknowledgedPublishes = 512;
const maxKnownDomains = 100;

/** Message as each attempt sends it. */
interface OutgoingMessage {
  readonly subject: string;
  readonly payload: Uint8Array;
  readonly headers: MsgHdrs;
  /** Result of `headerBlock` for the headers. */
  readonly block: string;
}

/** Publishes into streams over one connection. */
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
   * stream refused it; nats_timeout and outcome_unknown: it may be stored, and repeating it with the same `messageId`
   * is safe within the duplicate_window of the stream; nats_unavailable: not sent
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
   * Publishes many messages, and resolves when all are stored, in order (unless an answer was lost).
   *
   * @returns their positions, in order
   * @throws HawserError as {@link publish}, of the first message that failed; message and detail contain the number of
   * stored messages
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
    if (payloads.length > 1 && messageIdIn(options.headers) !== undefined) {
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
      throw batchFailure(natsFailure(error, attempt), acks);
    }
  }

  /**
   * Publishes a message once, and resolves with the acknowledgement. Costs a fraction of {@link publish}, which must be
   * called if there is none: it finds out the reason.
   *
   * @param options headers without a Nats-Msg-Id
   * @returns undefined if the publish was refused, or answered by something other than a stream
   * @throws HawserError, thrown or as a rejection: nats_timeout, outcome_unknown: no answer arrived, the message may be
   * stored; payload_too_large; not_supported (headers); invalid_argument (message id); nats_unavailable: not sent
   */
  publishOnce(
    subject: string,
    payload: Uint8Array,
    { headers, messageId, timeoutMs }: Omit<StreamPublishOptions, "domain">,
  ): Promise<PubAck | undefined> {
    const message = new Publish(subject, [payload], blockOf(messageId, headers), timeoutMs);
    message.check(this.#watch);
    if (!this.#watch.isCongested) return this.#sendAtOnce(message, payload, timeoutMs);
    const deadline = new Deadline(timeoutMs);
    return this.#watch.drained(message, deadline).then(() => this.#sendAtOnce(message, payload, deadline.remainingMs));
  }

  #sendAtOnce({ subject, headers, timeoutMs }: Publish, payload: Uint8Array, ms: number): Promise<PubAck | undefined> {
    const until = performance.now() + ms;
    return new Promise((settle, fail) => {
      this.#watch.writer.ask(new PendingPublish(subject, timeoutMs, until, settle, fail), [payload], headers);
    });
  }

  async #storeAll(
    attempt: OperationDescription,
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
          // After the deadline, no message is sent. It is not stored, so the call has failed.
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
    // All workers must end before the acknowledgements are counted.
    const failure = (await Promise.allSettled(workers)).find(({ status }) => status === "rejected");
    if (failure !== undefined) throw (failure as PromiseRejectedResult).reason;
  }

  /** Sends the message, and repeats it if necessary, until an answer arrives. */
  async #store(
    attempt: OperationDescription,
    deadline: Deadline,
    message: OutgoingMessage,
  ): Promise<PublishAckResponse> {
    try {
      const ack = await this.#acknowledged(attempt, deadline, message);
      return { stream: ack.stream, seq: BigInt(ack.seq), duplicate: ack.duplicate ?? false };
    } catch (error) {
      if (hasNoResponders(error)) throw await this.#noRespondersFailure(attempt, deadline, error);
      throw error;
    }
  }

  async #acknowledged(attempt: OperationDescription, deadline: Deadline, message: OutgoingMessage): Promise<PubAck> {
    const sentAt = performance.now();
    const answers: Promise<PubAck>[] = [];
    for (;;) {
      answers.push(this.#sendOnce(attempt, message, deadline.remainingMs));
      const limitMs = answerTimeoutMs(deadline);
      const ack = await within(limitMs, Promise.race(answers)).catch((error: unknown) => {
        // "No responders" proves nothing about earlier attempts. A refusal by the stream does: it received the messages
        // in order.
        throw answers.length > 1 && hasNoResponders(error) ? timedOut(attempt, error) : error;
      });
      if (ack !== undefined) return answers.length === 1 ? ack : { ...ack, duplicate: false };
      // If other clients subscribe to the subject, a missing stream shows only as a missing answer.
      const { missing, stream, windowMs } = await inspectStream(
        this.#watch.connection,
        attempt,
        answerTimeoutMs(deadline),
      );
      if (missing !== undefined) throw withUnknownOutcome(missing);
      const isRepeatable = windowMs !== undefined && performance.now() - sentAt + natsRepetitionMs < windowMs;
      if (isRepeatable && limitMs === natsAnswerTimeoutMs) continue;
      const late = await within(almostRemainingMs(deadline), Promise.race(answers));
      if (late !== undefined) return late;
      throw isRepeatable ? timedOut(attempt) : notRepeated(attempt, stream, windowMs);
    }
  }

  async #sendOnce(attempt: OperationDescription, message: OutgoingMessage, timeoutMs: number): Promise<PubAck> {
    const { connection } = this.#watch;
    const { subject, payload, headers, block } = message;
    const { domain } = attempt;
    if (domain === undefined) {
      return readAck(attempt, await this.#watch.writer.request(subject, payload, timeoutMs, block));
    }
    // Streams of several domains may store the message, and each sends an acknowledgement.
    let other: PubAck | undefined;
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

  #message(
    attempt: OperationDescription,
    payload: Uint8Array,
    messageId: string,
    given: MsgHdrs | undefined,
  ): OutgoingMessage {
    const subject = attempt.subject!;
    checkSubject("subject", subject);
    const headers = messageIdIn(given) === undefined ? withMessageId(messageId, given) : given!;
    const block = headerBlock(headers);
    this.#watch.checkMessage(attempt, block, payload.length);
    return { subject, payload, headers, block };
  }

  /** Checks that the domain answers before anything is sent: a message cannot be withdrawn from another domain. */
  async #checkDomain(attempt: OperationDescription, deadline: Deadline): Promise<void> {
    const { domain } = attempt;
    if (domain === undefined || this.#domains.has(domain)) return;
    const missing = await this.#missing(attempt, deadline);
    if (missing?.code === "jetstream_unavailable") throw missing;
    this.#domains.add(domain);
  }

  /** Error if JetStream or the stream is missing; undefined otherwise. */
  async #missing(attempt: OperationDescription, deadline: Deadline): Promise<HawserError | undefined> {
    return (await findStream(this.#watch.connection, attempt, answerTimeoutMs(deadline))).missing;
  }

  /** Error of a publish without responders: JetStream does not answer, or no stream has the subject. */
  async #noRespondersFailure(attempt: OperationDescription, deadline: Deadline, cause: unknown): Promise<HawserError> {
    return (await this.#missing(attempt, deadline)) ?? noStream(attempt, cause);
  }
}

/** A `publishOnce` that waits for its acknowledgement. */
class PendingPublish implements PendingRequest, OperationDescription {
  readonly changes = true;
  /** None: it would take time and bytes. */
  readonly suffix = "";
  readonly #settle: (ack: PubAck | undefined) => void;
  readonly #fail: (error: HawserError) => void;

  constructor(
    readonly subject: string,
    readonly timeoutMs: number,
    readonly until: number,
    settle: (ack: PubAck | undefined) => void,
    fail: (error: HawserError) => void,
  ) {
    this.#settle = settle;
    this.#fail = fail;
  }

  get name(): string {
    return `publish to "${this.subject}"`;
  }

  resolve(answer: Msg): void {
    this.#settle(ackIn(answer));
  }

  reject(error: Error): void {
    const failure = natsFailure(error, this);
    if (failure.outcome === "unknown") this.#fail(failure);
    else this.#settle(undefined);
  }
}

/** Time limit for one answer. */
function answerTimeoutMs(deadline: Deadline): number {
  return Math.min(natsAnswerTimeoutMs, almostRemainingMs(deadline));
}

function attemptOf(name: string, subject: string, { domain, timeoutMs }: StreamPublishOptions): OperationDescription {
  return { name, subject, domain, changes: true, timeoutMs };
}

/** Headers with a message id. @throws HawserError invalid_argument, if it is not a valid header value */
function withMessageId(messageId: string, given: MsgHdrs | undefined): MsgHdrs {
  checkHeaderValue(PubHeaders.MsgIdHdr, messageId);
  const headers = copyOfHeaders(given);
  headers.set(PubHeaders.MsgIdHdr, messageId);
  return headers;
}

/** Encoding of {@link withMessageId}. */
function blockOf(messageId: string, given: MsgHdrs | undefined): string {
  if (given !== undefined) return headerBlock(withMessageId(messageId, given));
  return singleHeaderBlock(PubHeaders.MsgIdHdr, messageId);
}

/** Nats-Msg-Id in the caller's headers; undefined if there is none, or an empty one, which the server ignores. */
function messageIdIn(headers: MsgHdrs | undefined): string | undefined {
  return headers?.get(PubHeaders.MsgIdHdr) || undefined;
}

/** Error of a message that is not repeated although there is time, because it might be stored twice. */
function notRepeated(
  attempt: OperationDescription,
  stream: string | undefined,
  windowMs: number | undefined,
): HawserError {
  const { code, message } = timedOut(attempt);
  const why =
    windowMs === undefined
      ? "the duplicate_window of the stream is not known"
      : `stream "${stream}" recognizes repetitions for ${windowMs} ms only (duplicate_window)`;
  return new HawserError(code, message, { outcome: "unknown", detail: `It was not sent again: ${why}.` });
}

/** Error of a batch, with the number of stored messages. */
function batchFailure(error: HawserError, acks: readonly (PublishAckResponse | undefined)[]): HawserError {
  const stored = acks.filter((ack) => ack !== undefined).length;
  const count = `${stored} of ${acks.length} messages are known to be stored.`;
  return new HawserError(error.code, `${error.message} ${count}`, {
    cause: error,
    detail: error.detail,
    remedy: error.remedy,
    ...(stored > 0 || error.outcome !== undefined ? { outcome: "unknown" as const } : {}),
  });
}

/**
 * Result of looking up the stream of a subject, which shows why a publish was not answered. Empty if the user may not
 * ask or the server does not answer.
 */
interface StreamLookup {
  /** Error if JetStream or the stream is missing. */
  readonly missing?: HawserError;
  readonly stream?: string;
  /** duplicate_window of the stream; only from `inspectStream`. */
  readonly windowMs?: number;
}

/**
 * Finds the stream of the attempt's subject. Never rejects.
 *
 * @param timeoutMs time limit of the request
 */
async function findStream(
  connection: NatsConnection,
  attempt: OperationDescription,
  timeoutMs: number,
): Promise<StreamLookup> {
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
 * Finds the stream and reads its configuration. Never rejects.
 *
 * @param timeoutMs time limit of each of two requests
 */
async function inspectStream(
  connection: NatsConnection,
  attempt: OperationDescription,
  timeoutMs: number,
): Promise<StreamLookup> {
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

/** Error if the stream is missing now, but may have existed when the message was sent. */
function withUnknownOutcome({ code, message, cause }: HawserError): HawserError {
  return new HawserError(code, message, { cause, outcome: "unknown" });
}

/** True if the server reported that the subject has no subscriber, not even a stream. */
function hasNoResponders(error: unknown): boolean {
  if (error instanceof errors.RequestError) return error.isNoResponders();
  return error instanceof errors.NoRespondersError;
}

/** Acknowledgement in an answer; undefined for any other answer. */
function ackIn(answer: Msg): PubAck | undefined {
  try {
    return readAck({ name: "publish", changes: true, timeoutMs: 0 }, answer);
  } catch {
    return undefined;
  }
}

/**
 * Parses an acknowledgement.
 *
 * @throws JetStreamApiError of the stream; HawserError nats_failed, if something else answered
 */
export function readAck(attempt: OperationDescription, answer: Msg): PubAck {
  const by = "a stream";
  const { error, ...ack } = readAnswer<PubAck & { readonly error: ApiError }>(attempt, answer, by);
  if (error !== undefined) throw new jserrors.JetStreamApiError(error);
  if (typeof ack.stream !== "string" || ack.stream === "" || typeof ack.seq !== "number")
    throw strangeAnswer(attempt.name, by);
  return ack as PubAck;
}
