/**
 * Reads one stream into SQL: what is asked of Postgres and of NATS, in which order, and what becomes of each message. Pure:
 * it does nothing itself and has no clock.
 *
 *     take ──▶ look ──▶ (record) ──▶ prepare ──▶ (record) ──▶ reading ⇄ check, note
 *      ▲        │ ▲
 *      │        │ └─ again after a pause: no stream, NATS away, not permitted
 *      │        └──▶ paused: the stream was set back; until nats_seek_stream
 *      └── whatever is in doubt: the row was changed, deliveries are lost, silence, another stream
 *
 * *Postgres is the truth.* Taking gives the row another generation: nothing that was read before can be committed any more.
 * Then it is known for certain what is done, and reading begins behind that. A consumer of NATS is only a means: one that
 * stands elsewhere, is gone or looks otherwise is made anew.
 *
 * *What is done* is a position, up to which everything is, and ranges beyond it. Each message brings the range of numbers
 * from the one before it up to its own: what is in between the stream does not have for the subscription. So the ranges of
 * what is done join by themselves, however messages overtake each other, and the position is where they stop.
 *
 * *What is missing* shows by the first number of the stream, and, without a filter, by gaps between two messages. It is
 * counted in the row, in the transaction that passes it.
 */
import type { StreamConstants } from "../../../generated/ts/settings/nats.js";
import { Backoff, Fifo } from "../../runtime/index.js";
import type { StreamPlace } from "../message.js";
import { countIn, includes, joined, lowest, type Ranges, union } from "../ranges.js";

/** Where a subscription begins. */
export type Start = { readonly all: true } | { readonly number: number } | { readonly time: string };

/** What Postgres knows of a subscription, since this process has taken it. */
export interface StreamState {
  readonly generation: bigint;
  /** Start time of the Postgres server that has it. After a failover another one may lack commits that were confirmed. */
  readonly server: string;
  readonly start: Start;
  /** When the stream was created, as NATS writes it; undefined: not known. */
  readonly created: string | undefined;
  /** Up to here everything is done; undefined: it has not begun. */
  readonly position: number | undefined;
  readonly done: Ranges;
  /** A message that is done, by which the stream is recognized: its number, and its time in nanoseconds. */
  readonly lastDone: { readonly number: number; readonly at: bigint } | undefined;
  /** Between the position and this number the stream had nothing for the subscription. */
  readonly nothingUntil: number;
  readonly paused: boolean;
  readonly problem: string | undefined;
}

/** A consumer of the subscription, as NATS has it. */
export interface ConsumerLook {
  /** It has the filter, and the way to acknowledge. */
  readonly fits: boolean;
  /** The greatest number that it has delivered, or the one before it begins. */
  readonly delivered: number;
  /** How many deliveries it has made. */
  readonly deliveries: number;
  readonly ackFloor: number;
  /** How many messages it has not delivered. */
  readonly pending: number;
}

/** What NATS says of the stream. */
export interface StreamLook {
  readonly created: string;
  /** The number of the first message; one more than the last, if there is none. */
  readonly first: number;
  /** The greatest number that it has given. */
  readonly last: number;
  /** What is acknowledged is deleted: `interest`, `workqueue`. */
  readonly retention: "limits" | "interest" | "workqueue";
  /** When it stored the message of `lastDone`, in nanoseconds; undefined: it has it no more, or does not tell. */
  readonly lastDoneAt: bigint | undefined;
  readonly consumers: readonly [ConsumerLook | undefined, ConsumerLook | undefined];
}

/** Messages that were gone before they could be taken. */
export interface Missing {
  readonly reason: "cut_short" | "acknowledged" | "recreated";
  readonly count: number;
  readonly from: number | undefined;
  readonly to: number | undefined;
}

