/** State of each message, dead letter and queue that the simulation knows but the queues do not. */

import { type InboundMessage, memoryOf } from "../../../src/nats/bridge/message.js";
import type { SubscriptionQueue } from "../../../src/nats/bridge/queue/index.js";
import { Violation } from "../records.js";

export function must(holds: boolean, rule: string): void {
  if (!holds) throw new Violation(rule);
}

/** Effect of a message on the function. */
export type Nature = "good" | "fails" | "kills its session" | "hangs" | "transient";

export class SimulatedMessage implements InboundMessage {
  readonly id: string;
  readonly headers = undefined;
  readonly payload: Uint8Array;
  readonly memory: number;
  /** Number of runs, which its dead letter must contain. */
  runs = 0;
  commits = 0;
  /** In the table of dead letters. */
  deadLettered = false;
  /** The code of what happened while it was alone, which makes it a dead letter. */
  guilt: string | undefined;
  lossesAlone = 0;
  /** Largest number of messages in the next batch, after an earlier one failed. */
  mostTogether = Number.POSITIVE_INFINITY;

  constructor(
    readonly number: number,
    readonly subject: string,
    readonly nature: Nature,
    /** Number of transient failures before it succeeds. */
    public transientRuns: number,
    payloadBytes: number,
    readonly receivedAt: number,
  ) {
    this.id = `m${number}`;
    this.payload = new Uint8Array(payloadBytes);
    this.memory = memoryOf(this);
  }
}

export class SimulatedQueue {
  /** All that were accepted, in order; those before {@link done} are committed or deadLettered. */
  readonly accepted: SimulatedMessage[] = [];
  done = 0;
  /** So many of {@link accepted} may be handed out. */
  open = Number.POSITIVE_INFINITY;
  /** A step is out. */
  busy = false;
  /** Deposed, stopped or closed. */
  over = false;
  closed = false;
  failuresInARow = 0;
  /** The pause ends in between. */
  pauseFrom = Number.NEGATIVE_INFINITY;
  pauseTo = Number.NEGATIVE_INFINITY;
  /** True while the queue pauses because Postgres was away. */
  waitsForPostgres = false;
  /** The next batch has to have so many messages. */
  repeat: number | undefined;
  /** Steps that others got while it was ready. */
  passedOver = 0;
  lastNewCommit = 0;

  constructor(
    readonly queue: SubscriptionQueue,
    readonly role: string,
    readonly costMs: number,
    readonly natures: readonly Nature[],
  ) {}

  get oldest(): SimulatedMessage | undefined {
    return this.accepted[this.done];
  }

  /** The oldest that may be handed out. */
  get next(): SimulatedMessage | undefined {
    return this.done < this.open ? this.oldest : undefined;
  }

  get hasWork(): boolean {
    return !this.busy && !this.over && this.next !== undefined;
  }

  get memory(): number {
    if (this.closed) return 0;
    return this.accepted.slice(this.done).reduce((sum, { memory }) => sum + memory, 0);
  }
}
