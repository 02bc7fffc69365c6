/**
 * Looks at the committed cursors again and again, and remembers when each was seen: a handler that starts afterwards for
 * a message at or below one, and before all that the queue has of its channel, has begun what was done.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { microseconds } from "./mesh-protocol.js";

/** A committed cursor, and when it had surely been committed. */
interface Sighting {
  readonly at: number;
  readonly epoch: number;
  readonly number: number;
  /** Epoch and number of the first message that the queue had of the channel; null if it had none. */
  readonly first: readonly [epoch: number, number: number] | null;
}

const cursorsSql = `SELECT m.channel_name, c.epoch::float8 AS epoch, c.number::float8 AS number, (
    SELECT min(ARRAY[split_part(q.message_id, '/', 2)::float8, split_part(q.message_id, '/', 3)::float8])
      FROM hawser_data.queue AS q WHERE q.channel_id = c.channel_id
  ) AS first
  FROM hawser_peer_data.cursors AS c JOIN hawser_peer_data.channels AS m USING (channel_id)`;
const intervalMs = 20;

export class CursorWatch implements AsyncDisposable {
  readonly #url: string;
  /** Sightings by channel ('sender:source_topic:listener'), in order of time. */
  readonly #sightings = new Map<string, Sighting[]>();
  readonly #watching: Promise<void>;
  #ended = false;

  /** Begins at once; a database that is away is waited for. */
  constructor(url: string) {
    this.#url = url;
    this.#watching = this.#watch();
  }

  /** True if the message was certainly committed before that time. */
  wasDone(channel: string, epoch: number, number: number, at: number): boolean {
    const seen = this.#sightings.get(channel) ?? [];
    let [low, high] = [0, seen.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((seen[middle] as Sighting).at <= at) low = middle + 1;
      else high = middle;
    }
    const last = seen[low - 1];
    if (last === undefined || isBefore([last.epoch, last.number], [epoch, number])) return false;
    return last.first === null || isBefore([epoch, number], last.first);
  }

  /** Number of different sightings. */
  get count(): number {
    let count = 0;
    for (const seen of this.#sightings.values()) count += seen.length;
    return count;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended = true;
    await this.#watching;
  }

  async #watch(): Promise<void> {
    while (!this.#ended) {
      const client = new pg.Client({
        connectionString: this.#url,
        connectionTimeoutMillis: 2_000,
        query_timeout: 2_000,
        application_name: "cursor-watch",
      });
      client.on("error", () => undefined);
      try {
        await client.connect();
        while (!this.#ended) {
          this.#take((await client.query({ name: "cursors", text: cursorsSql })).rows, microseconds());
          await delay(intervalMs);
        }
      } catch {
        // Away, or not migrated yet: what was seen before stays true.
        await delay(intervalMs);
      } finally {
        await client.end().catch(() => undefined);
      }
    }
  }

  #take(rows: (Omit<Sighting, "at"> & { channel_name: string })[], at: number): void {
    for (const { channel_name, epoch, number, first } of rows) {
      const seen = this.#sightings.get(channel_name) ?? [];
      this.#sightings.set(channel_name, seen);
      const last = seen.at(-1);
      const isSame = last?.epoch === epoch && last.number === number && String(last.first) === String(first);
      if (!isSame) seen.push({ at, epoch, number, first });
    }
  }
}

function isBefore([epoch, number]: readonly [number, number], [otherEpoch, other]: readonly [number, number]): boolean {
  return epoch < otherEpoch || (epoch === otherEpoch && number < other);
}