/** Make the consumer, or take one that is there. */
export interface PrepareStep {
  readonly kind: "prepare";
  /** Which of its two names. */
  readonly nth: 0 | 1;
  /** It is there, and fits. */
  readonly isThere: boolean;
  /** Where a new one begins. */
  readonly from: { readonly number: number } | { readonly time: string };
  readonly retention: StreamLook["retention"];
  /** To be deleted before that. */
  readonly deleteBefore: readonly (0 | 1)[];
  /** To be deleted after that: as long as a stream has a consumer, it keeps what that one has not acknowledged. */
  readonly deleteAfter: readonly (0 | 1)[];
}

/** A consumer that can be read. */
export interface Prepared extends Pick<ConsumerLook, "fits" | "delivered" | "deliveries"> {
  /** When its stream was created, asked for when it was there. */
  readonly created: string;
}

/** Write the state, of a subscription that is not being read. */
export interface RecordStep {
  readonly kind: "record";
  readonly state: StreamState;
  readonly missing: Missing | undefined;
}

/** Write what was found of a subscription that is being read. */
export interface NoteStep {
  readonly kind: "note";
  readonly generation: bigint;
  readonly server: string;
  readonly lag: number;
  readonly nothingUntil: number;
}

export type ReaderStep =
  /** Give the row another generation, and read it. */
  | { readonly kind: "take" }
  | { readonly kind: "look"; readonly state: StreamState }
  | RecordStep
  | PrepareStep
  /** As `look`, while it is being read. */
  | { readonly kind: "check"; readonly state: StreamState }
  | NoteStep;

export type ReaderOutcome =
  | { readonly kind: "taken"; readonly state: StreamState }
  | { readonly kind: "seen"; readonly look: StreamLook }
  /** It is written. Of what was read under another generation, or from another server: `moved`. */
  | { readonly kind: "written" }
  | ({ readonly kind: "prepared" } & Prepared)
  /** The row is another one by now, or gone, or another process leads. */
  | { readonly kind: "moved" }
  /** NATS has said no. */
  | { readonly kind: "problem"; readonly problem: string }
  /** No answer. */
  | { readonly kind: "unavailable" };

/** A message that the consumer has delivered. */
export interface Delivery {
  readonly number: number;
  /** Which delivery of the consumer it is. */
  readonly nth: number;
  /** When the stream stored it, in nanoseconds since 1970. */
  readonly at: bigint;
  readonly bytes: number;
  readonly reply: string;
}

export interface ReaderSettings
  extends Pick<
    StreamConstants,
    | "streamMessages"
    | "streamBytes"
    | "streamSpan"
    | "streamSilenceMs"
    | "streamCheckMs"
    | "streamRetryMinMs"
    | "streamRetryMaxMs"
    | "streamSkipMessages"
  > {
  /** It has a filter: what is between two messages may be others'. */
  readonly hasFilter: boolean;
}

/** What is being read. */
export interface Reading {
  readonly generation: bigint;
  /** Start time of the Postgres server that it goes on from. */
  readonly server: string;
  /** Which of the consumer's two names. */
  readonly nth: 0 | 1;
  /** Each message is acknowledged by itself. */
  readonly acknowledgesEach: boolean;
}

const setBack =
  "the stream does not have what was taken from it last: it was set back to an older state, and new messages get numbers that are done; " +
  "choose where to go on with nats_seek_stream";

/** What is to be done about what was seen. */
export type Plan =
  | { readonly kind: "go_on"; readonly state: StreamState; readonly missing: Missing | undefined }
  | { readonly kind: "problem"; readonly problem: string }
  | { readonly kind: "pause" };

