/**
 * Queue of messages for a group whose members have no room. Queued messages keep their order and belong to no listener
 * yet.
 *
 * A message leaves the queue as soon as a member has room. After `ackTimeoutMs` it goes to the member that is estimated
 * to finish it first, whose channel stores it if necessary. All messages go to members in this way if no member can
 * take messages over its connection, and when the peer stops.
 */
import { asHawserError, HawserError } from "../../../foundation/errors/index.js";
import { DeadlineTimer, Fifo, Waiters } from "../../../foundation/runtime/index.js";
import type { PeerContext } from "../core/context.js";
import type { Outgoing } from "./outgoing.js";
import type { SenderLink } from "./sender-link.js";
import type { TopicRoutes } from "./topic-routes.js";

/**
 * Link for a message to a group without reachable members. @throws HawserError (as a rejection) if the group has no
 * listener, or none that accepts a message of this length
 */
type LinkForLater = (routes: TopicRoutes, bytes: number) => Promise<SenderLink>;

interface QueuedSend {
  readonly message: Outgoing;
  readonly since: number;
}

/** Delay in ms before members with full queues are tried again. */
const fullRetryMs = 50;

export class GroupQueue {
  readonly #waiting = new Fifo<QueuedSend>();
  #bytes = 0;
  /** Pending lookups of listeners for messages that have left the queue. */
  readonly #lookups = new Set<Promise<void>>();
  readonly #timer = new DeadlineTimer(() => this.pump());
  #isPumping = false;
  /** True from a send that was rejected for a full queue until the next accepted message. */
  #isFull = false;
  #stopping = false;
  readonly #whenEmpty = new Waiters();
  #ended: HawserError | undefined;

  readonly #context: Pick<PeerContext, "settings" | "status">;
  readonly #routes: TopicRoutes;
  readonly #linkForLater: LinkForLater;

  constructor(context: PeerContext, routes: TopicRoutes, linkForLater: LinkForLater) {
    this.#context = context;
    this.#routes = routes;
    this.#linkForLater = linkForLater;
  }

  /** True if no message waits and no listener lookup is pending. */
  get isEmpty(): boolean {
    return this.#waiting.length === 0 && this.#lookups.size === 0;
  }

  /** Adds a message; its promise is rejected with `busy` if the queue is full. */
  push(message: Outgoing): void {
    const { maxSendQueueMessages, maxSendQueueBytes } = this.#context.settings;
    const { length } = this.#waiting;
    if (this.#ended !== undefined) {
      message.fail(this.#ended);
      return;
    }
    if (length >= maxSendQueueMessages || (length > 0 && this.#bytes + message.payload.length > maxSendQueueBytes)) {
      this.#reject(message);
      return;
    }
    this.#isFull = false;
    const since = performance.now();
    this.#waiting.push({ message, since });
    this.#bytes += message.payload.length;
    if (length === 0) this.#timer.arm(since + this.#context.settings.ackTimeoutMs);
  }

  /**
   * Hands messages to members that have room, and overdue messages to any member. Called after each change of the
   * members.
   */
  pump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    try {
      const now = performance.now();
      while (this.#handOverFirst(now));
    } finally {
      this.#isPumping = false;
    }
    if (this.isEmpty) this.#whenEmpty.settle();
  }

  /** @returns true if the next message can be tried, too */
  #handOverFirst(now: number): boolean {
    const first = this.#waiting.at(0);
    if (first === undefined) return false;
    const { message, since } = first;
    const { length } = message.payload;
    const routes = this.#routes;
    let to: SenderLink | Promise<SenderLink> | undefined = routes.chooseWithRoom(length, now);
    const until = since + this.#context.settings.ackTimeoutMs;
    if (to === undefined && !this.#stopping && now < until && routes.isGroup && routes.mayHaveRoom()) {
      this.#timer.arm(until);
      return false;
    }
    to ??= routes.chooseSoonest(length, now);
    if (to === undefined && !routes.isReachable()) to = this.#linkForLater(routes, length);
    if (to === undefined) {
      // The queues of all reachable members are full.
      this.#timer.arm(now + fullRetryMs);
      return false;
    }
    this.#waiting.shift();
    this.#bytes -= length;
    if (to instanceof Promise) this.#handOverAfter(message, to);
    else to.offer(message);
    return true;
  }

  /** Hands all messages to listeners. Resolves when the queue is empty. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.pump();
    if (!this.isEmpty) await this.#whenEmpty.next();
  }

  /** Rejects all messages, which were never sent. */
  end(why: HawserError): void {
    this.#ended ??= why;
    this.#timer.stop();
    for (let first = this.#waiting.shift(); first !== undefined; first = this.#waiting.shift()) {
      first.message.fail(this.#ended);
    }
    this.#bytes = 0;
    this.#whenEmpty.settle();
  }

  #handOverAfter(message: Outgoing, to: Promise<SenderLink>): void {
    const lookup = to
      .then(
        (link) => (this.#ended === undefined ? link.offer(message) : message.fail(this.#ended)),
        (error) => message.fail(asHawserError(error)),
      )
      .finally(() => {
        this.#lookups.delete(lookup);
        this.pump();
      });
    this.#lookups.add(lookup);
  }

  #reject(message: Outgoing): void {
    const { topic } = this.#routes;
    const text = `${this.#waiting.length} messages already wait for a member of "${topic}" to have room`;
    message.fail(new HawserError("busy", `${text}; await earlier sends first, or raise maxSendQueueMessages`));
    // The status is reported once until the queue has room again: one for each rejected send would be a flood.
    if (this.#isFull) return;
    this.#isFull = true;
    this.#context.status.report({ kind: "sender_busy", topic, peer: "", message: text });
  }
}
