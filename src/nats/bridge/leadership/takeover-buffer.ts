/**
 * Buffer of messages that a process keeps while another one is the leader, to run them after a takeover.
 *
 * A message is removed only when the leader has certainly finished it. Both processes receive a message, but not at the
 * same time, so messages that the leader received up to `takeoverBufferMs` later count as unfinished. While the
 * leader's progress is unknown, everything stays, up to the limit in bytes.
 *
 * The leader's progress does not cover messages from before it started to receive; an earlier leader was to run them.
 * If that leader is not known to have finished such a message, this process saves it for the leader, which cannot get
 * it otherwise.
 *
 * The limit is three quarters of the memory for messages: this leaves room for messages that arrive after a takeover,
 * which no other process has. Messages that this process itself left unfinished may use the last quarter too.
 */

import type { ServeSettings } from "../../../../generated/ts/settings/nats.js";
import { Fifo } from "../../../foundation/runtime/index.js";
import { type InboundMessage, memoryOf } from "../message.js";
import { bufferReserveDivisor } from "../queue/index.js";
import { doneBefore, type LeaderProgress } from "./progress.js";

/** After a clean stop of a leader: how far back before its end the next one repeats, at most. */
export const cleanTakeoverMs = 500;

/**
 * Limits of the buffer. `bufferBytes` is the memory for all messages, counted as by {@link memoryOf}. If
 * `takeoverBufferMs` is 0, only messages that this process itself left unfinished are kept. After a leader that stopped
 * gracefully, the margin is `cleanTakeoverMs`, unless `takeoverBufferMs` is smaller.
 */
export type TakeoverBufferLimits = Pick<ServeSettings, "bufferBytes" | "takeoverBufferMs"> & {
  readonly cleanTakeoverMs: number;
};

/** A message with the subscriptions to run it for. */
export interface KeptMessage {
  readonly message: InboundMessage;
  /** Ids of the subscriptions. */
  readonly subscriptions: readonly bigint[];
  /**
   * True if this process was the leader when it received the message, and did not finish it. No other process may have
   * it.
   */
  readonly isOwn: boolean;
}

/**
 * Limit of the memory for messages that were received while another process is the leader.
 *
 * @param bufferBytes memory for all messages
 */
export function standbyBytes(bufferBytes: number): number {
  return bufferBytes - bufferBytes / bufferReserveDivisor;
}

/** Takeover buffer of a process. Its times are those of `performance.now()`. */
export class TakeoverBuffer {
  readonly #limits: TakeoverBufferLimits;
  readonly #kept = new Fifo<KeptMessage>();
  readonly #missing = new MissingMessages();
  #bytes = 0;
  #progress: LeaderProgress | undefined;
  /** Last known progress, even if the current one is unknown. */
  #lastProgress: LeaderProgress | undefined;
  /** Last known progress of the previous leader, or of this one before a gap in its reception. */
  #formerProgress: LeaderProgress | undefined;
  #completeSince: number;

  /** @param since time from which on every received message is added */
  constructor(limits: TakeoverBufferLimits, since: number) {
    this.#limits = limits;
    this.#completeSince = since;
  }

  /** Number of messages that are kept. */
  get length(): number {
    return this.#kept.length;
  }

  /** Memory of all kept messages. */
  get bytes(): number {
    return this.#bytes;
  }

  get oldestReceivedAt(): number | undefined {
    return this.#kept.at(0)?.message.receivedAt;
  }

  /**
   * Time since which the buffer has everything that the leader may not have finished. If the buffer is turned off
   * (`takeoverBufferMs` 0), nothing counts as missing.
   */
  get completeSince(): number {
    return this.#limits.takeoverBufferMs === 0 ? Number.NEGATIVE_INFINITY : this.#completeSince;
  }

  /** Time since which this process has received everything, and has had room for what it is to keep. */
  get receivedSince(): number {
    return this.#completeSince;
  }

