/**
 * The queue of enqueued messages: the functions of its workers, on a session that all peers of a process and database share.
 *
 * Statements are carried out in the order of their calls. With a new connection, nothing is known of what the workers have.
 */
import { EventEmitter } from "node:events";
import { queueFunctions, type TakeResult } from "../../generated/ts/rows/queue.js";
import { limits } from "../../generated/ts/rules/peer/catalog.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { queueConstants } from "../../generated/ts/settings/queue.js";
import type { FailedAttempt, Headers, KeptResult } from "../channel/index.js";
import { errorTable, HawserError, shortened } from "../errors/index.js";
import {
  type ClientSource,
  isServerError,
  PostgresSession,
  postgresBackoff,
  serverIdentity,
  sqlstateOf,
  untranslatable,
} from "../postgres/index.js";
import { Backoff, type Clock, delay, type Logger } from "../runtime/index.js";
import { escaped, failureJson, textOf } from "./cursor-commits.js";
import { statementLimits } from "./database.js";
import { checkedHeaders } from "./row-faults.js";
import { storeFailure } from "./store-failure.js";

const { leaseBeatMs } = storeConstants;
const { cancelMark } = queueConstants;

/** Maximum time for an answer: the server's own timeouts and time to report them. */
const answerMs = statementLimits.statementTimeoutMs! + statementLimits.lockTimeoutMs!;

/** Number of results that one statement can write: each has up to 64 KiB, and as text within JSON twice as much. */
export const keptAtOnce = 400;

/** Place and id of a row. */
export interface QueueRow {
  readonly topic: string;
  /** Who may have it: empty for any listener of the topic, `@name` for one, `#group` for the members of a group. */
  readonly recipient: string;
  /** Role that enqueued it. */
  readonly role: string;
  readonly id: bigint;
  /** Result that is kept of it; undefined if none is. */
  readonly kept?: Pick<KeptResult, "json" | "durationMs"> | undefined;
}

/** Row that was taken. */
export interface TakenRow extends QueueRow {
  readonly key: string | undefined;
  readonly payload: Uint8Array;
  readonly headers: Headers;
  /** Reason why the message must become a dead letter: its row breaks a rule. */
  readonly fault: string | undefined;
  readonly failedAttempts: number;
  /** True if it may have ended its process. */
  readonly isSuspect: boolean;
  /** True if it begins with {@link Queue.beginUnique}. */
  readonly isUnique: boolean;
  /** True if its result is kept. */
  readonly isKept: boolean;
  /** When it was enqueued, in ms since 1970. */
  readonly enqueuedMs: number;
}

/** Ids up to which a worker has looked, by topic, recipient and role. */
export type Looked = Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, string>>>>>>;

/** Process that takes messages. */
interface WorkerOptions {
  readonly name: string;
  readonly group: string | undefined;
  readonly topics: readonly string[];
  readonly leaseMs: number;
  readonly concurrency: number;
  /** Its own worker before, whose rows are free with that. */
  readonly replaces: bigint | undefined;
}

interface QueueEvents {
  /** A topic has messages. */
  enqueued: [topic: string];
  /** The settings of a topic have changed. */
  settings: [topic: string];
  /** The message with this id may be cancelled. Any login can say so. */
  cancelled: [id: string];
  session: [state: "up" | "down"];
}

export class Queue {
  readonly #session: PostgresSession;
  readonly #functions: ReturnType<typeof queueFunctions>;
  readonly #events = new EventEmitter<QueueEvents>().setMaxListeners(0);
  #opening: Promise<unknown> | undefined;
  #isClosed = false;
  /** Server of the connection. */
  server: string | undefined;

