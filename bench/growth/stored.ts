/**
 * By stored messages: so many messages wait for a listener that is away; more are stored, and then it starts and handles all.
 */
import type pg from "pg";
import { BySize, counted } from "../by-size.js";
import { openModule } from "../offline/offline.js";
import { connected } from "../postgres.js";
import { formatValue } from "../report.js";
import { type BenchServers, createDatabase } from "../servers.js";
import type { Measured, SuiteContext } from "../suite.js";

/** `runs` has the number of runs for the size at the same index. */
const full = { sizes: [100_000, 1_000_000, 10_000_000], runs: [3, 2, 1], more: 50_000, warmUp: 50_000 };
const quick = { sizes: [100, 2_000], runs: [1, 1], more: 50, warmUp: 50 };

/** Size that replaces a greater one if the machine is too slow for it. */
const fewer = 3_000_000;

/** Messages of a row, as the store combines them. */
const batchMessages = 1_024;

/** Messages of one statement. */
const fillMessages = 500_000;

export const storedOf = counted("stored message");

/** @param until when it should have ended, in ms of `performance.now()` */
export async function byStoredMessages(
  context: SuiteContext,
  servers: BenchServers,
  payloadBytes: number,
  until: number,
): Promise<{ results: Measured[]; notes: string[] }> {
  const { sizes, runs, more, warmUp } = context.quick ? quick : full;
  const found = new BySize(storedOf);
  const notes: string[] = [];
  const database = await createDatabase(servers, context);
  const client = await connected(database.url);
  try {
    const { store, drain, stop } = await openModule("Hawser", database.url, context);
    try {
      const waiting = await Waiting.prepare(client, payloadBytes);
      let msPerMessage = 0;
      for (const [index, wanted] of sizes.entries()) {
        let size = wanted;
        if (wanted > fewer && performance.now() + wanted * msPerMessage > until) {
          size = fewer;
          notes.push(`${storedOf(size)} instead of ${formatValue(wanted)}, which would have taken too long`);
        }
        for (let run = 0; run < context.rounds(runs[index]!); run++) {
          context.signal.throwIfAborted();
          context.say(`Measuring ${storedOf(size)}`);
          const began = performance.now();
          if (index === 0 && run === 0) {
            await store({ payloadBytes, messages: warmUp });
            await drain(warmUp);
          }
          await waiting.fill(size);
          found.add(
            "store by stored messages",
            "µs",
            size,
            ((await store({ payloadBytes, messages: more })) * 1e6) / more,
          );
          found.add("drain by stored messages", "µs", size, ((await drain(size + more)) * 1e6) / (size + more));
          msPerMessage = (performance.now() - began) / size;
        }
      }
    } finally {
      await stop();
    }
    return { results: found.results(payloadBytes), notes };
  } finally {
    await client.end();
    await database.drop();
  }
}

/** The channel of a sender that is not there: its rows are written by SQL, as the sender would have them written. */
class Waiting {
  #number = 0;

  readonly #client: pg.Client;
  readonly #channelId: number;
  readonly #topicId: number;
  readonly #payload: Buffer;

  private constructor(client: pg.Client, channelId: number, topicId: number, payload: Buffer) {
    this.#client = client;
    this.#channelId = channelId;
    this.#topicId = topicId;
    this.#payload = payload;
  }

  static async prepare(client: pg.Client, payloadBytes: number): Promise<Waiting> {
    const { rows } = await client.query<{ channel_id: number; id: number }>(
      `SELECT c.channel_id, t.id FROM hawser.open_channel('bench-filler', 'bench-filler', 'bench-listener') AS c,
              hawser.id_of_topic('bench-listener') AS t`,
    );
    const [{ channel_id, id }] = rows as [(typeof rows)[number]];
    return new Waiting(client, channel_id, id, Buffer.alloc(payloadBytes, "x"));
  }

  /** Stores `count` more messages, and does the work that autovacuum would have done meanwhile. */
  async fill(count: number): Promise<void> {
    const last = this.#number + count;
    for (; this.#number < last; this.#number = Math.min(last, this.#number + fillMessages)) {
      // Batches, and what does not fill one.
      await this.#client.query(
        `INSERT INTO hawser_peer_data.stored_messages (channel_id, payload, epoch, number, topic_id, messages, lengths)
         SELECT $1, decode(repeat(encode($2::bytea, 'hex'), b.messages), 'hex'), 1, b.number + b.messages - 1, $3, b.messages,
                CASE b.messages WHEN 1 THEN '{}' ELSE array_fill(octet_length($2::bytea), ARRAY[b.messages]) END
           FROM (
             SELECT n AS number, least($6::bigint, $5::bigint - n + 1)::integer AS messages
               FROM generate_series($4::bigint, $5::bigint, $6::bigint) AS n
           ) AS b`,
        [
          ...[this.#channelId, this.#payload, this.#topicId, this.#number + 1],
          ...[Math.min(last, this.#number + fillMessages), batchMessages],
        ],
      );
    }
    await this.#client.query("VACUUM ANALYZE hawser_peer_data.stored_messages");
  }
}