  /**
   * Adds a message, in order of arrival.
   *
   * @param isOwn true if this process was the leader when it received the message, and did not finish it
   */
  add(message: InboundMessage, subscriptions: readonly bigint[], isOwn = false): void {
    const { bufferBytes, takeoverBufferMs } = this.#limits;
    if (takeoverBufferMs === 0 && !isOwn) return;
    const bytes = memoryOf(message);
    if (bytes > bufferBytes) {
      this.#addMissing({ message, subscriptions, isOwn });
      return;
    }
    for (let oldest = this.#kept.at(0); oldest !== undefined; oldest = this.#kept.at(0)) {
      if (this.#bytes + bytes <= (oldest.isOwn ? bufferBytes : standbyBytes(bufferBytes))) break;
      this.#addMissing(this.#shift());
    }
    this.#bytes += bytes;
    this.#kept.push({ message, subscriptions, isOwn });
  }

  /** Removes messages that the leader has finished. Nothing is removed if its progress is unknown. */
  noteProgress(progress: LeaderProgress | undefined): void {
    this.#progress = progress;
    if (progress === undefined) return;
    const { cleanTakeoverMs, takeoverBufferMs } = this.#limits;
    // The time has increased, so the leader has changed, or has received nothing for a while.
    if (this.#lastProgress !== undefined && progress.completeSince > this.#lastProgress.completeSince + cleanTakeoverMs)
      this.#formerProgress = this.#lastProgress;
    this.#lastProgress = progress;
    this.#trim(takeoverBufferMs);
  }

  /**
   * Messages that the current leader did not receive, and that the one before is not known to have finished. They stay
   * until {@link remove} is called.
   */
  get unknownToLeader(): readonly KeptMessage[] {
    return [...this.#kept].filter((kept) => this.#isUnknown(kept));
  }

  /** Removes messages that were saved for the leader. */
  remove(messages: ReadonlySet<InboundMessage>): void {
    if (messages.size > 0) this.#filter((kept) => (messages.has(kept.message) ? undefined : kept));
  }

  /**
   * Returns the messages to run, in order of arrival, and empties the buffer.
   *
   * @param afterCleanEnd true if the leader has stopped gracefully
   */
  takeOver({ afterCleanEnd }: { readonly afterCleanEnd: boolean }): KeptMessage[] {
    const { takeoverBufferMs, cleanTakeoverMs } = this.#limits;
    this.#trim(afterCleanEnd ? Math.min(takeoverBufferMs, cleanTakeoverMs) : takeoverBufferMs);
    const all: KeptMessage[] = [];
    while (this.#kept.length > 0) all.push(this.#shift());
    this.#progress = this.#lastProgress = this.#formerProgress = undefined;
    return all;
  }

  /**
   * Returns the messages that no other process may have, in order of arrival, and keeps the rest.
   *
   * @param since time from which on the leader has received nothing
   */
  takeOwn(since = Number.POSITIVE_INFINITY): KeptMessage[] {
    const own: KeptMessage[] = [];
    // The margin is that of a graceful stop, because the leader stops, too.
    const lackedSince = since - this.#limits.cleanTakeoverMs;
    this.#filter((kept) => {
      if (!kept.isOwn && !this.#isUnknown(kept) && kept.message.receivedAt < lackedSince) return kept;
      own.push(kept);
      return undefined;
    });
    return own;
  }

  /**
   * Counts, by subscription, of messages that were not kept for lack of memory, and that a `takeOver` just before would
   * have returned. Resets the counts.
   */
  takeMissing(): ReadonlyMap<bigint, number> {
    return this.#missing.take();
  }

  /**
   * Starts to keep messages after this process stopped leading, or after a gap in its reception. The unfinished
   * messages of a former leader are added next, because no other process may have them if the next leader ends soon.
   *
   * @param since time from which on the buffer gets every message: receive time of the oldest unfinished one, or now
   */
  restart(since: number): void {
    this.#progress = undefined;
    this.#completeSince = since;
  }

  #trim(marginMs: number): void {
    const progress = this.#progress;
    if (progress === undefined) return;
    this.#missing.removeDone((id) => doneBefore(progress, id) - marginMs);
    let next = this.#kept.at(0);
    for (; next !== undefined && this.#unfinishedFor(next, marginMs).length === 0; next = this.#kept.at(0))
      this.#shift();
    // If no subscription is behind, and the leader has received this message, all later messages are unfinished, too.
    if (next === undefined || (progress.behind.size === 0 && !this.#isUnknown(next))) return;
    this.#filter((kept) => {
      const subscriptions = this.#unfinishedFor(kept, marginMs);
      if (subscriptions.length === kept.subscriptions.length) return kept;
      return subscriptions.length === 0 ? undefined : { ...kept, subscriptions };
    });
  }

  /** Subscriptions of the message for which the leader is not known to have finished it. */
  #unfinishedFor({ message, subscriptions }: KeptMessage, marginMs: number): readonly bigint[] {
    const isOfFormer = this.#mayPrecede(this.#progress!, message);
    // For messages of the former leader, the margin is that of a graceful stop, because each waiting process saves
    // them.
    const progress = isOfFormer ? this.#formerProgress : this.#progress!;
    if (progress === undefined || (isOfFormer && this.#mayPrecede(progress, message))) return subscriptions;
    const usedMs = isOfFormer ? Math.min(marginMs, this.#limits.cleanTakeoverMs) : marginMs;
    return subscriptions.filter((id) => message.receivedAt >= doneBefore(progress, id) - usedMs);
  }

  #isUnknown({ message }: KeptMessage): boolean {
    return this.#progress !== undefined && this.#mayPrecede(this.#progress, message);
  }

  /**
   * True if the message may have arrived before the leader received anything. Both receive a message, but not at the
   * same time.
   */
  #mayPrecede({ completeSince }: LeaderProgress, { receivedAt, notBefore = receivedAt }: InboundMessage): boolean {
    return notBefore < completeSince + this.#limits.cleanTakeoverMs;
  }

  /** Replaces each message by the result of `change`; undefined removes it. */
  #filter(change: (kept: KeptMessage) => KeptMessage | undefined): void {
    for (let left = this.#kept.length; left > 0; left -= 1) {
      const kept = this.#kept.shift()!;
      const changed = change(kept);
      if (changed === undefined) this.#bytes -= memoryOf(kept.message);
      else this.#kept.push(changed);
    }
  }

  #addMissing({ message: { receivedAt }, subscriptions }: KeptMessage): void {
    this.#completeSince = receivedAt;
    this.#missing.add(receivedAt, subscriptions);
  }

  #shift(): KeptMessage {
    const kept = this.#kept.shift()!;
    this.#bytes -= memoryOf(kept.message);
    return kept;
  }
}

