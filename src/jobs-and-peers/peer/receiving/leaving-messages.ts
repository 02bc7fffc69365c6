/**
 * Messages that leave a channel for the queue: their payloads are uncompressed for it, and this process goes on with those whose handlers
 * run, as the worker that has their rows.
 */
import { asHawserError } from "../../../foundation/errors/index.js";
import type { HandlerResult, IncomingMessage, LeavingMessage, StartedMessage } from "../../channel/index.js";
import {
  type CommittedCursors,
  type LeftMessage,
  leftMessage,
  QueuedMessage,
  type QueuePlace,
} from "../../store/index.js";
import type { Source } from "./channel-message.js";
import type { Receiver } from "./receiver.js";

/** Message whose handler runs, from its leaving to its end. */
interface GoingOn {
  readonly turn: StartedMessage;
  /** Ends the row; undefined while that is not committed. */
  end: ((result: HandlerResult) => void) | undefined;
  result: HandlerResult | undefined;
}

/** Listening end of a channel. */
interface LeavingLink {
  readonly source: Source;
  /** A message becomes a dead letter. */
  givenUp(message: IncomingMessage, errorCode: string, errorMessage: string): void;
}

export class LeavingMessages {
  /** Messages that leave with the next commit. */
  #leaving: LeavingMessage[] = [];
  #left: LeftMessage[] = [];
  readonly #goingOn = new Map<StartedMessage, GoingOn>();
  readonly #byMessage = new Map<LeftMessage, GoingOn>();
  /** Resolves when no payload is being uncompressed. */
  prepared: Promise<void> = Promise.resolve();
  isPreparing = false;

  readonly #receiver: Receiver;
  readonly #link: LeavingLink;

  constructor(receiver: Receiver, link: LeavingLink) {
    this.#receiver = receiver;
    this.#link = link;
  }

  add(leaving: readonly LeavingMessage[]): void {
    for (const each of leaving) {
      this.#leaving.push(each);
      const turn = each.turn as StartedMessage | undefined;
      if (turn !== undefined) this.#goingOn.set(turn, { turn, end: undefined, result: undefined });
    }
  }

  /**
   * Takes the messages for a commit.
   *
   * @param ready called when they can be taken, if payloads have to be uncompressed before
   * @returns undefined in that case
   */
  take(ready: () => void): readonly LeftMessage[] | undefined {
    if (this.#leaving.length > 0) {
      const leaving = this.#leaving;
      this.#leaving = [];
      if (!leaving.some(isCompressed)) for (const each of leaving) this.#left.push(this.#leftOf(each, each.plain));
      else {
        this.isPreparing = true;
        this.prepared = this.#prepare(leaving).then(() => {
          this.isPreparing = false;
          ready();
        });
        return undefined;
      }
    }
    return this.#left.splice(0);
  }

  async #prepare(leaving: readonly LeavingMessage[]): Promise<void> {
    const { channelCalls } = this.#receiver;
    for (const each of leaving) {
      let { dead, plain } = each;
      try {
        if (isCompressed(each)) plain = await channelCalls.uncompressed(each.message);
      } catch (error) {
        const { code: errorCode, message: errorMessage } = asHawserError(error);
        // What is wrong with its row says why.
        if (each.message.fault === undefined) dead ??= { errorCode, errorMessage };
      }
      this.#left.push(this.#leftOf({ ...each, dead }, plain));
    }
  }

  #leftOf(
    { message, attempts, failures, dueAt, isSuspect, turn, dead }: LeavingMessage,
    plain?: Uint8Array,
  ): LeftMessage {
    const { channelCalls, worker, context } = this.#receiver;
    const left = leftMessage(this.#link.source, message, {
      payload: plain ?? message.payload,
      listener: channelCalls.serves(message.topicId) ? context.sender.name : undefined,
      delayMs: dueAt === undefined ? 0 : Math.max(0, dueAt - performance.now()),
      worker: turn === undefined ? undefined : worker.current,
      ...{ attempts, failures, isSuspect, dead },
    });
    if (left.dead !== undefined) this.#link.givenUp(message, left.dead.errorCode, left.dead.errorMessage);
    const goingOn = turn && this.#goingOn.get(turn as StartedMessage);
    if (goingOn !== undefined) this.#byMessage.set(left, goingOn);
    return left;
  }

  /** True while it is not known whether this process has the row of a message whose handler runs. */
  get isPending(): boolean {
    for (const { end } of this.#goingOn.values()) if (end === undefined) return true;
    return false;
  }

  /** The messages are rows of the queue now, or dead letters. */
  onCommitted(left: readonly LeftMessage[], rows: CommittedCursors["rows"]): void {
    const { channelCalls, worker } = this.#receiver;
    const due = new Set<string>();
    for (const message of left) {
      const topic = channelCalls.topics.known(message.topicId);
      const goingOn = this.#byMessage.get(message);
      if (goingOn === undefined) {
        if (topic === undefined || message.dead !== undefined) continue;
        if (message.delayMs > 0) worker.wants(topic, message.delayMs);
        else due.add(topic);
        continue;
      }
      this.#byMessage.delete(message);
      const row = rows.get(message);
      goingOn.end = row === undefined ? () => undefined : this.#endOf(message, row, goingOn.turn);
      if (goingOn.result !== undefined) goingOn.end(goingOn.result);
    }
    for (const topic of due) worker.wants(topic, 0);
  }

  /** Function that ends the row of a message. While the name of the topic is looked up, for which its handler waits, the row is not named. */
  #endOf(message: LeftMessage, row: Pick<QueuePlace, "role" | "rank">, turn: StartedMessage): GoingOn["end"] & object {
    const { channelCalls, worker } = this.#receiver;
    const adopt = () => {
      // As the row has it.
      const topic = channelCalls.topics.known(message.topicId) ?? `topic id ${message.topicId}`;
      return worker.adopt(this.#queuedOf(message, topic, row), message.worker!, turn);
    };
    if (channelCalls.topics.known(message.topicId) !== undefined) return adopt();
    return (result) => adopt()(result);
  }

  /** The handler of a message has ended. @returns false if the message has not left while it ran */
  finish(turn: StartedMessage, result: HandlerResult): boolean {
    const goingOn = this.#goingOn.get(turn);
    if (goingOn === undefined) return false;
    this.#goingOn.delete(turn);
    goingOn.result = result;
    goingOn.end?.(result);
    return true;
  }

  #queuedOf(message: LeftMessage, topic: string, { role, rank }: Pick<QueuePlace, "role" | "rank">): QueuedMessage {
    const { context } = this.#receiver;
    const { lane, channelId, listener, payload, headers, attempts } = message;
    const recipient = listener === undefined ? "" : `@${listener}`;
    const row = {
      ...{ topic, recipient, role, rank, key: `${channelId}:${lane}`, attempts },
      ...{ isSuspect: false, wasRunning: false, isUnique: false, isKept: false },
    };
    return new QueuedMessage(row, rank, { payload, headers, fault: undefined }, context.store.queue.server);
  }
}

function isCompressed({ message, plain }: LeavingMessage): boolean {
  return message.encoding !== undefined && plain === undefined;
}