  constructor(address: ClientSource, { clock, logger }: { readonly clock: Clock; readonly logger: Logger }) {
    this.#session = new PostgresSession({
      address,
      clock,
      logger,
      applicationName: "hawser: queue",
      heartbeatMs: leaseBeatMs,
      queryTimeoutMs: answerMs,
      ...statementLimits,
      channels: [queueConstants.channel, queueConstants.settingsChannel],
      onConnected: async (query) => {
        this.server = await serverIdentity(query);
      },
      onUp: () => this.#events.emit("session", "up"),
      onDown: () => this.#events.emit("session", "down"),
      onNotification: (channel, payload) => {
        if (channel === queueConstants.settingsChannel) this.#events.emit("settings", payload);
        else if (payload.startsWith(cancelMark)) this.#events.emit("cancelled", payload.slice(cancelMark.length));
        else this.#events.emit("enqueued", payload);
      },
    });
    this.#functions = queueFunctions({
      query: async ({ name = "", text, values }) => ({ rows: await this.#session.query({ name, text }, values) }),
    });
  }

  /** True while statements can be sent. */
  get isUp(): boolean {
    return this.#session.isUp;
  }

  /** Opens the session, when it is first needed, and until it is open. */
  open(): void {
    this.#opening ??= this.#open();
  }

  async #open(): Promise<unknown> {
    const backoff = new Backoff(postgresBackoff);
    while (!this.#isClosed) {
      try {
        return await this.#session.open();
      } catch {
        await delay(backoff.failed());
      }
    }
    return undefined;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.#opening !== undefined) await this.#session.close();
  }

  /** Adds an event listener. Returns a function that removes it. */
  on<Name extends keyof QueueEvents>(event: Name, listener: (...details: QueueEvents[Name]) => void): () => void {
    this.#events.on(event, listener as never);
    return () => void this.#events.off(event, listener as never);
  }

  /** Ends the workers that a peer has left behind, for the one that has its name now. */
  async endWorkers(name: string): Promise<void> {
    await this.#run(`end the workers that "${name}" has left behind`, () => this.#functions.endWorkers({ name }));
  }

  /** Begins a worker. @returns its id */
  async openWorker({ name, group, topics, leaseMs, concurrency, replaces }: WorkerOptions): Promise<bigint> {
    const { worker } = await this.#run(`begin a worker of the queue for "${name}"`, () =>
      this.#functions.openWorker({
        ...{ name, leaseMs, concurrency },
        group: group ?? null,
        topics: [...topics],
        replaces: replaces ?? null,
      }),
    );
    return worker;
  }

  /** Says of which topics a worker takes messages from now on, and for which listeners that are away. */
  async serveTopics(worker: bigint, topics: readonly string[], standsInFor: readonly string[]): Promise<void> {
    await this.#run("change the topics of a worker", () =>
      this.#functions.serveTopics({ worker, topics: [...topics], standsInFor: [...standsInFor] }),
    );
  }

  /**
   * Takes messages of some topics. Of a topic with limits it takes some only if no other one is named.
   *
   * @param after where to begin; what is missing, at the first message
   * @returns the rows, how far each place was looked at, and of topics with limits the time in ms after which more may start
   */
  async take(
    worker: bigint,
    { topics, most, maxBytes, after }: { topics: readonly string[]; most: number; maxBytes: number; after: Looked },
  ): Promise<{ readonly rows: TakenRow[]; readonly looked: QueueRow[]; readonly limited: Map<string, number> }> {
    const found = await this.#run("take messages of the queue", () =>
      this.#functions.take({
        ...{ worker, most, topics: [...topics] },
        maxBytes: BigInt(maxBytes),
        after: JSON.stringify(after),
      }),
    );
    return {
      rows: found.flatMap((row) => takenRow(row) ?? []),
      looked: found.filter(({ payload, waitMs }) => payload === null && waitMs === null),
      limited: new Map(found.flatMap(({ topic, waitMs }) => (waitMs === null ? [] : [[topic, waitMs]]))),
    };
  }

  /**
   * Says that a worker goes on.
   *
   * @param looks true to look for messages, too
   * @returns `isFirst`: true for one of all workers; `hasMessages`: true if there are some that it may take;
   * `pausedTopics` and `limitedTopics`: those of its topics that are paused, and that have limits
   */
  async extend(
    worker: bigint,
    looks: boolean,
  ): Promise<{
    readonly isFirst: boolean;
    readonly hasMessages: boolean;
    readonly pausedTopics: readonly string[];
    readonly limitedTopics: readonly string[];
  }> {
    return await this.#run("extend the lease of a worker", () => this.#functions.extend({ worker, looks }));
  }

  /**
   * Deletes rows that were handled outside of a transaction.
   *
   * @throws HawserError `message_gone` if another worker has deleted one of them; the others are deleted
   */
  async done(rows: readonly QueueRow[]): Promise<void> {
    const kept = rows.filter((row) => row.kept !== undefined);
    // The results of one statement have a limit.
    const isLarge = kept.length > keptAtOnce;
    if (isLarge || (kept.length > 0 && kept.length < rows.length)) {
      const parts = [rows.filter((row) => row.kept === undefined)];
      for (let at = 0; at < kept.length; at += keptAtOnce) parts.push(kept.slice(at, at + keptAtOnce));
      await Promise.all(parts.map((part) => this.done(part)));
      return;
    }
    const deleteAll = (some: readonly QueueRow[]): Promise<unknown> =>
      this.#run("delete messages that are handled", () => {
        const given = { ...columnsOf(some), handling: false };
        if (kept.length === 0) return this.#functions.doneBatch(given);
        return this.#functions.doneKept({ ...given, results: resultsText(some) });
      });
    try {
      await deleteAll(rows);
    } catch (error) {
      if (!(error instanceof HawserError && error.code === "message_gone")) throw error;
      if (rows.length > 1) await Promise.allSettled(rows.map((row) => deleteAll([row])));
      throw error;
    }
  }

  /** Puts a message off. @param failure failed attempt; undefined if none counts */
  async retry(worker: bigint, row: QueueRow, delayMs: number, failure: FailedAttempt | undefined): Promise<void> {
    const { topic, recipient, role, id } = row;
    await this.#withText(`put off message ${id} of the queue`, (text) =>
      this.#functions.retry({
        ...{ worker, topic, recipient, role, id },
        delayMs: BigInt(Math.ceil(delayMs)),
        failure: failure === undefined ? null : failureText(failure, text),
        countsAttempt: failure !== undefined,
      }),
    );
  }

  /** Makes a message a dead letter. */
  async giveUp(
    worker: bigint,
    row: QueueRow,
    { errorCode, errorMessage, stack }: { errorCode: string; errorMessage: string; stack?: string | undefined },
    failure: FailedAttempt | undefined,
  ): Promise<void> {
    const { topic, recipient, role, id } = row;
    await this.#withText(`make message ${id} of the queue a dead letter`, (text) =>
      this.#functions.giveUp({
        ...{ worker, topic, recipient, role, id, errorCode },
        errorMessage: text(textOf(errorMessage, limits.DeadLetter.errorMessage.maxBytes)),
        failure: failure === undefined ? null : failureText(failure, text),
        stack: stack === undefined ? null : text(textOf(stack, limits.DeadLetter.stack.maxBytes)),
      }),
    );
  }

  /** Gives back messages that were not begun. */
  async giveBack(worker: bigint, rows: readonly QueueRow[]): Promise<void> {
    await this.#run("give back messages of the queue", () => this.#functions.giveBack({ worker, ...columnsOf(rows) }));
  }

  /**
   * Begins a message with a unique key.
   *
   * @returns what its payload and headers were replaced with, if they were; if it does not begin, in how many ms it is due again
   */
  async beginUnique(worker: bigint, { topic, recipient, role, id }: QueueRow) {
    const { begins, dueInMs, payload, headers } = await this.#run("begin a message of the queue", () =>
      this.#functions.beginUnique({ worker, topic, recipient, role, id }),
    );
    const replacement = payload === null ? undefined : { payload, ...checkedHeaders(headers) };
    return { begins, dueInMs: dueInMs === null ? undefined : Number(dueInMs), replacement };
  }

  /** Writes the progress of a message. @param json at most 1,024 bytes in ASCII */
  async setProgress(worker: bigint, { topic, recipient, role, id }: QueueRow, json: string): Promise<void> {
    await this.#run(`write the progress of message ${id} of the queue`, () =>
      this.#functions.setProgress({ worker, topic, recipient, role, id, progress: json }),
    );
  }

  /** Deletes messages that are to be cancelled. @returns the ids of those rows that are not in the queue any more */
  async endCancelled(rows: readonly QueueRow[]): Promise<bigint[]> {
    const { ids } = await this.#run("look for cancelled messages of the queue", () =>
      this.#functions.endCancelled(columnsOf(rows)),
    );
    return ids;
  }

  /** Ends a worker: what it has is free. */
  async closeWorker(worker: bigint): Promise<void> {
    await this.#run("end a worker of the queue", () => this.#functions.closeWorker({ worker }));
  }

  /** Has those who enqueue notify. @returns whether they do, and below which transaction they may not */
  async waitFor(topics: readonly string[]): Promise<{ readonly waits: boolean; readonly horizon: bigint }> {
    const { waits, horizon } = await this.#run("wait for messages of the queue", () =>
      this.#functions.waitFor({ topics: [...topics] }),
    );
    return { waits, horizon: BigInt(horizon) };
  }

  /** Ends a {@link waitFor}. */
  async stopWaiting(topics: readonly string[]): Promise<void> {
    await this.#run("stop to wait for messages of the queue", () =>
      this.#functions.stopWaiting({ topics: [...topics] }),
    );
  }

  /** True if all transactions below the horizon have ended. */
  async hasPassed(horizon: bigint): Promise<boolean> {
    const [row] = await this.#run("look for open transactions", () =>
      this.#session.query<{ passed: boolean }>(
        "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= $1::text::xid8 AS passed",
        [String(horizon)],
      ),
    );
    return row!.passed;
  }

  /** Runs a statement with texts of handlers, some of which the database may not be able to represent. */
  async #withText<Result>(
    action: string,
    statement: (text: (plain: string) => string) => Promise<Result>,
  ): Promise<void> {
    await this.#run(action, async () => {
      try {
        await statement((text) => text);
      } catch (error) {
        if (sqlstateOf(error) !== untranslatable) throw error;
        // An escape takes six bytes of a limit for a character of two.
        await statement((text) => shortened(escaped(text), limits.DeadLetter.errorMessage.maxBytes));
      }
    });
  }

  async #run<Result>(action: string, statement: () => Promise<Result>): Promise<Result> {
    try {
      return await statement();
    } catch (cause) {
      const code = isServerError(cause) ? codesByState.get(cause.code ?? "") : undefined;
      throw code === undefined
        ? storeFailure(action, cause)
        : new HawserError(code, `could not ${action}: ${(cause as Error).message}`, { cause });
    }
  }
}

