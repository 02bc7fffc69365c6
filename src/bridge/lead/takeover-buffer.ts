/**
 * What a process that does not lead keeps of the messages that it receives, too: it runs them if it has to take over.
 *
 * A message may go only when the leader is known to have done it. Both receive it, but not at the same time: hence what the
 * leader received `takeoverBufferMs` later counts as not done. As long as nothing is known of the leader's progress,
 * everything stays, up to the limit in bytes.
 *
 * The limit is three quarters of the memory that there is for messages: with what comes after a takeover, which nobody else
 * has, there is room for all that is repeated. What a process itself has left undone may have the last quarter, too.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { Fifo } from "../../channel/fifo.js";
import { type InboundMessage, memoryOf } from "../message.js";
import { doneBefore, type LeaderProgress } from "./known-progress.js";
import { MissingMessages } from "./missing-messages.js";

/** How much is kept. */
export interface TakeoverBufferLimits {
  /** For all messages together, as a leader; counted as {@link memoryOf} does. */
  readonly bufferBytes: number;
  /** 0: nothing is kept but what this process itself has left undone. */
  readonly takeoverBufferMs: number;
  /** In its place after a leader that has ended in good order, if it is less. */
  readonly cleanTakeoverMs: number;
}

/** A message with what it is to be run for. */
export interface KeptMessage {
  readonly message: InboundMessage;
  /** The ids of the subscriptions that it was received for. */
  readonly subscriptions: readonly bigint[];
  /** This process led when it received it, and has not done it, or nobody led: nobody else may have it. */
  readonly isOwn: boolean;
}

/** What became of messages, since the beginning. */
export interface TakeoverCounts {
  /** Received while another process led. */
  readonly added: number;
  /** The leader had done them. */
  readonly done: number;
  /** There was no room: the oldest went, although the leader was not known to have done them. */
  readonly full: number;
  /** Larger alone than all there is room for. */
  readonly tooLarge: number;
  /** Nothing is kept, by the settings. */
  readonly notKept: number;
  /** Were to be run after a takeover. The last leader may have run them, too. */
  readonly repeated: number;
}

/** How much is kept of what was received while another process led. */
export function standbyBytes(bufferBytes: number): number {
  return bufferBytes - bufferBytes / bridgeConstants.bufferReserveDivisor;
}

/** See above. Times are of `performance.now()`. */
export class TakeoverBuffer {
  readonly #limits: TakeoverBufferLimits;
  readonly #kept = new Fifo<KeptMessage>();
  readonly #missing = new MissingMessages();
  #bytes = 0;
  #progress: LeaderProgress | undefined;
  #leaderHasSince = Number.NEGATIVE_INFINITY;
  #completeSince: number;
  readonly #counts = { added: 0, done: 0, full: 0, tooLarge: 0, notKept: 0, repeated: 0 };

  /** @param since from when on it is given all that is received */
  constructor(limits: TakeoverBufferLimits, since: number) {
    this.#limits = limits;
    this.#completeSince = since;
  }

  /** Messages that are kept. */
  get length(): number {
    return this.#kept.length;
  }

  /** What they count for in memory. */
  get bytes(): number {
    return this.#bytes;
  }

  get oldestReceivedAt(): number | undefined {
    return this.#kept.at(0)?.message.receivedAt;
  }