/** Compares what Postgres knows with what NATS says. */
function planOf(state: StreamState, look: StreamLook, hasFilter: boolean): Plan {
  if (look.last > Number.MAX_SAFE_INTEGER) {
    return { kind: "problem", problem: `the stream has a sequence number beyond ${Number.MAX_SAFE_INTEGER}` };
  }
  const isAnother = state.created !== undefined && state.created !== look.created;
  const before: StreamState = isAnother
    ? { ...state, position: 0, done: [], lastDone: undefined, nothingUntil: 0 }
    : state;
  const recreated: Missing | undefined = isAnother
    ? { reason: "recreated", count: 0, from: undefined, to: undefined }
    : undefined;
  const now = { ...before, created: look.created };
  if (before.position === undefined) {
    if ("time" in state.start || "number" in state.start) {
      if (look.retention === "workqueue") {
        return { kind: "problem", problem: "a work-queue stream is taken from its beginning: start must be 'all'" };
      }
    }
    if ("time" in state.start) return { kind: "go_on", state: now, missing: undefined };
    if ("all" in state.start) {
      return { kind: "go_on", state: { ...now, position: Math.max(0, look.first - 1) }, missing: undefined };
    }
    const position = state.start.number - 1;
    if (position > look.last) {
      return { kind: "problem", problem: `start is ${state.start.number}, and the stream ends at ${look.last}` };
    }
    return goneOn({ ...now, position }, look, hasFilter, undefined);
  }
  if (Math.max(before.position, before.done.at(-1)?.[1] ?? 0) > look.last) return { kind: "pause" };
  if (before.lastDone !== undefined && look.lastDoneAt !== undefined && look.lastDoneAt !== before.lastDone.at) {
    return { kind: "pause" };
  }
  return goneOn({ ...now, position: before.position }, look, hasFilter, recreated);
}

/** Passes what is gone, and says how much that is. */
function goneOn(
  state: StreamState & { readonly position: number },
  look: StreamLook,
  hasFilter: boolean,
  recreated: Missing | undefined,
): Plan {
  const known = Math.max(state.position, state.nothingUntil);
  // Where others' messages are deleted when they are acknowledged, the first number says nothing of ours.
  const isTelling = look.retention === "limits" || !hasFilter;
  const acknowledged = Math.max(0, ...look.consumers.map((one) => one?.ackFloor ?? 0));
  const isGone = look.retention !== "limits" && acknowledged > known;
  const upTo = Math.max(isTelling ? look.first - 1 : 0, isGone ? Math.min(acknowledged, look.last) : 0);
  const passed = Math.max(state.position, look.first - 1, isGone ? upTo : 0);
  const beyond = state.done.filter(([, last]) => last > passed);
  const rest = lowest(passed, beyond);
  const done = rest.done.map(([first, last]) => [Math.max(first, rest.position + 1), last] as const);
  const next = { ...state, position: rest.position, done };
  const count = upTo > known ? upTo - known - countIn(state.done, known + 1, upTo) : 0;
  if (count === 0) return { kind: "go_on", state: next, missing: recreated };
  const reason = recreated?.reason ?? (isGone ? "acknowledged" : "cut_short");
  return { kind: "go_on", state: next, missing: { reason, count, from: known + 1, to: upTo } };
}

type Phase = "take" | "look" | "record" | "prepare" | "reading" | "paused";

export class StreamReader {
  /** Called when there may be a step where there was none, or room. */
  onReady: () => void = () => undefined;
  readonly #settings: ReaderSettings;
  readonly #backoff: Backoff;
  #phase: Phase = "take";
  #out: ReaderStep | undefined;
  /** It begins anew as soon as the step that is out has ended. */
  #isStale = false;
  #waitsUntil = Number.NEGATIVE_INFINITY;
  protected state: StreamState | undefined;
  #look: StreamLook | undefined;
  #missing: Missing | undefined;
  /** Written, and what comes then. */
  #afterRecord: Phase = "prepare";
  #reading: Reading | undefined;
  /** The consumer is not to be used again. */
  protected distrusts = false;