/** Refusals of the functions, by SQLSTATE. */
const codesByState: ReadonlyMap<string, HawserError["code"]> = new Map(
  (["lease_lost", "message_gone"] as const).map((code) => [errorTable[code].sqlstate, code]),
);

function columnsOf(rows: readonly QueueRow[]) {
  return {
    topics: rows.map(({ topic }) => topic),
    recipients: rows.map(({ recipient }) => recipient),
    roles: rows.map(({ role }) => role),
    ids: rows.map(({ id }) => id),
  };
}

/** Results of rows as `done_kept` gets them: with the places of the rows. */
export function resultsText(rows: readonly QueueRow[]): string {
  const results = rows.map(({ kept }, index) => kept && [index + 1, kept.durationMs, kept.json ?? null]);
  return JSON.stringify(results.filter((result) => result !== undefined));
}

/** @returns undefined for a row that only says how far was looked */
function takenRow(row: TakeResult): TakenRow | undefined {
  const { topic, recipient, role, id, key, payload, headers, attempts, isSuspect, isUnique, isKept, enqueuedAt } = row;
  if (payload === null) return undefined;
  const { headers: pairs, fault } = checkedHeaders(headers);
  // Without spreads, as for each message of the queue: they would make its object anew several times.
  return {
    topic,
    recipient,
    role,
    id,
    payload,
    headers: pairs,
    fault,
    key: key ?? undefined,
    failedAttempts: attempts ?? 0,
    isSuspect: isSuspect === true,
    isUnique: isUnique === true,
    isKept: isKept === true,
    enqueuedMs: enqueuedAt?.getTime() ?? 0,
  };
}

function failureText(failure: FailedAttempt, text: (plain: string) => string): string {
  const json = failureJson(failure);
  return JSON.stringify({ ...json, message: text(json.message) });
}
