/**
 * Messages that a process keeps while another one leads, to run them if it has to take over.
 *
 * A message may go only when the leader is known to have done it. Both receive it, but not at the same time: hence what the
 * leader received `takeoverBufferMs` later counts as not done. As long as nothing is known of the leader's progress,
 * everything stays, up to the limit in bytes.
 *
 * Of what came before the leader had begun to receive, its progress says nothing: that was for an earlier leader to do. What is
 * not known to be done by that one, nobody may run but this process, which hands it over.
 *
 * The limit is three quarters of the memory that there is for messages: with what comes after a takeover, which nobody else
 * has, there is room for all that is repeated. What a process itself has left undone may have the last quarter, too.
 */
import { type BridgeConstants, bridgeConstants, type ServeSettings } from "../../../generated/ts/settings/nats.js";
import { Fifo } from "../../runtime/index.js";
import { type InboundMessage, memoryOf } from "../message.js";
import { doneBefore, type LeaderProgress } from "./progress.js";

/**
 * Limits of the buffer. `bufferBytes` are those of a leader, counted as {@link memoryOf} does. With `takeoverBufferMs` 0
 * nothing is kept but what this process itself has left undone. After a leader that has ended in good order
 * `cleanTakeoverMs` counts, if it is less.
 */
export type TakeoverBufferLimits = Pick<ServeSettings, "bufferBytes" | "takeoverBufferMs"> &
  Pick<BridgeConstants, "cleanTakeoverMs">;

/** A message with what it is to be run for. */
export interface KeptMessage {
  readonly message: InboundMessage;
  /** The ids of the subscriptions that it was received for. */
  readonly subscriptions: readonly bigint[];
  /** This process led when it received it, and has not done it: nobody else may have it. */
  readonly isOwn: boolean;
}

/** Bytes that are kept of messages received while another process leads. @param bufferBytes memory for all messages */
export function standbyBytes(bufferBytes: number): number {
  return bufferBytes - bufferBytes / bridgeConstants.bufferReserveDivisor;
}

/** The buffer; times are of `performance.now()`. */
export class TakeoverBuffer {
  readonly #limits: TakeoverBufferLimits;
  readonly #kept = new Fifo<KeptMessage>();
  readonly #missing = new MissingMessages();
  #bytes = 0;
  #progress: LeaderProgress | undefined;
  /** The last that was told, and the last before what was told began later. */
  #told: LeaderProgress | undefined;
  #former: LeaderProgress | undefined;
  #completeSince: number;

  /** @param since from when on it is given all that is received */
  constructor(limits: TakeoverBufferLimits, since: number) {
    this.#limits = limits;
    this.#completeSince = since;
  }

  /** Number of messages that are kept. */
  get length(): number {
    return this.#kept.length;
  }

  /** Bytes that the messages count for in memory. */
  get bytes(): number {
    return this.#bytes;
  }

  get oldestReceivedAt(): number | undefined {
    return this.#kept.at(0)?.message.receivedAt;
  }

  /**
   * Of what was received since then, everything is here that the leader is not known to have done. A process that keeps
   * nothing lacks nothing.
   */
  get completeSince(): number {
    return this.#limits.takeoverBufferMs === 0 ? Number.NEGATIVE_INFINITY : this.#completeSince;
  }

  /** The same also where nothing is kept. */
  get receivedSince(): number {
    return this.#completeSince;
  }

