/**
 * Many database sessions, each of which makes one call after the other while a test kills what answers them; and what
 * became of each call.
 */

import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { serveSettingsDefaults } from "../../../generated/ts/settings/nats.js";
import { deadlineSlackMs } from "../../../src/nats/gateway/calls.js";
import { Random } from "../../simulator/random.js";
import { eventually } from "../../support/eventually.js";
import { patienceMs } from "./kills.js";
import { type CallKindName, callKinds, tokensOf } from "./sql-calls.js";
import type { SqlWitness } from "./sql-witness.js";

/**
 * Outcome of a call as its caller knows it: `confirmed`; `refused`: an error that excludes any effect; `unknown`: an error
 * that leaves the effect open; `strange`: an error that none of the faults explains.
 */
type Outcome = "confirmed" | "refused" | "unknown" | "strange";

/** A call that has ended. Times are of `performance.now()`. */
export interface CallRecord {
  readonly kind: CallKindName;
  readonly session: number;
  readonly tokens: readonly string[];
  readonly begun: number;
  readonly ended: number;
  readonly outcome: Outcome;
  readonly sqlstate: string | undefined;
  /** Message and detail of the error. */
  readonly words: string | undefined;
}

/** Servers, sessions and time limits of a load. */
export interface SqlLoadOptions {
  readonly databaseUrl: string;
  readonly witness: SqlWitness;
  /** Default 50. */
  readonly sessions?: number;
  /** Default: all. */
  readonly kinds?: readonly CallKindName[];
  readonly seed: number;
  /** True if others may end sessions. The outcome of their calls in flight is then unknown, and they make no more calls. */
  readonly mayEnd?: boolean;
  /** Pause of a session after a failed call, in milliseconds. Default 100. */
  readonly pauseAfterErrorMs?: number;
  /** The time limit that requests name, in milliseconds. Default 2,000. */
  readonly requestTimeoutMs?: number;
  /** The one that the gateway has for all other calls, in milliseconds. Default: that of `hawser serve`. */
  readonly callTimeoutMs?: number;
}

/** Time limits for loads whose calls must all be confirmed, even on a busy machine. The gateway needs the same limits. */
export const patientLimits = { requestTimeoutMs: 20_000, callTimeoutMs: 20_000 };

const defaultLimits = { requestTimeoutMs: 2_000, callTimeoutMs: serveSettingsDefaults.callTimeoutMs };

const pulsePauseMs = 50;

const refusals: ReadonlySet<string> = new Set(["08001", "08003", "53300", "57P01", "NA002", "NA004"]);
const doubts: ReadonlySet<string> = new Set(["08006", "NA001", "57014", "57P02", "57P03"]);
/** SQLSTATEs with which Postgres ends a session. `admin_shutdown` is missing, as the gateway uses it, too. */
const endings: ReadonlySet<string> = new Set(["57P02", "57P03"]);

/** Disposing ends the sessions. */
export class SqlLoad implements AsyncDisposable {
  readonly calls: CallRecord[] = [];
  /** Answers that were not those of their calls, and sessions that have ended. */
  readonly wrong: string[] = [];
  readonly options: SqlLoadOptions & typeof defaultLimits;
  /** The longest that Postgres has taken for nothing at all, in milliseconds: how busy the machine is. */
  longestPulseMs = 0;
  readonly #clients: pg.Client[] = [];
  /** Completed calls by session. */
  readonly #records: CallRecord[][] = [];
  #loops: Promise<void>[] = [];
  #isStopped = false;

  private constructor(options: SqlLoadOptions) {
    this.options = { ...defaultLimits, ...options };
  }

