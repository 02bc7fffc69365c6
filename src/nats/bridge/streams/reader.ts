/**
 * State machine that reads one stream into SQL. It decides the order of the steps in Postgres and NATS, and which
 * messages are run, done and acknowledged. Pure: no I/O and no clock.
 *
 *     take ──▶ inspect ──▶ (record) ──▶ prepare ──▶ (record) ──▶ reading ⇄ check, note
 *      ▲         │ ▲
 *      │         │ └─ again after a pause: no stream, NATS unavailable, not permitted
 *      │         └──▶ paused: the stream was restored to an older state; until nats_seek_stream
 *      └── in any doubt: the row changed, deliveries were lost, silence, another stream
 *
 * *Postgres has the authoritative position.* `take` starts a new generation of the row, so that no batch of an earlier
 * generation can commit. From then on the row shows exactly what is done, and reading continues after its position. The
 * consumer in NATS can be replaced at any time: the reader creates it again if it is missing, or has another position or
 * configuration.
 *
 * *Progress* is a position, up to which every message is done, and ranges beyond it. Each message covers the numbers
 * from its predecessor (exclusive) to its own: the stream has nothing in between for this subscription. So adjacent
 * ranges join in whatever order messages finish, and the position is the end of the first range.
 *
 * *Missing messages* appear as a gap before the first number of the stream and, without a filter, as gaps between two
 * messages. The transaction that marks their numbers as done also counts them in the row. A stream with
 * `max_msgs_per_subject`, as that of a key-value bucket, removes a message whenever enough newer ones of its subject
 * exist, and a removed message does not tell why. There, gaps between messages are not counted, and the gap before the
 * first number counts as `overwritten`.
 */
import { Backoff, Fifo } from "../../../foundation/runtime/index.js";
import type { StreamPlace } from "../message.js";
import { advanced, countIn, includes, joined, type Ranges, union } from "../ranges.js";

/** Start of a new subscription. */
export type Start = { readonly all: true } | { readonly number: number } | { readonly time: string };

/** State of a subscription in Postgres, after `take`. */
export interface StreamState {
  readonly generation: bigint;
  /** Start time of the Postgres server. After a failover, another server may lack commits that were confirmed. */
  readonly server: string;
  readonly start: Start;
  /** Creation time of the stream, as NATS formats it; undefined if unknown. */
  readonly created: string | undefined;
  /** Sequence number up to which everything is done; undefined before the first read. */
  readonly position: number | undefined;
  readonly done: Ranges;
  /**
   * Number and time (ns) of a message that is done. If the stream has another time at this number, it was restored to
   * an older state.
   */
  readonly lastDone: { readonly number: number; readonly at: bigint } | undefined;
  /** Number up to which the stream had no message for this subscription beyond the position. */
  readonly nothingUntil: number;
  readonly paused: boolean;
  readonly problem: string | undefined;
}

/** State of a consumer in NATS. */
export interface ConsumerState {
  /** True if the consumer's filter and acknowledgement policy are as required. */
  readonly fits: boolean;
  /** Greatest number that the consumer has delivered; before its first delivery, the number before its start. */
  readonly delivered: number;
  /** Number of deliveries, redeliveries included. */
  readonly deliveries: number;
  readonly ackFloor: number;
  /** Number of messages that the consumer has not delivered yet. */
  readonly pending: number;
}

/** State of a stream in NATS. */
export interface StreamInfo {
  readonly created: string;
  /** Number of the first message; one more than the last number if the stream is empty. */
  readonly first: number;
  /** Greatest number that was ever assigned. */
  readonly last: number;
  /** With `interest` and `workqueue`, acknowledged messages are deleted. */
  readonly retention: "limits" | "interest" | "workqueue";
  /** True with a small `max_msgs_per_subject`, as a bucket has it: newer messages of a subject replace older ones. */
  readonly overwrites: boolean;
  /**
   * Time at which the stream stored the message of `lastDone`, in ns; undefined if the message is gone or cannot be
   * read.
   */
  readonly lastDoneAt: bigint | undefined;
  readonly consumers: readonly [ConsumerState | undefined, ConsumerState | undefined];
}

/** Messages that the stream removed before they were read. */
export interface Missing {
  readonly reason: "cut_short" | "overwritten" | "acknowledged" | "recreated";
  readonly count: number;
  readonly from: number | undefined;
  readonly to: number | undefined;
}