  /**
   * A message was received, not before those that were added before.
   *
   * @param isOwn this process led when it received it, and has not done it: nobody else may have it
   */
  add(message: InboundMessage, subscriptions: readonly bigint[], isOwn = false): void {
    const { bufferBytes, takeoverBufferMs } = this.#limits;
    if (takeoverBufferMs === 0 && !isOwn) return;
    const bytes = memoryOf(message);
    if (bytes > bufferBytes) {
      this.#lack({ message, subscriptions, isOwn });
      return;
    }
    for (let oldest = this.#kept.at(0); oldest !== undefined; oldest = this.#kept.at(0)) {
      if (this.#bytes + bytes <= (oldest.isOwn ? bufferBytes : standbyBytes(bufferBytes))) break;
      this.#lack(this.#shift());
    }
    this.#bytes += bytes;
    this.#kept.push({ message, subscriptions, isOwn });
  }

  /** What the leader has done. undefined: not known, so that nothing goes. */
  noteProgress(progress: LeaderProgress | undefined): void {
    this.#progress = progress;
    if (progress === undefined) return;
    const { cleanTakeoverMs, takeoverBufferMs } = this.#limits;
    // Another leader, or one that has received nothing for a while.
    if (this.#told !== undefined && progress.completeSince > this.#told.completeSince + cleanTakeoverMs)
      this.#former = this.#told;
    this.#told = progress;
    this.#trim(takeoverBufferMs);
  }

  /**
   * What the present leader has not received and will not run, and the one before is not known to have done. It stays until it
   * is {@link dropped}.
   */
  get unknownToLeader(): readonly KeptMessage[] {
    const unknown: KeptMessage[] = [];
    for (let at = 0; at < this.#kept.length; at += 1) {
      const kept = this.#kept.at(at)!;
      if (this.#isUnknown(kept)) unknown.push(kept);
    }
    return unknown;
  }

  /** Removes messages that another process has taken. */
  dropped(messages: ReadonlySet<InboundMessage>): void {
    if (messages.size > 0) this.#filter((kept) => (messages.has(kept.message) ? undefined : kept));
  }

  /**
   * Hands out the messages that are to be run, in order of arrival, and empties the buffer.
   *
   * @param afterCleanEnd the leader has stopped gracefully
   */
  takeOver({ afterCleanEnd }: { readonly afterCleanEnd: boolean }): KeptMessage[] {
    const { takeoverBufferMs, cleanTakeoverMs } = this.#limits;
    this.#trim(afterCleanEnd ? Math.min(takeoverBufferMs, cleanTakeoverMs) : takeoverBufferMs);
    const all: KeptMessage[] = [];
    while (this.#kept.length > 0) all.push(this.#shift());
    this.#progress = this.#told = this.#former = undefined;
    return all;
  }

  /**
   * Hands out the messages that no other process may have, in order of arrival, and keeps the rest.
   *
   * @param since the leader receives nothing any more since then
   */
  takeOwn(since = Number.POSITIVE_INFINITY): KeptMessage[] {
    const own: KeptMessage[] = [];
    // As after a clean end: the leader ends, too.
    const lackedSince = since - this.#limits.cleanTakeoverMs;
    this.#filter((kept) => {
      if (!kept.isOwn && !this.#isUnknown(kept) && kept.message.receivedAt < lackedSince) return kept;
      own.push(kept);
      return undefined;
    });
    return own;
  }

  /**
   * What there was no room for, and would have been handed out by a `takeOver` right before: how many messages of each
   * subscription. To be asked once, as it is forgotten.
   */
  takeMissing(): ReadonlyMap<bigint, number> {
    return this.#missing.take();
  }

  /**
   * This process leads no more, and is given again what is received. What it had not done by then is to be added first:
   * should the next leader end soon, nobody else may have it.
   *
   * @param since when the oldest of that was received, or now
   */
  restart(since: number): void {
    this.#progress = undefined;
    this.#completeSince = since;
  }

  #trim(marginMs: number): void {
    const progress = this.#progress;
    if (progress === undefined) return;
    this.#missing.forget((id) => doneBefore(progress, id) - marginMs);
    let next = this.#kept.at(0);
    for (; next !== undefined && this.#undone(next, marginMs).length === 0; next = this.#kept.at(0)) this.#shift();
    // Else those behind it are not done, either.
    if (next === undefined || (progress.behind.size === 0 && !this.#isUnknown(next))) return;
    this.#filter((kept) => {
      const subscriptions = this.#undone(kept, marginMs);
      if (subscriptions.length === kept.subscriptions.length) return kept;
      return subscriptions.length === 0 ? undefined : { ...kept, subscriptions };
    });
  }

  /** Those of its subscriptions for which it is not known to be done. */
  #undone({ message, subscriptions }: KeptMessage, marginMs: number): readonly bigint[] {
    const isOfFormer = this.#isBeforeIts(this.#progress!, message);
    // With the margin of a clean end: each process that waits hands it over.
    const progress = isOfFormer ? this.#former : this.#progress!;
    if (progress === undefined || (isOfFormer && this.#isBeforeIts(progress, message))) return subscriptions;
    const usedMs = isOfFormer ? Math.min(marginMs, this.#limits.cleanTakeoverMs) : marginMs;
    return subscriptions.filter((id) => message.receivedAt >= doneBefore(progress, id) - usedMs);
  }

  #isUnknown({ message }: KeptMessage): boolean {
    return this.#progress !== undefined && this.#isBeforeIts(this.#progress, message);
  }

  /** It may have come before that leader received anything. Both receive a message, but not at the same time. */
  #isBeforeIts({ completeSince }: LeaderProgress, { receivedAt, notBefore = receivedAt }: InboundMessage): boolean {
    return notBefore < completeSince + this.#limits.cleanTakeoverMs;
  }

  /** Keeps what `change` gives back of each. */
  #filter(change: (kept: KeptMessage) => KeptMessage | undefined): void {
    for (let left = this.#kept.length; left > 0; left -= 1) {
      const kept = this.#kept.shift()!;
      const changed = change(kept);
      if (changed === undefined) this.#bytes -= memoryOf(kept.message);
      else this.#kept.push(changed);
    }
  }

  #lack({ message: { receivedAt }, subscriptions }: KeptMessage): void {
    this.#completeSince = receivedAt;
    this.#missing.add(receivedAt, subscriptions);
  }

  #shift(): KeptMessage {
    const kept = this.#kept.shift()!;
    this.#bytes -= memoryOf(kept.message);
    return kept;
  }
}