  // While it is being read.
  #deliveries = 0;
  /** The greatest number that was received. */
  protected received = 0;
  /** The position, and what is done beyond it, as far as commits were confirmed. */
  #position = 0;
  #done: Ranges = [];
  /** Numbers of which the stream has nothing, that no message covers yet. */
  #void: Ranges = [];
  #outstanding = 0;
  #outstandingBytes = 0;
  readonly #unacknowledged = new Fifo<{ readonly number: number; readonly reply: string }>();
  #heardAt = 0;
  #nextCheckAt = 0;
  #lag = 0;
  #note: NoteStep | undefined;

  constructor(settings: ReaderSettings) {
    this.#settings = settings;
    this.#backoff = new Backoff({ minMs: settings.streamRetryMinMs, maxMs: settings.streamRetryMaxMs });
  }

  /** What is being read; undefined: nothing. A new object each time that reading begins. */
  get reading(): Reading | undefined {
    return this.#reading;
  }

  /** Up to where everything is done, as far as commits were confirmed. */
  get confirmed(): number {
    return this.#position;
  }

  /** How many messages are not done, as far as it is known. */
  get lag(): number {
    return this.#lag + this.#outstanding;
  }

  /**
   * Whether it reads, or is about to, what the row does not say any more: it was sent elsewhere, or another server has it, which
   * may lack commits that were confirmed.
   */
  isOutdated({ generation, server }: Pick<StreamState, "generation" | "server">): boolean {
    // What is taken anew is asked of Postgres in any case.
    if (this.state === undefined || this.#phase === "take") return false;
    return this.state.generation !== generation || this.state.server !== server;
  }

  /** More messages may come. */
  get hasRoom(): boolean {
    const { streamMessages, streamBytes, streamSpan } = this.#settings;
    if (this.#outstanding === 0) return true;
    return (
      this.#outstanding < streamMessages &&
      this.#outstandingBytes < streamBytes &&
      this.#unacknowledged.length < streamSpan
    );
  }

  /** How many more messages and bytes there is room for; one message always fits. */
  get room(): { readonly messages: number; readonly bytes: number } {
    const { streamMessages, streamBytes } = this.#settings;
    return {
      messages: Math.max(1, streamMessages - this.#outstanding),
      bytes: Math.max(1, streamBytes - this.#outstandingBytes),
    };
  }

  /** From when on {@link next} has a step. */
  get readyAt(): number {
    if (this.#out !== undefined || this.#phase === "paused") return Number.POSITIVE_INFINITY;
    if (this.#phase !== "reading") return this.#waitsUntil;
    if (this.#note !== undefined) return Number.NEGATIVE_INFINITY;
    const silentAt = this.hasRoom ? this.#heardAt + this.#settings.streamSilenceMs : Number.POSITIVE_INFINITY;
    return Math.min(this.#nextCheckAt, silentAt);
  }

  /** The next step; it is out until it is settled. */
  next(now: number): ReaderStep | undefined {
    if (this.readyAt > now) return undefined;
    if (this.#phase === "reading" && this.hasRoom && now >= this.#heardAt + this.#settings.streamSilenceMs) {
      this.restart(now);
      return undefined;
    }
    this.#out = this.#step(now);
    return this.#out;
  }

  /** Begins anew: what is in doubt, Postgres tells. */
  restart(now: number, distrusts = false): void {
    this.#reading = undefined;
    this.#waitsUntil = now + this.#backoff.failed();
    this.distrusts ||= distrusts;
    if (this.#out !== undefined) this.#isStale = true;
    this.#phase = "take";
    this.onReady();
  }

  /** The connection to NATS is another one, or the row was changed: what waited for something like that goes on. */
  wake(): void {
    this.#waitsUntil = Number.NEGATIVE_INFINITY;
    this.onReady();
  }

  settle(step: ReaderStep, outcome: ReaderOutcome, now: number): void {
    if (step !== this.#out) return;
    this.#out = undefined;
    if (this.#isStale) {
      this.#isStale = false;
      this.#phase = "take";
    } else if (outcome.kind === "unavailable" || outcome.kind === "problem") this.#failed(step, outcome, now);
    else if (outcome.kind === "moved") {
      this.#reading = undefined;
      this.#phase = "take";
      // What leads to this again and again is not to be tried without a pause.
      this.#waitsUntil = now + this.#backoff.failed();
    } else this.#settled(step, outcome, now);
    this.onReady();
  }

  /** The server has said that there is no message. */
  heard(now: number): void {
    this.asked(now);
    this.#backoff.reset();
  }

  /** Messages were asked for: from now on the server is to say something. */
  asked(now: number): void {
    this.#heardAt = now;
  }

  /**
   * A message was delivered.
   *
   * @returns its place if it is to be run; undefined: it is not, because it is done already, or because reading begins anew
   */
  receive({ number, nth, at, bytes, reply }: Delivery, pending: number, now: number): StreamPlace | undefined {
    if (this.#reading === undefined) return undefined;
    this.heard(now);
    this.#lag = pending;
    this.#deliveries += 1;
    if (nth !== this.#deliveries) {
      // Some were lost on their way, or somebody else takes from the consumer.
      this.restart(now, true);
      return undefined;
    }
    this.#unacknowledged.push({ number, reply });
    if (number <= this.received) return undefined;
    const from = this.received + 1;
    this.received = number;
    if (includes(this.state!.done, number)) {
      if (number > from) this.#void = union(this.#void, [[from, number - 1]]);
      return undefined;
    }
    const covers = this.coveredBy(from, number);
    const missing = this.#settings.hasFilter ? 0 : covers.reduce((sum, [a, b]) => sum + b - a + 1, 0) - 1;
    this.#void = [];
    this.#outstanding += 1;
    this.#outstandingBytes += bytes;
    return { number, covers, missing, at, bytes };
  }

  /** Messages are done: their commit was confirmed. */
  finished(places: readonly StreamPlace[]): void {
    if (this.#reading === undefined) return;
    const reached = lowest(this.#position, joined([...this.#done, ...places.flatMap(({ covers }) => covers)]));
    this.#position = reached.position;
    this.#done = reached.done;
    this.#outstanding -= places.length;
    for (const { bytes } of places) this.#outstandingBytes -= bytes;
    this.onReady();
  }

  /** The replies of what is to be acknowledged by now, in order. */
  takeAcknowledged(): string[] {
    const replies: string[] = [];
    for (let one = this.#unacknowledged.at(0); one !== undefined; one = this.#unacknowledged.at(0)) {
      if (one.number > this.acknowledgedTo) break;
      replies.push(one.reply);
      this.#unacknowledged.shift();
    }
    return replies;
  }

  protected get acknowledgedTo(): number {
    return this.#position;
  }

  /** Without what is done already. */
  protected coveredBy(from: number, number: number): Ranges {
    const own: Ranges = this.#void.length === 0 ? [[from, number]] : union(this.#void, [[from, number]]);
    const { done } = this.state!;
    return done.length === 0 || done.at(-1)![1] < own[0]![0] ? own : without(own, done);
  }

  #step(now: number): ReaderStep {
    const { state } = this;
    switch (this.#phase) {
      case "look":
        return { kind: "look", state: state! };
      case "record":
        return { kind: "record", state: state!, missing: this.#missing };
      case "prepare":
        return this.prepareStep();
      case "reading": {
        const note = this.#note;
        this.#note = undefined;
        if (note !== undefined) return note;
        this.#nextCheckAt = now + this.#settings.streamCheckMs;
        this.#receivedBefore = this.received;
        return { kind: "check", state: state! };
      }
      default:
        return { kind: "take" };
    }
  }

  protected plan(state: StreamState, look: StreamLook): Plan {
    return planOf(state, look, this.#settings.hasFilter);
  }

  protected prepareStep(): PrepareStep {
    const { position, start } = this.state!;
    const { consumers, retention } = this.#look!;
    const at = consumers.findIndex((one) => one !== undefined && !this.distrusts && this.isOfUse(one));
    const present = ([0, 1] as const).filter((nth) => consumers[nth] !== undefined);
    if (at >= 0) {
      const nth = at as 0 | 1;
      const deleteAfter = present.filter((each) => each !== nth);
      return { kind: "prepare", nth, isThere: true, from: { number: 0 }, retention, deleteBefore: [], deleteAfter };
    }
    // A work queue has one consumer at a time, and deletes nothing when that is deleted.
    const isQueue = retention === "workqueue";
    const nth = isQueue || present[0] !== 0 ? 0 : 1;
    const deleteBefore = isQueue ? present : present.filter((each) => each === nth);
    const from = position === undefined && "time" in start ? { time: start.time } : { number: (position ?? 0) + 1 };
    const deleteAfter = present.filter((each) => !deleteBefore.includes(each));
    return { kind: "prepare", nth, isThere: false, from, retention, deleteBefore, deleteAfter };
  }

  /** It delivers everything behind the position, and not much before it. */
  protected isOfUse({ fits, delivered }: ConsumerLook): boolean {
    const position = this.state!.position ?? -1;
    return fits && delivered <= position && position - delivered <= this.#settings.streamSkipMessages;
  }

  /** Another process has taken from it since the look: what that got would seem to be gone from the stream. */
  protected isBeyond({ delivered, deliveries }: Pick<Prepared, "delivered" | "deliveries">): boolean {
    return deliveries > 0 && delivered > (this.state!.position ?? -1);
  }

  #failed(step: ReaderStep, outcome: Extract<ReaderOutcome, { kind: "unavailable" | "problem" }>, now: number): void {
    this.#waitsUntil = now + this.#backoff.failed();
    if (step.kind === "check" || step.kind === "note") {
      // While it reads, silence tells of a server that is away.
      if (outcome.kind === "problem") this.restart(now);
      // With the next check.
      this.#noted = -1;
      return;
    }
    // Whether it was written is not known.
    this.#phase = step.kind === "record" || step.kind === "take" ? "take" : "look";
    if (outcome.kind === "problem" && this.state?.problem !== outcome.problem) {
      this.#tell(outcome.problem);
    }
  }

  #tell(problem: string): void {
    this.state = { ...this.state!, problem };
    this.#missing = undefined;
    this.#phase = "record";
    this.#afterRecord = "look";
  }

  #settled(step: ReaderStep, outcome: ReaderOutcome, now: number): void {
    if (step.kind === "take" && outcome.kind === "taken") {
      this.state = outcome.state;
      this.#phase = outcome.state.paused ? "paused" : "look";
    } else if (step.kind === "look" && outcome.kind === "seen") this.#seen(outcome.look, now);
    else if (step.kind === "record" && outcome.kind === "written") this.#recorded(now);
    else if (step.kind === "prepare" && outcome.kind === "prepared") this.#prepared(step, outcome, now);
    else if (step.kind === "check" && outcome.kind === "seen") this.#checked(outcome.look, now);
  }

  #seen(look: StreamLook, now: number): void {
    const before = this.state!;
    const plan = this.plan(before, look);
    this.#look = look;
    if (plan.kind === "problem") {
      this.#waitsUntil = now + this.#backoff.failed();
      if (before.problem === plan.problem) this.#phase = "look";
      else this.#tell(plan.problem);
      return;
    }
    if (plan.kind === "pause") {
      this.state = { ...before, paused: true, problem: setBack };
      this.#missing = undefined;
      this.#phase = "record";
      this.#afterRecord = "paused";
      return;
    }
    const { state, missing } = plan;
    // A problem is over when there is a consumer.
    this.state = state;
    this.#missing = missing;
    const isChanged = missing !== undefined || state.position !== before.position || state.created !== before.created;
    // Where it begins is known only when there is a consumer.
    this.#phase = isChanged && state.position !== undefined ? "record" : "prepare";
    this.#afterRecord = "prepare";
  }

  #recorded(now: number): void {
    this.#missing = undefined;
    this.#phase = this.#afterRecord;
    if (this.#phase === "reading") this.#begin(now);
  }

  #prepared(step: PrepareStep, { created, fits, delivered, deliveries }: Prepared, now: number): void {
    this.distrusts = false;
    // It was made anew since it was looked at.
    if (created !== this.state!.created) {
      this.restart(now);
      return;
    }
    if (this.isBeyond({ delivered, deliveries })) {
      this.restart(now, true);
      return;
    }
    this.#fitted = fits;
    this.#deliveries = deliveries;
    this.#reading = undefined;
    const { state } = this;
    const isTold = state!.position !== undefined && state!.problem === undefined;
    this.state = { ...state!, position: state!.position ?? delivered, problem: undefined };
    this.#pendingReading = { nth: step.nth, acknowledgesEach: step.retention === "workqueue" };
    this.#phase = isTold ? "reading" : "record";
    this.#afterRecord = "reading";
    if (isTold) this.#begin(now);
  }

  #pendingReading: Pick<Reading, "nth" | "acknowledgesEach"> | undefined;

  #begin(now: number): void {
    const { position, done, generation, server } = this.state!;
    this.#waitsUntil = Number.NEGATIVE_INFINITY;
    this.received = this.#position = position!;
    this.#done = done;
    this.#void = [];
    this.#outstanding = this.#outstandingBytes = 0;
    this.#unacknowledged.clear();
    this.#note = undefined;
    this.#heardAt = now;
    this.#nextCheckAt = now;
    this.#checkedDeliveries = -1;
    this.#reading = { ...this.#pendingReading!, generation, server };
  }

  /** What was seen of a stream that is being read. */
  #checked(look: StreamLook, now: number): void {
    if (this.#reading === undefined) return;
    const { created, nothingUntil } = this.state!;
    const consumer = look.consumers[this.#reading.nth];
    // Nothing has come since the last check, and more was delivered.
    const isLost =
      consumer !== undefined && consumer.deliveries > this.#deliveries && this.#deliveries === this.#checkedDeliveries;
    this.#checkedDeliveries = this.#deliveries;
    if (isLost) {
      this.restart(now, true);
      return;
    }
    const isOther = created !== look.created || look.last < this.#receivedBefore || consumer === undefined;
    const isChanged = this.#fitted && consumer?.fits === false;
    // What is gone without having been delivered is passed, and counted, by beginning anew. Without a filter the next message
    // tells of it.
    const { hasFilter } = this.#settings;
    const isTelling = hasFilter ? look.retention === "limits" : look.first > look.last;
    if (isOther || isChanged || (isTelling && look.first - 1 > Math.max(this.received, nothingUntil))) {
      this.restart(now);
      return;
    }
    const isDone = hasFilter && this.#outstanding === 0 && this.#position === this.received && consumer.pending === 0;
    const until = isDone && consumer.delivered <= this.received ? Math.max(nothingUntil, look.last) : nothingUntil;
    const lag = consumer.pending + this.#outstanding;
    if (until === nothingUntil && lag === this.#noted) return;
    this.#noted = lag;
    this.#lag = consumer.pending;
    this.state = { ...this.state!, nothingUntil: until };
    const { generation, server } = this.#reading;
    this.#note = { kind: "note", generation, server, lag, nothingUntil: until };
  }

  /** What had been received when the stream was asked: its answer can be older than what has come meanwhile. */
  #receivedBefore = 0;
  /** NATS told of the consumer what was asked for, so that another word of it is somebody's change. */
  #fitted = false;
  /** How many deliveries had come at the last check. */
  #checkedDeliveries = -1;
  /** The lag that was written last. */
  #noted = -1;
}

/** The numbers of the first that are not in the second. */
function without(own: Ranges, done: Ranges): Ranges {
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