  get counts(): TakeoverCounts {
    return { ...this.#counts };
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
   * @param isOwn this process led when it received it, and has not done it, or nobody led: nobody else may have it
   */
  add(message: InboundMessage, subscriptions: readonly bigint[], isOwn = false): void {
    this.#counts.added += 1;
    const { bufferBytes, takeoverBufferMs } = this.#limits;
    if (takeoverBufferMs === 0 && !isOwn) {
      this.#counts.notKept += 1;
      return;
    }
    const bytes = memoryOf(message);
    if (bytes > bufferBytes) {
      this.#counts.tooLarge += 1;
      this.#lack({ message, subscriptions, isOwn });
      return;
    }
    for (let oldest = this.#kept.at(0); oldest !== undefined; oldest = this.#kept.at(0)) {
      if (this.#bytes + bytes <= (oldest.isOwn ? bufferBytes : standbyBytes(bufferBytes))) break;
      this.#lack(this.#shift());
      this.#counts.full += 1;
    }
    this.#bytes += bytes;
    this.#kept.push({ message, subscriptions, isOwn });
  }

  /** What the leader has done. undefined: not known, so that nothing goes. */
  noteProgress(progress: LeaderProgress | undefined): void {
    this.#progress = progress;
    // Both receive a message, but not at the same time.
    this.#leaderHasSince = (progress?.completeSince ?? Number.NEGATIVE_INFINITY) + this.#limits.cleanTakeoverMs;
    this.#trim(this.#limits.takeoverBufferMs);
  }

  /**
   * What this process left undone as the leader, and the present one has not received and will not run. It stays until it is
   * {@link dropped}. (Of what others led for, whoever had it took the lead.)
   */
  get unknownToLeader(): readonly KeptMessage[] {
    const unknown: KeptMessage[] = [];
    for (let at = 0; at < this.#kept.length; at += 1) {
      const kept = this.#kept.at(at)!;
      if (this.#progress === undefined || !this.#isUnknown(kept)) break;
      unknown.push(kept);
    }
    return unknown;
  }

  /** These are in other hands. */
  dropped(messages: ReadonlySet<InboundMessage>): void {
    for (let next = this.#kept.at(0); next !== undefined && messages.has(next.message); next = this.#kept.at(0))
      this.#shift();
  }

  /**
   * Hands out what is to be run, in order of arrival, and is empty.
   *
   * @param afterCleanEnd the leader has ended in good order
   */
  takeOver({ afterCleanEnd }: { readonly afterCleanEnd: boolean }): KeptMessage[] {
    const { takeoverBufferMs, cleanTakeoverMs } = this.#limits;
    this.#trim(afterCleanEnd ? Math.min(takeoverBufferMs, cleanTakeoverMs) : takeoverBufferMs);
    const all: KeptMessage[] = [];
    while (this.#kept.length > 0) all.push(this.#shift());
    this.#counts.repeated += all.length;
    this.#progress = undefined;
    return all;
  }

  /**
   * Hands out what this process itself has left undone, in order of arrival, and keeps the rest.
   *
   * @param since what was received from then on goes with it
   */
  takeOwn(since = Number.POSITIVE_INFINITY): KeptMessage[] {
    const own: KeptMessage[] = [];
    for (let left = this.#kept.length; left > 0; left -= 1) {
      const kept = this.#kept.shift()!;
      if (kept.isOwn || kept.message.receivedAt >= since) {
        this.#bytes -= memoryOf(kept.message);
        own.push(kept);
      } else this.#kept.push(kept);
    }
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
    const allBefore = doneBefore(progress) - marginMs;
    for (let next = this.#kept.at(0); next !== undefined; next = this.#kept.at(0)) {
      if (next.message.receivedAt >= allBefore || this.#isUnknown(next)) break;
      this.#shift();
      this.#counts.done += 1;
    }
    if (progress.behind.size > 0) this.#trimEach((id) => doneBefore(progress, id) - marginMs);
  }

  /** What is done of a message goes, and what one of its subscriptions has not done stays. */
  #trimEach(before: (subscription: bigint) => number): void {
    for (let left = this.#kept.length; left > 0; left -= 1) {
      const kept = this.#kept.shift()!;
      const { message, subscriptions } = kept;
      const undone = this.#isUnknown(kept)
        ? subscriptions
        : subscriptions.filter((id) => message.receivedAt >= before(id));
      if (undone.length > 0) {
        this.#kept.push(undone.length === subscriptions.length ? kept : { ...kept, subscriptions: undone });
        continue;
      }
      this.#bytes -= memoryOf(message);
      this.#counts.done += 1;
    }
  }

  #isUnknown({ isOwn, message }: KeptMessage): boolean {
    return isOwn && message.receivedAt < this.#leaderHasSince;
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