  /** Opens the sessions, and begins. */
  static async start(options: SqlLoadOptions): Promise<SqlLoad> {
    const load = new SqlLoad(options);
    for (let session = 0; session < (options.sessions ?? 50); session++) {
      const client = new pg.Client({ connectionString: options.databaseUrl });
      load.#clients.push(client);
      load.#records.push([]);
      client.on("error", (error) => {
        if (options.mayEnd !== true) load.wrong.push(`session ${session} has ended: ${error.message}`);
      });
    }
    await Promise.all(load.#clients.map((client) => client.connect()));
    load.#loops = [...load.#clients.map((_, session) => load.#loop(session)), load.#pulse()];
    return load;
  }

  /** Number of sessions. */
  get sessions(): number {
    return this.#clients.length;
  }

  /** Resolves when so many more calls have ended. */
  async more(count: number): Promise<void> {
    const enough = this.calls.length + count;
    await eventually(`${count} more calls have ended`, () => this.calls.length >= enough, patienceMs);
  }

  /** Resolves when each session has had a confirmed answer to a call that it began after `since`. @returns how late, in ms */
  async recovered(since: number): Promise<number> {
    const waiting = new Set(this.#records);
    let latest = since;
    await eventually("every session has a confirmed call again", () => {
      for (const records of waiting) {
        const first = firstAfter(records, since, ({ outcome }) => outcome === "confirmed");
        if (first === undefined) continue;
        latest = Math.max(latest, first.ended);
        waiting.delete(records);
      }
      return waiting.size === 0;
    });
    return latest - since;
  }

  /** First completed call of each session that began after `since`. */
  firstCalls(since: number): CallRecord[] {
    return this.#records.flatMap((records) => firstAfter(records, since, () => true) ?? []);
  }

  /** Lets the calls that are under way end, and makes no more. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    let running = true;
    void Promise.all(this.#loops).then(() => (running = false));
    await eventually("the last calls have ended", () => !running, 60_000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isStopped = true;
    await Promise.all(this.#clients.map((client) => client.end().catch(() => undefined)));
  }

  /** Asks Postgres for nothing, again and again. */
  async #pulse(): Promise<void> {
    const client = new pg.Client({ connectionString: this.options.databaseUrl });
    client.on("error", () => undefined);
    try {
      await client.connect();
      while (!this.#isStopped) {
        const begun = performance.now();
        await client.query("SELECT");
        this.longestPulseMs = Math.max(this.longestPulseMs, performance.now() - begun);
        await delay(pulsePauseMs);
      }
    } catch {
      // Others may have ended this session, too.
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  /** Time limit of a call, in milliseconds. */
  limitOf(kind: CallKindName): number {
    const { requestTimeoutMs, callTimeoutMs } = this.options;
    return (kind === "request" ? requestTimeoutMs : callTimeoutMs) + deadlineSlackMs;
  }

  async #loop(session: number): Promise<void> {
    const { seed, pauseAfterErrorMs = 100, mayEnd = false, witness, requestTimeoutMs } = this.options;
    const { kinds = Object.keys(callKinds) as CallKindName[] } = this.options;
    const random = new Random(seed * 1_000 + session);
    const drawn = kinds.flatMap((kind) => Array<CallKindName>(callKinds[kind].weight).fill(kind));
    const client = this.#clients[session]!;
    const last = {};
    for (let number = 0; !this.#isStopped; number++) {
      const kind = random.pick(drawn);
      const tokens = tokensOf(callKinds[kind], session, number);
      const begun = performance.now();
      let failure: Error | undefined;
      let hasEnded = false;
      try {
        const place = { client, witness, session, number, token: tokens[0]!, tokens, requestTimeoutMs, last };
        const wrong = await callKinds[kind].run(place);
        if (wrong !== undefined) this.wrong.push(`${kind} ${place.token}: ${wrong}`);
      } catch (error) {
        failure = error as Error;
        hasEnded = !(failure instanceof pg.DatabaseError) || endings.has(failure.code ?? "");
        if (hasEnded && !mayEnd) this.wrong.push(`${kind} ${tokens[0]}: ${String(error)}`);
      }
      const record: CallRecord = { kind, session, tokens, begun, ended: performance.now(), ...outcomeOf(failure) };
      this.calls.push(record);
      this.#records[session]!.push(record);
      if (hasEnded) return;
      if (failure !== undefined) await delay(pauseAfterErrorMs);
    }
  }
}

function outcomeOf(error: Error | undefined): Pick<CallRecord, "outcome" | "sqlstate" | "words"> {
  if (error === undefined) return { outcome: "confirmed", sqlstate: undefined, words: undefined };
  // The session has gone, and took the answer along.
  if (!(error instanceof pg.DatabaseError))
    return { outcome: "unknown", sqlstate: "session ended", words: error.message };
  const { code: sqlstate = "", message, detail } = error;
  const words = detail === undefined ? message : `${message} (${detail})`;
  // Postgres has the same state for its own end, and it says nothing of the gateway.
  if (sqlstate === "57P01" && !message.includes("gateway")) return { outcome: "unknown", sqlstate, words };
  const outcome = refusals.has(sqlstate) ? "refused" : doubts.has(sqlstate) ? "unknown" : "strange";
  return { outcome, sqlstate, words };
}

function firstAfter(
  records: readonly CallRecord[],
  since: number,
  isWanted: (record: CallRecord) => boolean,
): CallRecord | undefined {
  let first: CallRecord | undefined;
  for (let index = records.length - 1; index >= 0; index--) {
    const record = records[index]!;
    if (record.begun < since) break;
    if (isWanted(record)) first = record;
  }
  return first;
}
