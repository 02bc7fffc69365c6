/**
 * Messages for a group none of whose members has room: they wait here, in their order, and belong to no listener yet.
 *
 * A message leaves as soon as a member has room. One that has waited for `ackTimeoutMs` goes to the member that will be done
 * with it first, as far as that can be told: its channel stores it when it must. So does everything if no member can take
 * messages over its connection, and when the peer stops.
 */
import type { TuningSettings } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { DeadlineTimer, Fifo } from "../runtime/index.js";
import { asHawserError } from "./context.js";
import type { Outgoing } from "./outgoing.js";
import type { SenderLink } from "./sender-link.js";
import type { StatusTeller } from "./status.js";

/** The members of a group, as the queue sees them. */
export interface GroupMembers {
  readonly topic: string;
  /** A member that has room for a message of this length; its link. */
  withRoom(bytes: number, now: number): SenderLink | undefined;
  /** Whether waiting is of use: a member may soon have room. */
  mayHaveRoom(): boolean;
  /**
   * Who gets a message that waits no more; undefined if all that can be reached have too many already.
   *
   * @throws HawserError (as a rejection) if nobody can
   */
  forLater(bytes: number, now: number): SenderLink | Promise<SenderLink> | undefined;
}

interface Waiting {
  readonly message: Outgoing;
  readonly since: number;
}

type Settings = Pick<TuningSettings, "ackTimeoutMs" | "maxSendQueueMessages" | "maxSendQueueBytes">;

/** After which members whose queues are full are asked again. */
const whenFullMs = 50;

export class GroupQueue {
  readonly #waiting = new Fifo<Waiting>();
  #bytes = 0;
  /** Those whose listener is being looked for. */
  readonly #leaving = new Set<Promise<void>>();
  readonly #timer = new DeadlineTimer(() => this.pump());
  #isPumping = false;
  /** A send was refused because the queue was full, and none was taken since. */
  #full = false;
  #stopping = false;
  #whenEmpty: (() => void)[] = [];
  #ended: HawserError | undefined;

  readonly #members: GroupMembers;
  readonly #settings: Settings;
  readonly #status: StatusTeller;

  constructor(members: GroupMembers, settings: Settings, status: StatusTeller) {
    this.#members = members;
    this.#settings = settings;
    this.#status = status;
  }

  /** Messages wait, or their listener is being looked for. */
  get isEmpty(): boolean {
    return this.#waiting.length === 0 && this.#leaving.size === 0;
  }

  /** The message waits; its promise is rejected with `busy` if too many do. */
  push(message: Outgoing): void {
    const { maxSendQueueMessages, maxSendQueueBytes } = this.#settings;
    const { length } = this.#waiting;
    if (this.#ended !== undefined) {
      message.fail(this.#ended);
      return;
    }
    if (length >= maxSendQueueMessages || (length > 0 && this.#bytes + message.payload.length > maxSendQueueBytes)) {
      this.#refuse(message);
      return;
    }
    this.#full = false;
    const since = performance.now();
    this.#waiting.push({ message, since });
    this.#bytes += message.payload.length;
    if (length === 0) this.#timer.arm(since + this.#settings.ackTimeoutMs);
  }

  /** Something has changed: gives what waits to members that have room, and what has waited long enough to any. */
  pump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    try {
      const now = performance.now();
      while (this.#giveFirst(now));
    } finally {
      this.#isPumping = false;
    }
    if (this.isEmpty) for (const resolve of this.#whenEmpty.splice(0)) resolve();
  }

  /** @returns whether the next one may leave, too */
  #giveFirst(now: number): boolean {
    const first = this.#waiting.at(0);
    if (first === undefined) return false;
    const { message, since } = first;
    const { length } = message.payload;
    let to: ReturnType<GroupMembers["forLater"]> = this.#members.withRoom(length, now);
    const until = since + this.#settings.ackTimeoutMs;
    if (to === undefined && !this.#stopping && now < until && this.#members.mayHaveRoom()) {
      this.#timer.arm(until);
      return false;
    }
    to ??= this.#members.forLater(length, now);
    if (to === undefined) {
      this.#timer.arm(now + whenFullMs);
      return false;
    }
    this.#waiting.shift();
    this.#bytes -= length;
    if (to instanceof Promise) this.#giveLater(message, to);
    else to.take(message);
    return true;
  }

  /** Nothing waits here any more: all is given to listeners. Resolves when it is. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.pump();
    if (!this.isEmpty) await new Promise<void>((resolve) => this.#whenEmpty.push(resolve));
  }

  /** What waits is rejected: it was never sent. */
  end(why: HawserError): void {
    this.#ended ??= why;
    this.#timer.stop();
    for (let first = this.#waiting.shift(); first !== undefined; first = this.#waiting.shift()) {
      first.message.fail(this.#ended);
    }
    this.#bytes = 0;
    for (const resolve of this.#whenEmpty.splice(0)) resolve();
  }

  #giveLater(message: Outgoing, to: Promise<SenderLink>): void {
    const leaving = to
      .then(
        (link) => (this.#ended === undefined ? link.take(message) : message.fail(this.#ended)),
        (error) => message.fail(asHawserError(error)),
      )
      .finally(() => {
        this.#leaving.delete(leaving);
        this.pump();
      });
    this.#leaving.add(leaving);
  }

  #refuse(message: Outgoing): void {
    const { topic } = this.#members;
    const text = `${this.#waiting.length} messages wait for a member of "${topic}" to have room already`;
    message.fail(new HawserError("busy", `${text}; await earlier sends first, or raise maxSendQueueMessages`));
    // Told once, until there was room again: a status for each refused send would be a flood.
    if (this.#full) return;
    this.#full = true;
    this.#status.tell({ kind: "sender_busy", topic, peer: "", message: text });
  }
}
