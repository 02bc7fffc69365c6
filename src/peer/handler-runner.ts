/**
 * Takes a channel's messages to the handler, one after another, and its results back to the channel.
 */

import { protocolConstants, storeConstants } from "../../generated/ts/settings/peer.js";
import type { DeadMessage, HandlerResult, IncomingMessage, ListenerChannel, Position } from "../channel/index.js";
import { HawserError, PeerError } from "../errors/index.js";
import { outcomeOf } from "../postgres/index.js";
import type { Transaction } from "../store/index.js";
import { isRefusedForGood } from "../store/index.js";
import { decompress } from "../wire/index.js";
import { asHawserError } from "./as-hawser-error.js";
import { done, failure, refused, sessionEnded, withTimeout } from "./handler-result.js";
import type { InboxServices, Source } from "./inbox-services.js";

/** How long messages are handled before the event loop has its turn; looked at once for so many messages. */
const turnMs = 5;
const messagesPerLook = 64;

/** What the runner needs of its channel's link. */
export interface RunnerLink {
  readonly channel: ListenerChannel;
  readonly source: Source;
  readonly inbox: InboxServices;
  readonly isClosed: boolean;
  /** The channel's deadline may have moved. */
  arm(): void;
  /** Calls back after a while, unless the link is closed by then. */
  later(callback: () => void, delayMs: number): void;
}

export class HandlerRunner {
  /** The newest handled position that the committer has not been given. */
  #handled: Position | undefined;
  /** The running message's payload, uncompressed. */
  #plain: Uint8Array | undefined;
  #whenIdle: (() => void)[] = [];

  readonly #link: RunnerLink;

  constructor(link: RunnerLink) {
    this.#link = link;
  }

  /** Resolves when no handler of this channel runs. */
  async idle(): Promise<void> {
    if (this.#link.channel.isHandling) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  /** Nobody waits any more. */
  close(): void {
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** The channel's cursor is to be committed. */
  commit(cursor: Position, dead: DeadMessage | undefined): void {
    if (dead === undefined) {
      this.#handled = cursor;
      return;
    }
    this.#handled = undefined;
    if (!this.#link.isClosed) this.#link.inbox.commit(this.#link.source.connectionKey, cursor, dead, this.#plain);
  }

  /** Handles what waits, as far as handlers are free and the event loop's turn goes. */
  run(): void {
    // Its turn may come when all is over, with messages that wait for the next start.
    const link = this.#link;
    if (link.isClosed) return;
    const { channel, inbox } = link;
    const until = now() + turnMs;
    let at = until - turnMs;
    for (let count = 0; !link.isClosed; count++) {
      if (channel.isHandling) break;
      if (count % messagesPerLook === 0) {
        at = now();
        if (at > until) break;
        if (!inbox.lease.isWritable) {
          link.later(() => inbox.wake(this), storeConstants.leasePollMs);
          this.#commitHandled();
          return;
        }
      }
      if (!inbox.takeSlot()) {
        inbox.wake(this);
        break;
      }
      const message = channel.take(at);
      if (message === undefined) {
        inbox.freeSlot();
        this.#commitHandled();
        link.arm();
        return;
      }
      const pending = this.#begin(message, at);
      if (pending !== undefined) {
        pending.then(
          (result) => this.#finishLater(result),
          (error) => this.#finishLater(failure(error)),
        );
        this.#commitHandled();
        link.arm();
        return;
      }
      inbox.freeSlot();
      this.#tellIdle();
    }
    this.#commitHandled();
    link.arm();
    if (!channel.isHandling && channel.waitingMessages > 0) inbox.wake(this);
  }

  /** Starts the handler. A promise when it did not finish at once. */
  #begin(message: IncomingMessage, at: number): Promise<HandlerResult> | undefined {
    const { inbox, channel } = this.#link;
    this.#plain = undefined;
    const topic = inbox.topicOf(message.topicKey);
    if (typeof topic !== "string" || message.encoding !== undefined || inbox.settings.transactional) {
      return this.#beginLater(message, topic);
    }
    this.#plain = message.payload;
    try {
      const returned = this.#call(message, topic, message.payload, undefined);
      if (isThenable(returned)) return this.#await(returned);
      channel.finish(done, at);
    } catch (error) {
      channel.finish(failure(error), at);
    }
    this.#plain = undefined;
    return undefined;
  }

  async #beginLater(
    message: IncomingMessage,
    topicFound: string | Promise<string | undefined>,
  ): Promise<HandlerResult> {
    const { inbox } = this.#link;
    let topic: string | undefined;
    try {
      topic = await topicFound;
    } catch (error) {
      inbox.logger.debug({ err: error }, "could not look up a topic; its message waits");
      return { kind: "postponed" };
    }
    try {
      this.#plain = message.payload;
      if (topic === undefined) {
        return refused("unsubscribed", `topic key ${message.topicKey} is not in the catalog`);
      }
      const { encoding } = message;
      if (encoding !== undefined) {
        const { compression, uncompressedBytes } = encoding;
        // The limit is one of the wire: a stored message is handled whatever its length, as a plain one is.
        const maxMessageBytes = message.fromWire
          ? inbox.settings.maxMessageBytes
          : protocolConstants.maxStoredMessageBytes;
        try {
          this.#plain = await decompress(message.payload, compression, uncompressedBytes, maxMessageBytes);
        } catch (error) {
          // It will not be another payload the next time.
          const { code, message: why } = asHawserError(error);
          return refused(code, why);
        }
      }
      if (inbox.settings.transactional) return await this.#inTransaction(message, topic, this.#plain);
      return await this.#await(this.#call(message, topic, this.#plain, undefined));
    } catch (error) {
      return failure(error);
    }
  }

  /** Handles a message in a transaction that also moves the cursor. */
  async #inTransaction(message: IncomingMessage, topic: string, payload: Uint8Array): Promise<HandlerResult> {
    const { inbox, source } = this.#link;
    this.#mayBegin(topic);
    const thrown: { error?: unknown } = {};
    let begun = false;
    let ended = false;
    const handler = async (client: Transaction): Promise<void> => {
      begun = true;
      try {
        // A handler that is late must not go on writing outside of its transaction: its connection is closed.
        await this.#bounded(this.#call(message, topic, payload, client), () => void endClient(client));
        ended = true;
      } catch (error) {
        thrown.error = error;
        throw error;
      }
    };
    try {
      if (message.position === undefined) {
        await inbox.store.runInTransaction(handler);
        return done;
      }
      const place = { connectionKey: source.connectionKey, ...message.position };
      // The lease may be renewed on another server while the handler runs; what it does belongs to the epoch of now.
      const { name, epoch } = inbox.lease;
      const outcome = await inbox.store.handleInTransaction({ name, epoch }, place, handler);
      if (this.#link.isClosed) return { kind: "postponed" };
      if (outcome === "fenced") inbox.nameLost("a transaction was refused");
      else if (outcome === "notOwned") inbox.notOwned(source.connectionKey);
      else return { kind: "committed" };
    } catch (error) {
      if ("error" in thrown && Object.is(error, thrown.error)) throw error;
      // At most once: whatever it did may be committed.
      if (begun && message.position === undefined) throw error;
      // Postgres refuses what the handler left behind: a swallowed error, a deferred constraint, a lost right.
      if (ended && isHandlersFault(error)) throw error;
      const failed = asHawserError(error);
      inbox.status.tell({ kind: "listener_store_error", message: failed.message, error: failed });
      if (begun && outcomeOf(failed.cause) === "unknown")
        return sessionEnded(inbox.settings.maxAttempts, failed.message);
    }
    return { kind: "postponed" };
  }

  #call(message: IncomingMessage, topic: string, payload: Uint8Array, client: Transaction | undefined): unknown {
    const { inbox, source, channel } = this.#link;
    this.#mayBegin(topic);
    return inbox.handle({ message, to: topic, source, payload, attempt: channel.attempt, client });
  }

  #mayBegin(topic: string): void {
    const { inbox, channel } = this.#link;
    if (!inbox.serves(topic)) {
      throw new PeerError("unsubscribed", `"${inbox.sender.name}" does not subscribe to "${topic}" any more`);
    }
    if (channel.isExhausted) {
      const { maxAttempts } = inbox.settings;
      throw new PeerError(
        "handler_crashed",
        `the process, or its session with Postgres, ended in the middle of its handler ${maxAttempts} times`,
      );
    }
  }