/** How long a span is, in milliseconds, before spans are joined. */
const spanMs = 100;

/** As many as a takeover buffer of the default time has, and some more. Beyond that the oldest are joined. */
const maxSpans = 256;

interface Span {
  readonly beganAt: number;
  /** When the last of them was received. */
  endedAt: number;
  readonly counts: Map<bigint, number>;
}

/**
 * What a takeover buffer had no room for: how many messages, by subscription, and when they were received. They are lost only
 * if this process takes over before it knows that the leader has done them.
 *
 * Times are kept in spans, so that memory is bounded: a message counts as not done until its whole span is known to be done.
 */
export class MissingMessages {
  /** Spans, the oldest first. */
  readonly #spans: Span[] = [];

  /** Adds a message for which there was no room. */
  add(receivedAt: number, subscriptions: readonly bigint[]): void {
    let span = this.#spans.at(-1);
    if (span === undefined || receivedAt >= span.beganAt + spanMs) {
      span = { beganAt: receivedAt, endedAt: receivedAt, counts: new Map() };
      this.#spans.push(span);
      if (this.#spans.length > maxSpans) this.#joinOldest();
    }
    // Not in order: a message that is too large is missing at once, older ones only when they make room.
    span.endedAt = Math.max(span.endedAt, receivedAt);
    for (const id of subscriptions) count(span.counts, id, 1);
  }

  /** Removes messages that the leader has done. @param before time before which those of a subscription are done */
  forget(before: (subscription: bigint) => number): void {
    for (const { endedAt, counts } of this.#spans) {
      for (const id of counts.keys()) if (endedAt < before(id)) counts.delete(id);
    }
    const left = this.#spans.filter(({ counts }) => counts.size > 0);
    this.#spans.splice(0, this.#spans.length, ...left);
  }

  /** Returns how many messages of each subscription are missing, and forgets them. */
  take(): Map<bigint, number> {
    const all = new Map<bigint, number>();
    for (const { counts } of this.#spans.splice(0)) {
      for (const [id, more] of counts) count(all, id, more);
    }
    return all;
  }

  #joinOldest(): void {
    const [oldest, next] = this.#spans.splice(0, 2) as [Span, Span];
    for (const [id, more] of next.counts) count(oldest.counts, id, more);
    this.#spans.unshift({ ...oldest, endedAt: Math.max(oldest.endedAt, next.endedAt) });
  }
}

function count(counts: Map<bigint, number>, id: bigint, more: number): void {
  counts.set(id, (counts.get(id) ?? 0) + more);
}
