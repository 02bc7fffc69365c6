/**
 * A client of NATS that knows nothing of ours: publishes numbered messages, each once, to some subjects in turn.
 *
 * Each message asks for a reply, and nobody replies; so the server itself says of each one that no subscriber was there
 * for it (the status 503), and this client knows exactly which those are. The server answers pings in order with the
 * messages: what was published before an answered ping has been taken.
 *
 * The publisher outlives its server: messages in flight when the server died are never published again, and the numbers
 * continue with the next server that answers.
 */
import { performance } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { connect, createInbox, type NatsConnection } from "@nats-io/transport-node";
import { eventually } from "../../support/eventually.js";

/** A stretch of numbers, both ends included. */
export interface Stretch {
  readonly first: number;
  readonly last: number;
}

/** Server, subjects and rate of a publisher. */
export interface PublisherOptions {
  readonly natsUrl: string;
  /** The first message goes to the second of them: number modulo their count. */
  readonly subjects: readonly string[];
  readonly perSecond: number;
}

interface Taken {
  readonly id: number;
  /** Arrival time of the server's answer, by `performance.now()`. */
  readonly at: number;
}

const tickMs = 10;

/**
 * Period before the server's last answer whose messages may be lost: on a busy machine the answer can overtake messages to
 * other clients.
 */
const onItsWayMs = 250;

/** Payload of a message: its number, blank-padded to 100 bytes. */
function numberedPayload(id: number): string {
  return `${id}`.padEnd(100);
}

/** Disposing ends it. */
export class Publisher implements AsyncDisposable {
  /** The last number that was published; numbers begin with 1. */
  last = 0;
  /** Numbers for which the server had no subscriber. */
  readonly unheard = new Set<number>();
  /** Ranges of numbers that were in flight when the server died; they may be lost. */
  readonly underWay: Stretch[] = [];
  readonly #options: PublisherOptions;
  readonly #taken: Taken[] = [];
  #perSecond: number;
  #natsUrl: string;
  #loop: Promise<void> | undefined;
  #nats: NatsConnection | undefined;
  /** URL of the server that it is connected to. */
  #connectedTo = "";
  #isStopped = false;

  private constructor(options: PublisherOptions) {
    this.#options = options;
    this.#perSecond = options.perSecond;
    this.#natsUrl = options.natsUrl;
  }

  /** Makes one that waits for `begin`. */
  static async open(options: PublisherOptions): Promise<Publisher> {
    const publisher = new Publisher(options);
    publisher.#nats = await publisher.#connect();
    return publisher;
  }

  /** The subject of a number. */
  subjectOf(id: number): string {
    const { subjects } = this.#options;
    return subjects[id % subjects.length]!;
  }

  /** Publishes a message with the number 0, which counts for nothing, to all subjects. */
  async probe(): Promise<void> {
    for (const subject of this.#options.subjects) this.#nats!.publish(subject, numberedPayload(0));
    await this.#nats!.flush();
  }

  begin(): void {
    this.#loop ??= this.#run();
  }

  /** Publishes no more. Resolves when the server has taken everything. */
  async end(): Promise<void> {
    this.#isStopped = true;
    await this.#loop;
  }

  /** Resolves when so many more have been taken by the server. */
  async more(count: number): Promise<void> {
    const enough = this.last + count;
    await eventually(`${count} more messages are taken`, () => (this.#taken.at(-1)?.id ?? 0) >= enough, 60_000);
  }

  /** Publishes at another server. Resolves when nothing more is published at the last one. */
  async moveTo(natsUrl: string): Promise<void> {
    this.#natsUrl = natsUrl;
    await eventually("the publisher has moved", () => this.#connectedTo === natsUrl);
  }

  /** Changes the pace. */
  pace(perSecond: number): void {
    this.#perSecond = perSecond;
  }

  /** Publishes so many at once, at most at this pace: who reads too slowly is cut off by the server. */
  async burst(count: number, perSecond: number): Promise<void> {
    const nats = this.#nats!;
    const began = performance.now();
    for (let made = 0; made < count; ) {
      const size = Math.min(count - made, 500);
      this.#publish(nats, size);
      made += size;
      await nats.flush();
      await delay(Math.max(0, began + (made / perSecond) * 1_000 - performance.now()));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    await this.#nats?.close();
  }

  async #connect(): Promise<NatsConnection> {
    const servers = this.#natsUrl;
    const nats = await connect({ servers, reconnect: false, timeout: 1_000 });
    nats.subscribe(`${this.#inbox}.*`, {
      callback: (_error, { subject, headers }) => {
        if (headers?.code === 503) this.unheard.add(Number(subject.split(".").at(-1)));
      },
    });
    await nats.flush();
    this.#connectedTo = servers;
    return nats;
  }

  readonly #inbox = createInbox();

  async #run(): Promise<void> {
    let due = 0;
    while (!this.#isStopped) {
      if (this.#connectedTo !== this.#natsUrl) {
        await this.#nats?.close();
        this.#nats = undefined;
      }
      const nats = (this.#nats ??= await this.#connect().catch(() => undefined));
      if (nats === undefined) {
        await delay(tickMs);
        continue;
      }
      due += (this.#perSecond * tickMs) / 1_000;
      const count = Math.floor(due);
      due -= count;
      const before = this.last;
      this.#publish(nats, count);
      const { last } = this;
      // A ping whose server has died is never answered.
      const isTaken = await Promise.race([
        nats.flush().then(() => !nats.isClosed()),
        nats.closed().then(() => false),
      ]).catch(() => false);
      if (isTaken) this.#taken.push({ id: last, at: performance.now() });
      else {
        await nats.close();
        this.#nats = undefined;
        // Not before now: that the server is dead may be heard of late.
        const lastAnswerAt = this.#taken.at(-1)?.at ?? 0;
        const sure = this.#taken.findLast(({ at }) => at < lastAnswerAt - onItsWayMs)?.id ?? 0;
        this.underWay.push({ first: Math.min(sure, before) + 1, last });
      }
      await delay(tickMs);
    }
  }

  #publish(nats: NatsConnection, count: number): void {
    for (let n = 0; n < count; n++) {
      const id = this.last + 1;
      try {
        nats.publish(this.subjectOf(id), numberedPayload(id), { reply: `${this.#inbox}.${id}` });
      } catch {
        // The connection is closed: the next flush says so.
        return;
      }
      this.last = id;
    }
  }
}