/** Creates the consumer, or uses an existing one. */
export interface PrepareStep {
  readonly kind: "prepare";
  /**
   * Index of the consumer's name. A subscription has two names, so that a new consumer can exist beside the old one.
   */
  readonly nth: 0 | 1;
  /** True if the consumer exists and fits. */
  readonly exists: boolean;
  /** Start of a new consumer. */
  readonly from: { readonly number: number } | { readonly time: string };
  readonly retention: StreamInfo["retention"];
  /** Consumers to delete before a new one is created. */
  readonly deleteBefore: readonly (0 | 1)[];
  /** Consumers to delete last: until then, the stream keeps the messages that they have not acknowledged. */
  readonly deleteAfter: readonly (0 | 1)[];
}

/** A consumer that is ready to be read. */
export interface Prepared extends Pick<ConsumerState, "fits" | "delivered" | "deliveries"> {
  /** Creation time of its stream, read after the consumer was found or created. */
  readonly created: string;
}

/** Writes the state of a subscription that is not being read. */
export interface RecordStep {
  readonly kind: "record";
  readonly state: StreamState;
  readonly missing: Missing | undefined;
}

/** Writes lag and `nothingUntil` of a subscription that is being read. */
export interface NoteStep {
  readonly kind: "note";
  readonly generation: bigint;
  readonly server: string;
  readonly lag: number;
  readonly nothingUntil: number;
}

export type ReaderStep =
  /** Starts a new generation of the row, and reads it. */
  | { readonly kind: "take" }
  | { readonly kind: "inspect"; readonly state: StreamState }
  | RecordStep
  | PrepareStep
  /** The same as `inspect`, while the subscription is being read. */
  | { readonly kind: "check"; readonly state: StreamState }
  | NoteStep;

export type ReaderOutcome =
  | { readonly kind: "taken"; readonly state: StreamState }
  | { readonly kind: "inspected"; readonly info: StreamInfo }
  | { readonly kind: "written" }
  | ({ readonly kind: "prepared" } & Prepared)
  /**
   * Nothing was written: the row is gone, has another generation or is on another server, or another process is the
   * leader.
   */
  | { readonly kind: "moved" }
  /** NATS refused the operation. */
  | { readonly kind: "problem"; readonly problem: string }
  /** NATS or Postgres is not available, or a batch has locked the row. */
  | { readonly kind: "unavailable" };

/** A message that the consumer delivered. */
export interface Delivery {
  readonly number: number;
  /** Position of this delivery in the sequence of all deliveries of the consumer. */
  readonly nth: number;
  /** Time at which the stream stored the message, in nanoseconds since 1970. */
  readonly at: bigint;
  readonly bytes: number;
  readonly reply: string;
}

/** Settings of a reader. Tests give others. */
export const readerDefaults = {
  /** Maximum number of messages of a subscription in memory. */
  streamMessages: 20_000,
  /** Maximum memory that they take; one message always fits. */
  streamBytes: 32 * 1024 * 1024,
  /**
   * Maximum number of messages since the oldest one that is not done: with key_token one that waits holds up the others
   * only then.
   */
  streamSpan: 50_000,
  /** Having heard nothing for so long, reading begins anew. */
  streamSilenceMs: 5_000,
  /** Interval at which the stream is read for its lag, and for missing messages. */
  streamCheckMs: 2_000,
  /** The first pause after something failed; each further one is twice as long. */
  streamRetryMinMs: 50,
  /** The longest pause after something failed. */
  streamRetryMaxMs: 5_000,
  /** A consumer that stands so far before the position is made anew, rather than read and dropped. */
  streamSkipMessages: 10_000,
};

export interface ReaderSettings extends Readonly<typeof readerDefaults> {
  /**
   * True if the subscription has a filter. A gap between two messages may then consist of messages that do not match.
   */
  readonly hasFilter: boolean;
}

/** A running read of the consumer. */
export interface StreamRead {
  readonly generation: bigint;
  /** Start time of the Postgres server that its position was read from. */
  readonly server: string;
  /** Index of the consumer's name. */
  readonly nth: 0 | 1;
  /** True if every message needs its own acknowledgement. */
  readonly acknowledgesEach: boolean;
}

const restoredText =
  "the stream does not contain the last message that was read from it: it was restored to an older state, and new messages get numbers " +
  "that count as done; choose a new position with nats_seek_stream";

