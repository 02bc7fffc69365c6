/**
 * A role that only wants its messages to arrive: by a call, by the outbox to NATS, and by the outbox to a peer.
 */
import type pg from "pg";
import { eventually } from "../../../support/eventually.js";
import type { HostileWorld } from "./world.js";

/** Ways that its messages go. */
export const ways = ["published", "enqueued for NATS", "enqueued for a peer"] as const;
export type Way = (typeof ways)[number];

const statements: Readonly<Record<Way, string>> = {
  published: "SELECT nats_publish_text('canary.published', $1)",
  "enqueued for NATS": "SELECT hawser.enqueue('canary.enqueued', $1, stream => false, key => 'canary')",
  "enqueued for a peer": "SELECT hawser.enqueue('canary-topic', $1, key => 'canary')",
};

/** Sends until it is told to end. */
export class Canary {
  readonly #world: HostileWorld;
  readonly #sentAt = new Map<string, { readonly way: Way; readonly at: number }>();
  /** The longest calls, by way, in milliseconds. */
  readonly longestCallMs = new Map<Way, number>();
  readonly #work: Promise<void>[];
  #isOver = false;

  private constructor(world: HostileWorld, clients: ReadonlyMap<Way, pg.Client>, name: string) {
    this.#world = world;
    this.#work = [...clients].map(([way, client]) => this.#send(client, way, name));
    // `end` tells.
    for (const work of this.#work) work.catch(() => undefined);
  }

  /** Begins with a session for each way. @param name of the run, which stands in its messages */
  static async start(world: HostileWorld, name: string): Promise<Canary> {
    const clients = new Map<Way, pg.Client>();
    for (const way of ways) clients.set(way, await world.session(world.canary, "canary"));
    return new Canary(world, clients, name);
  }

  async #send(client: pg.Client, way: Way, name: string): Promise<void> {
    for (let nth = 1; !this.#isOver; nth++) {
      const text = `${name} ${way} ${nth}`;
      const at = performance.now();
      this.#sentAt.set(text, { way, at });
      await client.query(statements[way], [text]).catch((error: pg.DatabaseError) => {
        throw new Error(`${text}: ${error.message}: ${error.detail}`);
      });
      this.longestCallMs.set(way, Math.max(this.longestCallMs.get(way) ?? 0, performance.now() - at));
      // A single message in flight, so that each wait is the latency of one message.
      await eventually(`${text} arrives`, () => this.#world.arrivedAt.has(text), arrivalMs);
    }
  }

  /**
   * Ends, when the last messages have arrived.
   *
   * @returns the longest wait from call to arrival by way, in milliseconds
   */
  async end(): Promise<ReadonlyMap<Way, number>> {
    this.#isOver = true;
    await Promise.all(this.#work);
    const longest = new Map<Way, number>();
    for (const [text, { way, at }] of this.#sentAt) {
      longest.set(way, Math.max(longest.get(way) ?? 0, this.#world.arrivedAt.get(text)! - at));
    }
    return longest;
  }
}

/** Time in milliseconds after which a message of the canary counts as lost. */
const arrivalMs = 120_000;
