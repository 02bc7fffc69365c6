/** Options of those who enqueue and who look after what they have enqueued. */
import { invalidArgument, namesOf, unknownOption } from "../../../foundation/errors/index.js";
import type { Format } from "../../../foundation/payloads/index.js";
import type { TopicLimits } from "../../../operating/operate/index.js";
import type { HeadersInput, Payload } from "./content.js";
import type { Destination, NatsSubject, PayloadFor } from "./topic-types.js";

/** Options of {@link enqueueBatch}. */
export interface EnqueueBatchOptions {
  /** Object of header names with a value or an array of values, or an iterable of `[name, value]` pairs. */
  readonly headers?: HeadersInput | undefined;
  /**
   * Ordering key: messages of one database role with the same destination and key are delivered in the order of their
   * commits. 1 to 1,024 bytes without control characters. The transaction holds a lock on the key until it ends.
   */
  readonly key?: string | undefined;
  /** Earliest time of delivery, from 1970 to ten years from now. Until then {@link cancel} can delete the message. Default: now. */
  readonly deliverAt?: Date | undefined;
  /** In place of `deliverAt`: delay in milliseconds from the call, by the clock of this process. At most ten years. */
  readonly delayMs?: number | undefined;
  /**
   * Topics only: sends one copy to each group of listeners and to each listener without a group. Default: false, which
   * sends to one listener.
   */
  readonly all?: boolean | undefined;
  /**
   * Topics only, without `key`: of the messages of one database role that wait, those with the highest priority are handled
   * first, and of one priority the oldest. What a process has taken ahead is not overtaken. -32768 to 32767. Default: 0.
   */
  readonly priority?: number | undefined;
  /**
   * Topics only: time to live in milliseconds, as {@link SendOptions.ttlMs}. Starts at the earliest time of delivery.
   */
  readonly ttlMs?: number | undefined;
  /**
   * Topics only: how often the handler is called at most until the message is a dead letter, in place of `retry.attempts` of the
   * handler. 1 to 32,767. Default: as the handler says.
   */
  readonly attempts?: number | undefined;
  /**
   * Topics only, without `all`: how long {@link job} tells what became of the message after its end, and what its handler returned,
   * in milliseconds. 1,000 to 604,800,000 (7 days). With `uniqueKey`, a message that waits already keeps what it was enqueued with.
   * Default: nothing is kept.
   */
  readonly keepMs?: number | undefined;
  /**
   * Destination for a schema whose option has both a topic and a subject. Required for such a schema, invalid for
   * others.
   */
  readonly via?: "peers" | "nats" | undefined;
  /** Schemas only: encoding of the message, Protobuf's `binary` format or `json`. Default: `binary`. */
  readonly format?: Format | undefined;
}

/** Unique key of a message, and what it means for one that waits. */
export interface UniqueKey {
  /** 1 to 1,024 bytes without control characters. */
  readonly key: string;
  /**
   * `keep` drops the new message. `replace` gives payload, headers and due time of the new one to the one that waits: with
   * `deliverAt`, a debounce. Default: `keep`.
   */
  readonly mode?: "keep" | "replace" | undefined;
  /** `running`: the key also counts while the message runs, until it is handled or a dead letter. Only with `keep`. Default: `waiting`. */
  readonly while?: "waiting" | "running" | undefined;
}

/** Options of {@link enqueue}. */
export interface EnqueueOptions extends EnqueueBatchOptions {
  /**
   * Topics only, without `key` and `all`: at most one message of the topic, enqueued by the database role, waits with this key. If
   * one waits, or is due later, {@link enqueue} resolves with its number, and it does not begin before the transaction ends. A
   * text is short for `{ key }`.
   */
  readonly uniqueKey?: string | UniqueKey | undefined;
  /**
   * Topics only, without `uniqueKey`: numbers of messages that have to be handled first, at most 10,000. {@link enqueue} returned them to
   * the same database role, in this transaction or before. Those have to wait: Postgres refuses one that a process has taken,
   * that was handled or cancelled, or that is a dead letter or for all, with the SQLSTATE `NA010` (`not_waiting`). None of them
   * begins before the transaction ends. The message is held until all of them have been handled, and then counts as enqueued.
   */
  readonly after?: readonly (bigint | string)[] | undefined;
  /**
   * With `after`, if one of those becomes a dead letter or is cancelled: `hold` holds the message until the dead letter, retried, has been
   * handled, or the message is cancelled. `cancel` cancels it. Default: `hold`.
   */
  readonly afterDead?: "hold" | "cancel" | undefined;
  /**
   * Id of yours for the message. 1 to 255 bytes without white space. On a topic the handler gets it in the header `message-id`, and
   * replies as their `correlationId`; `message.id` is the id that {@link enqueue} returns. A stream stores only one of several messages
   * with the same id. Not available for core NATS.
   */
  readonly messageId?: string | undefined;
}

/** Times, content and destination of the messages that a schedule enqueues. */
export interface ScheduleOptions<To extends Destination | NatsSubject = Destination | NatsSubject, Given = Payload>
  extends Pick<EnqueueOptions, "headers" | "key" | "all" | "priority" | "via" | "format"> {
  /**
   * Cron expression of five fields (minute, hour, day of the month, month, day of the week), or of six fields with
   * seconds first.
   */
  readonly cron: string;
  /** Destination: a topic, also with its schema, a NATS subject, or a schema whose option names a topic or subject. */
  readonly to: To;
  /** Payload as for {@link enqueue}, at most 1 MiB. Default: an empty object. */
  readonly payload?: PayloadFor<To, Given> | undefined;
  /** IANA time zone of the cron expression, such as `Europe/Berlin`. Default: UTC. */
  readonly timezone?: string | undefined;
  /**
   * Policy for occurrences that no process enqueued within ten seconds of their time: enqueue the last `one`, `all`, or
   * `none`. Default: `one`.
   */
  readonly missed?: "one" | "all" | "none" | undefined;
}

const messageOptions = { headers: true, key: true, all: true, via: true, format: true } as const;
const batchOptions = {
  ...messageOptions,
  deliverAt: true,
  delayMs: true,
  priority: true,
  ttlMs: true,
  attempts: true,
  keepMs: true,
} as const;

const known = {
  "an enqueue": namesOf<EnqueueOptions>({
    ...batchOptions,
    messageId: true,
    uniqueKey: true,
    after: true,
    afterDead: true,
  }),
  "a unique key": namesOf<UniqueKey>({ key: true, mode: true, while: true }),
  "a batch to enqueue": namesOf<EnqueueBatchOptions>(batchOptions),
  "a schedule": namesOf<ScheduleOptions>({
    cron: true,
    to: true,
    payload: true,
    timezone: true,
    missed: true,
    priority: true,
    ...messageOptions,
  }),
  "a subject": namesOf<NatsSubject>({ subject: true, stream: true, domain: true }),
  "limits of a topic": namesOf<TopicLimits>({
    rate: true,
    burst: true,
    running: true,
    runningPerKey: true,
    keyHeader: true,
  }),
} as const;

/** @throws HawserError `invalid_argument` for the first unknown option name, with the closest known name */
export function checkKnownOptions(options: object, of: keyof typeof known): void {
  const problem = unknownOption(options, of, known[of]);
  if (problem === undefined) return;
  if (of === "a batch to enqueue" && typeof options === "object" && options !== null && "after" in options) {
    throw invalidArgument(
      `${problem}; each message of a batch would be held for each of after: enqueue one message after them, whose handler enqueues the batch`,
    );
  }
  throw invalidArgument(problem);
}