/** Result of comparing the state in Postgres with the stream in NATS. */
export type Plan =
  | { readonly kind: "continue"; readonly state: StreamState; readonly missing: Missing | undefined }
  | { readonly kind: "problem"; readonly problem: string }
  | { readonly kind: "pause" };

function planOf(state: StreamState, info: StreamInfo, hasFilter: boolean): Plan {
  if (info.last > Number.MAX_SAFE_INTEGER) {
    return { kind: "problem", problem: `the stream has a sequence number beyond ${Number.MAX_SAFE_INTEGER}` };
  }
  const isAnother = state.created !== undefined && state.created !== info.created;
  const before: StreamState = isAnother
    ? { ...state, position: 0, done: [], lastDone: undefined, nothingUntil: 0 }
    : state;
  const recreated: Missing | undefined = isAnother
    ? { reason: "recreated", count: 0, from: undefined, to: undefined }
    : undefined;
  const now = { ...before, created: info.created };
  if (before.position === undefined) {
    if ("time" in state.start || "number" in state.start) {
      if (info.retention === "workqueue") {
        return {
          kind: "problem",
          problem: "a work-queue stream can only be read from its beginning; start must be 'all'",
        };
      }
    }
    if ("time" in state.start) return { kind: "continue", state: now, missing: undefined };
    if ("all" in state.start) {
      return { kind: "continue", state: { ...now, position: Math.max(0, info.first - 1) }, missing: undefined };
    }
    const position = state.start.number - 1;
    if (position > info.last) {
      return { kind: "problem", problem: `start is ${state.start.number}, but the stream ends at ${info.last}` };
    }
    return continuePlan({ ...now, position }, info, hasFilter, undefined);
  }
  if (Math.max(before.position, before.done.at(-1)?.[1] ?? 0) > info.last) return { kind: "pause" };
  if (before.lastDone !== undefined && info.lastDoneAt !== undefined && info.lastDoneAt !== before.lastDone.at) {
    return { kind: "pause" };
  }
  return continuePlan({ ...now, position: before.position }, info, hasFilter, recreated);
}

/**
 * Advances the position over messages that the stream has removed, and counts the removed messages that were not read.
 */
function continuePlan(
  state: StreamState & { readonly position: number },
  info: StreamInfo,
  hasFilter: boolean,
  recreated: Missing | undefined,
): Plan {
  const known = Math.max(state.position, state.nothingUntil);
  // With a retention other than `limits`, NATS removes acknowledged messages. A subscription with a filter cannot tell
  // whether a removed message matched its filter.
  const isConclusive = info.retention === "limits" || !hasFilter;
  const acknowledged = Math.max(0, ...info.consumers.map((one) => one?.ackFloor ?? 0));
  const isGone = info.retention !== "limits" && acknowledged > known;
  const upTo = Math.max(isConclusive ? info.first - 1 : 0, isGone ? Math.min(acknowledged, info.last) : 0);
  const passed = Math.max(state.position, info.first - 1, isGone ? upTo : 0);
  const beyond = state.done.filter(([, last]) => last > passed);
  const rest = advanced(passed, beyond);
  const done = rest.done.map(([first, last]) => [Math.max(first, rest.position + 1), last] as const);
  const next = { ...state, position: rest.position, done };
  const count = upTo > known ? upTo - known - countIn(state.done, known + 1, upTo) : 0;
  if (count === 0) return { kind: "continue", state: next, missing: recreated };
  const reason = recreated?.reason ?? (isGone ? "acknowledged" : info.overwrites ? "overwritten" : "cut_short");
  return { kind: "continue", state: next, missing: { reason, count, from: known + 1, to: upTo } };
}

/** State of one read of the consumer, until the next restart. */
class CurrentRead implements StreamRead {
  readonly generation: bigint;
  readonly server: string;
  readonly nth: 0 | 1;
  readonly acknowledgesEach: boolean;
  /** True if NATS confirmed the requested configuration, so that a difference means that someone changed it. */
  readonly wasAccepted: boolean;
  /** Number of deliveries of the consumer. */
  deliveries: number;
  /** Greatest number that was received. */
  received: number;
  /** Position and ranges that are done, by confirmed commits. */
  position: number;
  done: Ranges;
  /** Numbers without a message, which the next message to run will cover. */
  emptyRanges: Ranges = [];
  outstanding = 0;
  outstandingBytes = 0;
  readonly unacknowledged = new Fifo<{ readonly number: number; readonly reply: string }>();
  lastAnswerAt: number;
  nextCheckAt: number;
  /** Deliveries at the last check. */
  checkedDeliveries = -1;
  /**
   * Greatest number received before the check was sent. The answer to the check can be older than messages that arrived
   * since.
   */
  receivedBefore = 0;
  note: NoteStep | undefined;