  async #await(returned: unknown): Promise<HandlerResult> {
    try {
      await this.#bounded(returned);
      return done;
    } catch (error) {
      return failure(error);
    }
  }

  async #bounded(returned: unknown, late?: () => void): Promise<void> {
    const { handlerTimeoutMs } = this.#link.inbox.settings;
    if (handlerTimeoutMs === undefined) await returned;
    else await withTimeout(returned, handlerTimeoutMs, late);
  }

  #finishLater(result: HandlerResult): void {
    const { inbox, channel } = this.#link;
    inbox.freeSlot();
    channel.finish(result, now());
    this.#plain = undefined;
    this.#tellIdle();
    if (this.#link.isClosed) return;
    if (inbox.othersWait()) {
      this.#commitHandled();
      this.#link.arm();
      inbox.wake(this);
    } else this.run();
  }

  #tellIdle(): void {
    this.#link.inbox.handlerEnded();
    if (this.#whenIdle.length === 0 || this.#link.channel.isHandling) return;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** One commit for everything that was handled in this turn. */
  #commitHandled(): void {
    const handled = this.#handled;
    if (handled === undefined) return;
    this.#handled = undefined;
    const { inbox, source, isClosed } = this.#link;
    if (!isClosed) inbox.commit(source.connectionKey, handled, undefined, undefined);
  }
}

/** The handler has ended its transaction, or left what Postgres refuses to commit. */
function isHandlersFault(error: unknown): boolean {
  return (HawserError.is(error) && error.code === "handler_failed") || isRefusedForGood(error);
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    (typeof value === "object" || typeof value === "function") &&
    value !== null &&
    typeof (value as { then?: unknown }).then === "function"
  );
}

function endClient(client: Transaction): Promise<void> {
  return (client as Transaction & { end(): Promise<void> }).end().catch(() => undefined);
}

function now(): number {
  return performance.now();
}
