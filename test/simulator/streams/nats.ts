/** A stream of NATS and its consumers, as the reader sees them. */
import type { ConsumerState, Prepared, PrepareStep, StreamInfo } from "../../../src/nats/bridge/streams/reader.js";

export interface Stored {
  readonly uid: number;
  readonly number: number;
  readonly at: bigint;
  readonly token: number;
}

interface Consumer {
  next: number;
  deliveries: number;
  ackFloor: number;
}

export class SimulatedStream {
  readonly retention: "limits" | "interest";
  created: number;
  last = 0;
  messages: Stored[] = [];
  consumers: (Consumer | undefined)[] = [undefined, undefined];

  constructor(retention: "limits" | "interest", created: number) {
    this.retention = retention;
    this.created = created;
  }

  get first(): number {
    return this.messages[0]?.number ?? this.last + 1;
  }

  /** Whether somebody will take it. */
  publish(uid: number, token: number, at: bigint): boolean {
    this.last += 1;
    const isKept = this.retention === "limits" || this.consumers.some((one) => one !== undefined);
    if (isKept) this.messages.push({ uid, number: this.last, at, token });
    return isKept;
  }

  look(lastDone: number | undefined): StreamInfo {
    const stored = this.messages.find(({ number }) => number === lastDone);
    return {
      created: String(this.created),
      first: this.first,
      last: this.last,
      retention: this.retention,
      overwrites: false,
      lastDoneAt: stored?.at,
      consumers: [this.#lookOf(0), this.#lookOf(1)],
    };
  }

  prepare({ nth, exists: isThere, from, deleteBefore, deleteAfter }: PrepareStep): Prepared {
    for (const each of deleteBefore) this.delete(each);
    if (!isThere) {
      const next = "number" in from ? from.number : 1;
      this.consumers[nth] = { next: Math.max(next, 1), deliveries: 0, ackFloor: next - 1 };
    }
    for (const each of deleteAfter) this.delete(each);
    const made = this.consumers[nth]!;
    return { created: String(this.created), fits: true, delivered: made.next - 1, deliveries: made.deliveries };
  }

  /** The last consumer of a stream with interest retention takes everything with it. */
  delete(nth: number): void {
    if (this.consumers[nth] === undefined) return;
    this.consumers[nth] = undefined;
    this.#forgetAcknowledged();
  }

  deliver(nth: number): { stored: Stored; nth: number; pending: number } | undefined {
    const consumer = this.consumers[nth];
    const stored = consumer && this.messages.find(({ number }) => number >= consumer.next);
    if (consumer === undefined || stored === undefined) return undefined;
    consumer.next = stored.number + 1;
    consumer.deliveries += 1;
    return { stored, nth: consumer.deliveries, pending: this.#pendingOf(consumer) };
  }

  acknowledge(nth: number, number: number): void {
    const consumer = this.consumers[nth];
    if (consumer === undefined || number <= consumer.ackFloor) return;
    consumer.ackFloor = number;
    this.#forgetAcknowledged();
  }

  #forgetAcknowledged(): void {
    if (this.retention === "limits") return;
    const floors = this.consumers.flatMap((one) => (one === undefined ? [] : [one.ackFloor]));
    const floor = floors.length === 0 ? this.last : Math.min(...floors);
    this.messages = this.messages.filter(({ number }) => number > floor);
  }

  #pendingOf({ next }: Consumer): number {
    return this.messages.filter(({ number }) => number >= next).length;
  }

  #lookOf(nth: number): ConsumerState | undefined {
    const consumer = this.consumers[nth];
    if (consumer === undefined) return undefined;
    const { next, deliveries, ackFloor } = consumer;
    return { fits: true, delivered: next - 1, deliveries, ackFloor, pending: this.#pendingOf(consumer) };
  }
}