/** Length of a span, in milliseconds. */
const spanMs = 100;

/** Maximum number of spans, more than the default `takeoverBufferMs` has. Beyond it, the oldest two are joined. */
const maxSpans = 256;

interface Span {
  readonly startedAt: number;
  /** Receive time of the last message. */
  endedAt: number;
  readonly counts: Map<bigint, number>;
}

/**
 * Counts of messages for which a takeover buffer had no room, by subscription and receive time. They are lost only if
 * this process takes over before the leader is known to have finished them.
 *
 * To bound the memory, receive times are grouped into spans: a message counts as unfinished until its whole span is
 * finished.
 */
export class MissingMessages {
  /** Spans, the oldest first. */
  readonly #spans: Span[] = [];

  /** Counts a message for which there was no room. */
  add(receivedAt: number, subscriptions: readonly bigint[]): void {
    let span = this.#spans.at(-1);
    if (span === undefined || receivedAt >= span.startedAt + spanMs) {
      span = { startedAt: receivedAt, endedAt: receivedAt, counts: new Map() };
      this.#spans.push(span);
      if (this.#spans.length > maxSpans) this.#joinOldest();
    }
    // Calls are not in order of arrival: a message above the limit is missing at once, while older ones are removed
    // later, to make room.
    span.endedAt = Math.max(span.endedAt, receivedAt);
    for (const id of subscriptions) count(span.counts, id, 1);
  }

  /** Removes messages that the leader has finished. @param before time before which those of a subscription are done */
  removeDone(before: (subscription: bigint) => number): void {
    for (const { endedAt, counts } of this.#spans) {
      for (const id of counts.keys()) if (endedAt < before(id)) counts.delete(id);
    }
    const left = this.#spans.filter(({ counts }) => counts.size > 0);
    this.#spans.splice(0, this.#spans.length, ...left);
  }

  /** Returns the counts by subscription, and resets them. */
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
