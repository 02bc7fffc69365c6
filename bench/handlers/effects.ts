/**
 * The rows that handlers write, as another session sees them: when all of them are committed, and when each one is.
 */
import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import { type Latencies, latenciesOf, type Pace, paced } from "../paced.js";
import { connected } from "../postgres.js";
import { BenchFailure } from "../suite.js";

/** Poll interval of the effects: short against a run, and a small load for Postgres. */
const lookEveryMs = 2;
/** The same where the time of each effect counts. */
const lookEveryMsForEach = 1;

/** Time limit until all jobs of a run are handled. */
const handlingTimeoutMs = 180_000;

/** Jobs of one run, with numbers that no other run has. */
export interface JobNumbers {
  readonly first: number;
  readonly count: number;
}

/** A pace for a worker that has just started. */
export interface WarmPace extends Pace {
  /** Number of preceding jobs that are not counted: the worker opens its sessions during them. */
  readonly warmUp: number;
}

/** A session that sees the effects. */
export class Effects {
  readonly #client: pg.Client;

  private constructor(client: pg.Client) {
    this.#client = client;
  }

  /** Opens the session, and makes the table if it is not there. */
  static async open(databaseUrl: string): Promise<Effects> {
    const client = await connected(databaseUrl);
    await client.query("CREATE TABLE IF NOT EXISTS bench_effects (id bigserial PRIMARY KEY, job integer NOT NULL)");
    return new Effects(client);
  }

  /** Resolves when so many effects are committed. */
  async reach(count: number): Promise<void> {
    // Each effect takes a number of the sequence, which is cheap to read.
    await this.#until(
      `of ${count} jobs began`,
      "SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS number FROM bench_effects_id_seq",
      (number) => number >= count,
    );
    await this.#until(
      `of ${count} jobs were handled`,
      "SELECT count(*) AS number FROM bench_effects",
      (number) => number >= count,
    );
  }

  /** Resolves when the query finds nothing: no job is left that would be handled again. */
  async untilNone(query: string): Promise<void> {
    await this.#until("jobs are left", `SELECT count(*) AS number FROM (${query}) AS jobs`, (number) => number === 0);
  }

  /** Removes all effects. @throws BenchFailure unless each of these jobs, and no other one, has had one */
  async clear({ first, count }: JobNumbers): Promise<void> {
    const { rows } = await this.#client.query<{ effects: number; jobs: number }>({
      text: `SELECT count(*)::int AS effects, count(DISTINCT job) FILTER (WHERE job >= $1 AND job < $1 + $2)::int AS jobs
             FROM bench_effects`,
      values: [first, count],
    });
    const { effects, jobs } = rows[0]!;
    if (effects !== count || jobs !== count) {
      throw new BenchFailure(`${jobs} of ${count} jobs had an effect, and there are ${effects} effects`);
    }
    await this.#client.query("TRUNCATE bench_effects RESTART IDENTITY");
  }

  /**
   * Enqueues at a steady pace, over so many sessions, and measures from each commit until the job's effect is seen, which is
   * looked for each millisecond. A worker runs.
   *
   * @param first the number of the first job
   * @param enqueue enqueues the job of that number, in a transaction of its own
   */
  async latencies(
    { messages, perSecond, warmUp }: WarmPace,
    first: number,
    sessions: number,
    enqueue: (job: number, session: number) => Promise<unknown>,
  ): Promise<Latencies> {
    const count = warmUp + messages;
    const seen = this.#each({ first, count });
    // An early rejection must not count as unhandled: `seen` is awaited only after the last commit.
    seen.catch(() => undefined);
    const pace = { messages: count, perSecond };
    const committedAt = await paced(pace, sessions, (number, session) => enqueue(first + number, session));
    return latenciesOf(committedAt.subarray(warmUp), (await seen).subarray(warmUp));
  }

  close(): Promise<void> {
    return this.#client.end();
  }

  /** @returns of each job when its effect was seen, in ms of `performance.now` */
  async #each({ first, count }: JobNumbers): Promise<Float64Array> {
    const seenAt = new Float64Array(count);
    const ids = new Set<number>();
    // Everything up to it has been seen: a transaction that takes longer has a lower id than what was seen before it.
    let lastId = 0;
    const giveUpAt = performance.now() + handlingTimeoutMs;
    for (let left = count; left > 0; await delay(lookEveryMsForEach)) {
      const { rows } = await this.#client.query<{ id: string; job: number }>({
        name: "bench.effects",
        text: "SELECT id, job FROM bench_effects WHERE id > $1",
        values: [lastId],
      });
      const now = performance.now();
      for (const { id, job } of rows) {
        if (ids.has(Number(id))) continue;
        ids.add(Number(id));
        // Others were there before.
        if (job < first) continue;
        seenAt[job - first] = now;
        left -= 1;
      }
      while (ids.has(lastId + 1)) lastId += 1;
      if (now > giveUpAt) throw new BenchFailure(`${count - left} of ${count} jobs were handled`);
    }
    return seenAt;
  }

  async #until(what: string, query: string, isReached: (number: number) => boolean): Promise<void> {
    const giveUpAt = performance.now() + handlingTimeoutMs;
    for (;;) {
      const { rows } = await this.#client.query<{ number: string }>(query);
      const number = Number(rows[0]!.number);
      if (isReached(number)) return;
      if (performance.now() > giveUpAt) throw new BenchFailure(`${number} ${what}`);
      await delay(lookEveryMs);
    }
  }
}