  constructor(
    { generation, server, position = 0, done }: StreamState,
    step: PrepareStep,
    prepared: Prepared,
    now: number,
  ) {
    this.generation = generation;
    this.server = server;
    this.nth = step.nth;
    this.acknowledgesEach = step.retention === "workqueue";
    this.wasAccepted = prepared.fits;
    this.deliveries = prepared.deliveries;
    this.received = this.position = position;
    this.done = done;
    this.lastAnswerAt = this.nextCheckAt = now;
  }
}

type Phase =
  | { readonly kind: "take" | "inspect" | "paused" }
  | { readonly kind: "record"; readonly missing: Missing | undefined; readonly then: Phase }
  | { readonly kind: "prepare"; readonly info: StreamInfo }
  | { readonly kind: "reading"; readonly read: CurrentRead };

export class StreamReader {
  /** Called when {@link next} may have a step, or {@link hasRoom} may have become true. */
  onReady: () => void = () => undefined;
  readonly #settings: ReaderSettings;
  readonly #backoff: Backoff;
  #phase: Phase = { kind: "take" };
  #runningStep: ReaderStep | undefined;
  /** As the last answer of NATS has it. */
  #overwrites = false;
  /** True if reading has restarted since the running step began. */
  #ignoresOutcome = false;
  #waitsUntil = Number.NEGATIVE_INFINITY;
  #state: StreamState | undefined;
  /** True if the next consumer must be a new one. */
  #replacesConsumer = false;
  /** Number of messages that the consumer had not delivered, as far as known. */
  #pending = 0;
  /** Last lag that was written; -1 if the next check must write it. */
  #writtenLag = -1;

  constructor(settings: ReaderSettings) {
    this.#settings = settings;
    this.#backoff = new Backoff({ minMs: settings.streamRetryMinMs, maxMs: settings.streamRetryMaxMs });
  }

  /** Current read; undefined if there is none. Each restart creates a new object. */
  get reading(): StreamRead | undefined {
    return this.#read;
  }

  get #read(): CurrentRead | undefined {
    return this.#phase.kind === "reading" ? this.#phase.read : undefined;
  }

  /** Position up to which commits are confirmed; 0 without a read. */
  get confirmed(): number {
    return this.#read?.position ?? 0;
  }

  /** Number of messages that are not done, as far as known. */
  get lag(): number {
    return this.#pending + (this.#read?.outstanding ?? 0);
  }

  /**
   * True if the reader works with a state that is no longer in the row, after nats_seek_stream or a failover. Another
   * server may lack commits that were confirmed.
   */
  isOutdated({ generation, server }: Pick<StreamState, "generation" | "server">): boolean {
    // `take` reads the row in any case.
    if (this.#state === undefined || this.#phase.kind === "take") return false;
    return this.#state.generation !== generation || this.#state.server !== server;
  }

  /** True if more messages may be requested. */
  get hasRoom(): boolean {
    const { streamMessages, streamBytes, streamSpan } = this.#settings;
    const read = this.#read;
    if (read === undefined || read.outstanding === 0) return true;
    return (
      read.outstanding < streamMessages &&
      read.outstandingBytes < streamBytes &&
      read.unacknowledged.length < streamSpan
    );
  }

  /** Messages and bytes that may be requested; one message always fits. */
  get room(): { readonly messages: number; readonly bytes: number } {
    const { streamMessages, streamBytes } = this.#settings;
    const { outstanding = 0, outstandingBytes = 0 } = this.#read ?? {};
    return {
      messages: Math.max(1, streamMessages - outstanding),
      bytes: Math.max(1, streamBytes - outstandingBytes),
    };
  }

  /** Time from which {@link next} has a step. */
  get readyAt(): number {
    if (this.#runningStep !== undefined || this.#phase.kind === "paused") return Number.POSITIVE_INFINITY;
    const read = this.#read;
    if (read === undefined) return this.#waitsUntil;
    if (read.note !== undefined) return Number.NEGATIVE_INFINITY;
    return Math.min(read.nextCheckAt, this.#silentAt(read));
  }

  /** Time at which the silence of the server ends the read. */
  #silentAt({ lastAnswerAt }: CurrentRead): number {
    return this.hasRoom ? lastAnswerAt + this.#settings.streamSilenceMs : Number.POSITIVE_INFINITY;
  }

  /** Returns the next step, which runs until {@link onOutcome} is called with it; undefined if no step is due. */
  next(now: number): ReaderStep | undefined {
    if (this.readyAt > now) return undefined;
    if (this.#read !== undefined && now >= this.#silentAt(this.#read)) {
      this.restart(now);
      return undefined;
    }
    this.#runningStep = this.#step(now);
    return this.#runningStep;
  }

  /**
   * Restarts with `take`, which reads the row again.
   *
   * @param distrusts true to replace the consumer, which may have lost deliveries
   */
  restart(now: number, distrusts = false): void {
    this.#waitsUntil = now + this.#backoff.failed();
    this.#replacesConsumer ||= distrusts;
    this.#ignoresOutcome = this.#runningStep !== undefined;
    this.#phase = { kind: "take" };
    this.onReady();
  }

  /** Ends the wait before the next step. Called after a new connection to NATS or a change of the row. */
  wake(): void {
    this.#waitsUntil = Number.NEGATIVE_INFINITY;
    this.onReady();
  }

  onOutcome(step: ReaderStep, outcome: ReaderOutcome, now: number): void {
    if (step !== this.#runningStep) return;
    this.#runningStep = undefined;
    if (this.#ignoresOutcome) this.#ignoresOutcome = false;
    else if (outcome.kind === "unavailable" || outcome.kind === "problem") this.#onFailure(step, outcome, now);
    else if (outcome.kind === "moved") {
      this.#phase = { kind: "take" };
      // The wait limits the rate of repeated attempts.
      this.#waitsUntil = now + this.#backoff.failed();
    } else this.#onSuccess(step, outcome, now);
    this.onReady();
  }

  /** Records an answer of the server, such as that it has no message. */
  onAnswer(now: number): void {
    this.onRequest(now);
    this.#backoff.reset();
  }

  /** Silence of the server counts from now on: messages were requested, or the read has begun. */
  onRequest(now: number): void {
    if (this.#read !== undefined) this.#read.lastAnswerAt = now;
  }

  /**
   * Accepts a delivered message.
   *
   * @returns position of the message to run; undefined if it is already done, or if reading restarts
   */
  receive({ number, nth, at, bytes, reply }: Delivery, pending: number, now: number): StreamPlace | undefined {
    const read = this.#read;
    if (read === undefined) return undefined;
    this.onAnswer(now);
    this.#pending = pending;
    read.deliveries += 1;
    if (nth !== read.deliveries) {
      // Deliveries were lost, or another process reads from the consumer.
      this.restart(now, true);
      return undefined;
    }
    read.unacknowledged.push({ number, reply });
    if (number <= read.received) return undefined;
    const from = read.received + 1;
    read.received = number;
    const { done } = this.#state!;
    if (includes(done, number)) {
      if (number > from) read.emptyRanges = union(read.emptyRanges, [[from, number - 1]]);
      return undefined;
    }
    const own: Ranges = read.emptyRanges.length === 0 ? [[from, number]] : union(read.emptyRanges, [[from, number]]);
    const covers = done.length === 0 || done.at(-1)![1] < own[0]![0] ? own : difference(own, done);
    const gapsTell = !this.#settings.hasFilter && !this.#overwrites;
    const missing = gapsTell ? covers.reduce((sum, [a, b]) => sum + b - a + 1, 0) - 1 : 0;
    read.emptyRanges = [];
    read.outstanding += 1;
    read.outstandingBytes += bytes;
    return { number, covers, missing, at, bytes };
  }

  /** Marks messages as done after their commit was confirmed. */
  markDone(places: readonly StreamPlace[]): void {
    const read = this.#read;
    if (read === undefined) return;
    const reached = advanced(read.position, joined([...read.done, ...places.flatMap(({ covers }) => covers)]));
    read.position = reached.position;
    read.done = reached.done;
    read.outstanding -= places.length;
    for (const { bytes } of places) read.outstandingBytes -= bytes;
    this.onReady();
  }

  /** Reply subjects of the messages to acknowledge now, in order. */
  takeAcknowledged(): string[] {
    const replies: string[] = [];
    const read = this.#read;
    if (read === undefined) return replies;
    const { unacknowledged } = read;
    const until = this.acknowledgedTo(read);
    for (let one = unacknowledged.at(0); one !== undefined && one.number <= until; one = unacknowledged.at(0)) {
      replies.push(one.reply);
      unacknowledged.shift();
    }
    return replies;
  }

  protected acknowledgedTo({ position }: CurrentRead): number {
    return position;
  }

  #step(now: number): ReaderStep {
    const phase = this.#phase;
    const state = this.#state!;
    switch (phase.kind) {
      case "inspect":
        return { kind: "inspect", state };
      case "record":
        return { kind: "record", state, missing: phase.missing };
      case "prepare":
        return this.prepareStep(phase.info);
      case "reading": {
        const { read } = phase;
        const { note } = read;
        read.note = undefined;
        if (note !== undefined) return note;
        read.nextCheckAt = now + this.#settings.streamCheckMs;
        read.receivedBefore = read.received;
        return { kind: "check", state };
      }
      default:
        return { kind: "take" };
    }
  }

  protected plan(state: StreamState, info: StreamInfo): Plan {
    return planOf(state, info, this.#settings.hasFilter);
  }

  protected prepareStep({ consumers, retention }: StreamInfo): PrepareStep {
    const { position, start } = this.#state!;
    const at = consumers.findIndex((one) => one !== undefined && !this.#replacesConsumer && this.isUsable(one));
    const present = ([0, 1] as const).filter((nth) => consumers[nth] !== undefined);
    if (at >= 0) {
      const nth = at as 0 | 1;
      const deleteAfter = present.filter((each) => each !== nth);
      return { kind: "prepare", nth, exists: true, from: { number: 0 }, retention, deleteBefore: [], deleteAfter };
    }
    // A work-queue stream allows one consumer at a time, and deletes no messages with it.
    const isQueue = retention === "workqueue";
    const nth = isQueue || present[0] !== 0 ? 0 : 1;
    const deleteBefore = isQueue ? present : present.filter((each) => each === nth);
    const from = position === undefined && "time" in start ? { time: start.time } : { number: (position ?? 0) + 1 };
    const deleteAfter = present.filter((each) => !deleteBefore.includes(each));
    return { kind: "prepare", nth, exists: false, from, retention, deleteBefore, deleteAfter };
  }

  /**
   * True if the consumer will deliver every message after the position, and starts at most `streamSkipMessages` before
   * it.
   */
  protected isUsable({ fits, delivered }: ConsumerState): boolean {
    const position = this.#state!.position ?? -1;
    return fits && delivered <= position && position - delivered <= this.#settings.streamSkipMessages;
  }

  /**
   * True if another process has read from the consumer since the inspection. The messages delivered to that process
   * would seem to be missing.
   */
  protected isBeyond({ delivered, deliveries }: Pick<Prepared, "delivered" | "deliveries">): boolean {
    return deliveries > 0 && delivered > (this.#state!.position ?? -1);
  }

  #onFailure(
    step: ReaderStep,
    outcome: Extract<ReaderOutcome, { kind: "unavailable" | "problem" }>,
    now: number,
  ): void {
    this.#waitsUntil = now + this.#backoff.failed();
    if (step.kind === "check" || step.kind === "note") {
      // An unavailable server ends the read by its silence, so this failure need not.
      if (outcome.kind === "problem") this.restart(now);
      // Makes the next check write the lag again.
      this.#writtenLag = -1;
      return;
    }
    // The row may have been written although `record` or `take` failed.
    this.#phase = { kind: step.kind === "record" || step.kind === "take" ? "take" : "inspect" };
    if (outcome.kind === "problem" && this.#state?.problem !== outcome.problem) this.#recordProblem(outcome.problem);
  }

  #recordProblem(problem: string): void {
    this.#record({ ...this.#state!, problem }, { kind: "inspect" });
  }

  /** Writes the state, and continues with a phase. */
  #record(state: StreamState, then: Phase, missing?: Missing): void {
    this.#state = state;
    this.#phase = { kind: "record", missing, then };
  }

  #onSuccess(step: ReaderStep, outcome: ReaderOutcome, now: number): void {
    if (step.kind === "take" && outcome.kind === "taken") {
      this.#state = outcome.state;
      this.#phase = { kind: outcome.state.paused ? "paused" : "inspect" };
    } else if (step.kind === "inspect" && outcome.kind === "inspected") this.#onInspected(outcome.info, now);
    else if (step.kind === "record" && outcome.kind === "written") this.#onRecorded(now);
    else if (step.kind === "prepare" && outcome.kind === "prepared") this.#onPrepared(step, outcome, now);
    else if (step.kind === "check" && outcome.kind === "inspected") this.#onChecked(outcome.info, now);
  }

  #onInspected(info: StreamInfo, now: number): void {
    this.#overwrites = info.overwrites;
    const before = this.#state!;
    const plan = this.plan(before, info);
    if (plan.kind === "problem") {
      this.#waitsUntil = now + this.#backoff.failed();
      if (before.problem !== plan.problem) this.#recordProblem(plan.problem);
      return;
    }
    if (plan.kind === "pause") {
      this.#record({ ...before, paused: true, problem: restoredText }, { kind: "paused" });
      return;
    }
    const { state, missing } = plan;
    const isChanged = missing !== undefined || state.position !== before.position || state.created !== before.created;
    // The problem is cleared once a consumer exists.
    this.#state = state;
    this.#phase = { kind: "prepare", info };
    // Without a position, the consumer determines where reading starts.
    if (isChanged && state.position !== undefined) this.#record(state, this.#phase, missing);
  }

  #onRecorded(now: number): void {
    if (this.#phase.kind !== "record") return;
    this.#phase = this.#phase.then;
    this.onRequest(now);
  }

  #onPrepared(step: PrepareStep, prepared: Prepared, now: number): void {
    this.#replacesConsumer = false;
    const before = this.#state!;
    // The stream was created again since it was inspected.
    if (prepared.created !== before.created) {
      this.restart(now);
      return;
    }
    if (this.isBeyond(prepared)) {
      this.restart(now, true);
      return;
    }
    const state = { ...before, position: before.position ?? prepared.delivered, problem: undefined };
    this.#state = state;
    this.#phase = { kind: "reading", read: new CurrentRead(state, step, prepared, now) };
    if (before.position === undefined || before.problem !== undefined) this.#record(state, this.#phase);
  }

  /** Compares the stream with the running read. */
  #onChecked(info: StreamInfo, now: number): void {
    const read = this.#read;
    if (read === undefined) return;
    this.#overwrites = info.overwrites;
    const { created, nothingUntil } = this.#state!;
    const { deliveries, received, outstanding } = read;
    const consumer = info.consumers[read.nth];
    // No delivery arrived since the last check although the consumer has delivered more.
    const isLost = consumer !== undefined && consumer.deliveries > deliveries && deliveries === read.checkedDeliveries;
    read.checkedDeliveries = deliveries;
    if (isLost) {
      this.restart(now, true);
      return;
    }
    const isOther = created !== info.created || info.last < read.receivedBefore || consumer === undefined;
    const isChanged = read.wasAccepted && consumer?.fits === false;
    // Messages that were removed without being delivered are counted by a restart. Without a filter, the next message
    // shows them as a gap.
    const { hasFilter } = this.#settings;
    const isConclusive = hasFilter ? info.retention === "limits" : info.first > info.last;
    if (isOther || isChanged || (isConclusive && info.first - 1 > Math.max(received, nothingUntil))) {
      this.restart(now);
      return;
    }
    const isDone = hasFilter && outstanding === 0 && read.position === received && consumer.pending === 0;
    const until = isDone && consumer.delivered <= received ? Math.max(nothingUntil, info.last) : nothingUntil;
    const lag = consumer.pending + outstanding;
    if (until === nothingUntil && lag === this.#writtenLag) return;
    this.#writtenLag = lag;
    this.#pending = consumer.pending;
    this.#state = { ...this.#state!, nothingUntil: until };
    const { generation, server } = read;
    read.note = { kind: "note", generation, server, lag, nothingUntil: until };
  }
}

/** Numbers of `own` that are not in `done`. */
function difference(own: Ranges, done: Ranges): Ranges {
  const left: [first: number, last: number][] = [];
  for (let [first, last] of own) {
    for (const [from, to] of done) {
      if (to < first || from > last) continue;
      if (from > first) left.push([first, from - 1]);
      first = to + 1;
    }
    if (first <= last) left.push([first, last]);
  }
  return left;
}
