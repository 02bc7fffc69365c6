/**
 * The queue of enqueued messages: the functions of its workers, on a session that all peers of a process and database share.
 *
 * Statements are carried out in the order of their calls. With a new connection, nothing is known of what the workers have.
 */
import { EventEmitter } from "node:events";
import { queueFunctions, type TakeResult } from "../../../generated/ts/rows/queue.js";
import { limits } from "../../../generated/ts/rules/peer/catalog.js";
import { limits as frameLimits } from "../../../generated/ts/rules/peer/frames.js";
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import { errorTable, HawserError, shortened } from "../../foundation/errors/index.js";
import {
  type ClientSource,
  isServerError,
  PostgresSession,
  type PostgresSessionOptions,
  serverIdentity,
  sqlstateOf,
  untranslatable,
} from "../../foundation/postgres/index.js";
import type { Clock, Logger } from "../../foundation/runtime/index.js";
import type { FailedAttempt, Headers, KeptResult } from "../channel/index.js";
import { statementLimits } from "./database.js";
import { escaped, failureJson, textOf } from "./leaving.js";
import { QueuedMessage, type QueuePlace } from "./queued-message.js";
import { type CheckedHeaders, checkedHeaders, type HeaderPair } from "./row-faults.js";
import { storeFailure } from "./store-failure.js";

const { cancelMark, leaseMark } = queueConstants;

/** Time without a statement after which the session asks whether it lives: a worker that has nothing says sooner that it goes on. */
const unusedMs = queueConstants.idleBeatMs * 1.25;

/** Maximum time for an answer: the server's own timeouts and time to report them. */
const answerMs = statementLimits.statementTimeoutMs! + statementLimits.lockTimeoutMs!;

/** Number of results that one statement can write: each has up to 64 KiB, and as text within JSON twice as much. */
export const keptAtOnce = 400;

/** Job that was handled, and the result that is kept of it. */
export interface CompletedJob extends QueuePlace, Pick<QueuedMessage, "id"> {
  readonly kept?: Pick<KeptResult, "json" | "durationMs"> | undefined;
}

/** Ranks up to which a worker has looked, by topic, recipient and role. */
export type Looked = Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, string>>>>>>;

/** Process that takes messages. */
interface WorkerOptions {
  readonly name: string;
  readonly group: string | undefined;
  readonly topics: readonly string[];
  readonly leaseMs: number;
  readonly concurrency: number;
  /** Its own worker before, which has ended or is on another server; its rows are free with that. */
  readonly replaces: bigint | undefined;
}

/** Uses of the queue's session beside the queue. */
export interface QueueSessionOptions
  extends Partial<Pick<PostgresSessionOptions, "onConnected" | "onNotification" | "channels">> {
  readonly clock: Clock;
  readonly logger: Logger;
  onSession?(state: "up" | "down"): void;
}

/** Application name of the sessions that take from the queue. */
export const queueApplicationName = "hawser: queue";

interface QueueEvents {
  /** A topic has messages. */
  enqueued: [topic: string];
  /** The settings of a topic have changed. */
  settings: [topic: string];
  /** The message with this rank may be cancelled. Any login can say so. */
  cancelled: [rank: string];
  /** Another worker has messages now, and must be looked after when its lease ends. Any login can say so. */
  lease: [leaseMs: number];
  session: [state: "up" | "down"];
}

export class Queue {
  readonly session: PostgresSession;
  readonly #functions: ReturnType<typeof queueFunctions>;
  readonly #events = new EventEmitter<QueueEvents>().setMaxListeners(0);
  #isOpened = false;
  /** Server of the connection. */
  server: string | undefined;

  constructor(address: ClientSource, { clock, logger, channels = [], ...beside }: QueueSessionOptions) {
    const changed = (state: "up" | "down") => () => {
      beside.onSession?.(state);
      this.#events.emit("session", state);
    };
    this.session = new PostgresSession({
      address,
      clock,
      logger,
      applicationName: queueApplicationName,
      heartbeatMs: unusedMs,
      queryTimeoutMs: answerMs,
      ...statementLimits,
      channels: [queueConstants.channel, queueConstants.settingsChannel, ...channels],
      onConnected: async (query) => {
        this.server = await serverIdentity(query);
        await beside.onConnected?.(query);
      },
      onUp: changed("up"),
      onDown: changed("down"),
      onNotification: (channel, payload) => {
        if (channel === queueConstants.settingsChannel) this.#events.emit("settings", payload);
        else if (channel !== queueConstants.channel) beside.onNotification?.(channel, payload);
        else if (payload.startsWith(leaseMark)) this.#events.emit("lease", Number(payload.slice(leaseMark.length)));
        else if (payload.startsWith(cancelMark)) this.#events.emit("cancelled", payload.slice(cancelMark.length));
        else this.#events.emit("enqueued", payload);
      },
    });
    this.#functions = queueFunctions({
      query: async ({ name = "", text, values }) => ({ rows: await this.session.query({ name, text }, values) }),
    });
  }

  /** True while statements can be sent. */
  get isUp(): boolean {
    return this.session.isUp;
  }

  /** Opens the session, when it is first needed, and until it is open. */
  open(): void {
    if (this.#isOpened) return;
    this.#isOpened = true;
    this.session.openLater();
  }

  /** Opens the session, which is not open. @throws the error of node-postgres; HawserError `transaction_pooler` */
  async openNow(): Promise<void> {
    this.#isOpened = true;
    await this.session.open();
  }

  async close(): Promise<void> {
    if (this.#isOpened) await this.session.close();
  }

  /** Adds an event listener. Returns a function that removes it. */
  on<Name extends keyof QueueEvents>(event: Name, listener: (...details: QueueEvents[Name]) => void): () => void {
    this.#events.on(event, listener as never);
    return () => void this.#events.off(event, listener as never);
  }

  /** Ends the workers that a peer has left behind, for the one that has its name now. */
  async endWorkers(name: string): Promise<void> {
    await this.#run(`end the workers that "${name}" has left behind`, this.#functions.endWorkers({ name }));
  }

  /** Begins a worker. @returns its id */
  async openWorker({ name, group, topics, leaseMs, concurrency, replaces }: WorkerOptions): Promise<bigint> {
    const { worker } = await this.#run(
      `begin a worker of the queue for "${name}"`,
      this.#functions.openWorker({
        ...{ name, leaseMs, concurrency },
        group: group ?? null,
        topics: [...topics],
        replaces: replaces ?? null,
      }),
    );
    return worker;
  }

  /**
   * Goes on with a worker whose session has ended, under another id, with some of the rows that it has: all others are free.
   *
   * @param as the new id; the same again if the call was not answered
   * @returns ranks of those rows that it still has; undefined if the worker has ended
   */
  async resumeWorker(
    worker: bigint,
    as: bigint,
    rows: readonly QueuePlace[],
  ): Promise<ReadonlySet<bigint> | undefined> {
    try {
      const { ranks } = await this.#run(
        "go on with a worker of the queue",
        this.#functions.resumeWorker({ worker, as, ...columnsOf(rows) }),
      );
      return new Set(ranks);
    } catch (error) {
      if (error instanceof HawserError && error.code === "lease_lost") return undefined;
      throw error;
    }
  }

  /** Says of which topics a worker takes messages from now on, and for which listeners that are away. */
  async serveTopics(worker: bigint, topics: readonly string[], standsInFor: readonly string[]): Promise<void> {
    await this.#run(
      "change the topics of a worker",
      this.#functions.serveTopics({ worker, topics: [...topics], standsInFor: [...standsInFor] }),
    );
  }

  /**
   * Takes messages of some topics. Of a topic with limits it takes some only if no other one is named.
   *
   * @param after where to begin; what is missing, at the first message
   * @returns the messages, how far each place was looked at, of topics with limits the time in ms after which more may start, and whether there is
   * more that `maxBytes` has left
   */
  async take(
    worker: bigint,
    { topics, most, maxBytes, after }: { topics: readonly string[]; most: number; maxBytes: number; after: Looked },
  ): Promise<{
    readonly messages: QueuedMessage[];
    readonly looked: QueuePlace[];
    readonly limited: Map<string, number>;
    readonly hasMore: boolean;
  }> {
    const { server } = this;
    const found = await this.#run(
      "take messages of the queue",
      this.#functions.take({
        ...{ worker, most, topics: [...topics] },
        maxBytes: BigInt(maxBytes),
        after: JSON.stringify(after),
      }),
    );
    const messages: QueuedMessage[] = [];
    const looked: QueuePlace[] = [];
    const limited = new Map<string, number>();
    for (const row of found) {
      if (row.payload !== null && row.id !== null)
        messages.push(queuedMessage(row, row.id, row.payload, found.length, server));
      else if (row.waitMs === null) looked.push(row);
      if (row.waitMs !== null) limited.set(row.topic, row.waitMs);
    }
    return { messages, looked, hasMore: found[0]?.hasMore === true, limited };
  }

  /**
   * Says that a worker goes on.
   *
   * @param looks true to look for messages, too
   * @param running what it says of its handlers, as `workers` has it; null: nothing
   * @returns `isFirst`: true for one of all workers; `hasMessages`: true if there are some that it may take;
   * `pausedTopics`, `limitedTopics` and `keptTopics`: those of its topics that are paused, have limits, and whose results are kept;
   * `cancelled`: ranks of messages that it has and that are to be cancelled;
   * `dueInMs`: time until the next message is due that was put off, null if there is none;
   * `leaseEndsInMs`: time until the lease of another worker ends that has messages, null if there is none
   */
  async extend(
    worker: bigint,
    looks: boolean,
    running: string | null,
  ): Promise<{
    readonly isFirst: boolean;
    readonly hasMessages: boolean;
    readonly pausedTopics: readonly string[];
    readonly limitedTopics: readonly string[];
    readonly keptTopics: readonly string[];
    readonly cancelled: readonly bigint[];
    readonly dueInMs: bigint | null;
    readonly leaseEndsInMs: bigint | null;
  }> {
    return await this.#run("extend the lease of a worker", this.#functions.extend({ worker, looks, running }));
  }

  /** Says that a worker has no messages, and goes on. Until it takes some, its lease is `idleLeaseMs`. */
  async rest(worker: bigint): Promise<void> {
    await this.#run("rest as a worker of the queue", this.#functions.rest({ worker }));
  }

  /**
   * Deletes rows that were handled outside of a transaction.
   *
   * @throws HawserError `message_gone` if another worker has deleted one of them; the others are deleted
   */
  async done(rows: readonly CompletedJob[]): Promise<void> {
    const kept = rows.filter((row) => row.kept !== undefined);
    // The results of one statement have a limit.
    const isLarge = kept.length > keptAtOnce;
    if (isLarge || (kept.length > 0 && kept.length < rows.length)) {
      const parts = [rows.filter((row) => row.kept === undefined)];
      for (let at = 0; at < kept.length; at += keptAtOnce) parts.push(kept.slice(at, at + keptAtOnce));
      await Promise.all(parts.map((part) => this.done(part)));
      return;
    }
    const deleteAll = (some: readonly CompletedJob[]): Promise<unknown> => {
      const given = { ...columnsOf(some), handling: false, results: kept.length === 0 ? null : resultsText(some) };
      return this.#run("delete messages that are handled", this.#functions.doneBatch(given));
    };
    try {
      await deleteAll(rows);
    } catch (error) {
      if (!(error instanceof HawserError && error.code === "message_gone")) throw error;
      if (rows.length > 1) await Promise.allSettled(rows.map((row) => deleteAll([row])));
      throw error;
    }
  }

  /** Puts a message off. @param failure failed attempt; undefined if none counts */
  async retry(worker: bigint, row: QueuedMessage, delayMs: number, failure: FailedAttempt | undefined): Promise<void> {
    const { topic, recipient, role, rank, id } = row;
    await this.#withText(`put off the message ${id}`, (text) =>
      this.#functions.retry({
        ...{ worker, topic, recipient, role, rank },
        delayMs: BigInt(Math.ceil(delayMs)),
        failure: failure === undefined ? null : failureText(failure, text),
        countsAttempt: failure !== undefined,
      }),
    );
  }

  /** Makes a message a dead letter. */
  async giveUp(
    worker: bigint,
    row: QueuedMessage,
    { errorCode, errorMessage, stack }: { errorCode: string; errorMessage: string; stack?: string | undefined },
    failure: FailedAttempt | undefined,
  ): Promise<void> {
    const { topic, recipient, role, rank, id } = row;
    await this.#withText(`make the message ${id} a dead letter`, (text) =>
      this.#functions.giveUp({
        ...{ worker, topic, recipient, role, rank, errorCode },
        errorMessage: text(textOf(errorMessage, limits.DeadLetter.errorMessage.maxBytes)),
        failure: failure === undefined ? null : failureText(failure, text),
        stack: stack === undefined ? null : text(textOf(stack, limits.DeadLetter.stack.maxBytes)),
      }),
    );
  }

  /** Gives back messages. @param begun true if their handlers had begun, which is counted */
  async giveBack(worker: bigint, rows: readonly QueuePlace[], begun = false): Promise<void> {
    await this.#run("give back messages of the queue", this.#functions.giveBack({ worker, ...columnsOf(rows), begun }));
  }

  /** Tells that the handler of a message begins. @returns false if the worker does not have the message */
  async begin(worker: bigint, row: QueuedMessage): Promise<boolean> {
    const given = { worker, ...columnsOf([row]) };
    const { ranks } = await this.#run(`begin the message ${row.id}`, this.#functions.begin(given));
    return ranks.length > 0;
  }

  /**
   * Begins a message with a unique key.
   *
   * @returns what its payload and headers were replaced with, if they were; if it does not begin, in how many ms it is due again
   */
  async beginUnique(worker: bigint, { topic, recipient, role, rank }: QueuePlace) {
    const { begins, dueInMs, payload, headers } = await this.#run(
      "begin a message of the queue",
      this.#functions.beginUnique({ worker, topic, recipient, role, rank }),
    );
    const replacement = payload === null ? undefined : { payload, ...checkedHeaders(headers) };
    return { begins, dueInMs: dueInMs === null ? undefined : Number(dueInMs), replacement };
  }

  /** Writes the progress of a message. @param json at most 1,024 bytes in ASCII */
  async setProgress(worker: bigint, { topic, recipient, role, rank, id }: QueuedMessage, json: string): Promise<void> {
    await this.#run(
      `write the progress of the message ${id}`,
      this.#functions.setProgress({ worker, topic, recipient, role, rank, progress: json }),
    );
  }

  /** Ends messages of a worker that are to be cancelled, and that are not begun or whose handlers have ended. */
  async endCancelled(worker: bigint, ranks: readonly bigint[]): Promise<void> {
    await this.#run("end cancelled messages of the queue", this.#functions.endCancelled({ worker, ranks: [...ranks] }));
  }

  /** Ends a worker: what it has is free. @param running its last report, as for `extend` */
  async closeWorker(worker: bigint, running: string | null): Promise<void> {
    await this.#run("end a worker of the queue", this.#functions.closeWorker({ worker, running }));
  }

  /** Has those who enqueue notify. @returns whether they do, and below which transaction they may not */
  async waitFor(topics: readonly string[]): Promise<{ readonly waits: boolean; readonly horizon: bigint }> {
    const { waits, horizon } = await this.#run(
      "wait for messages of the queue",
      this.#functions.waitFor({ topics: [...topics] }),
    );
    return { waits, horizon: BigInt(horizon) };
  }

  /** Ends a {@link waitFor}. */
  async stopWaiting(topics: readonly string[]): Promise<void> {
    await this.#run("stop to wait for messages of the queue", this.#functions.stopWaiting({ topics: [...topics] }));
  }

  /** True if all transactions below the horizon have ended. */
  async hasPassed(horizon: bigint): Promise<boolean> {
    const [row] = await this.#run(
      "look for open transactions",
      this.session.query<{ passed: boolean }>(
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
    const plain = statement((text) => text).catch((error: unknown) => {
      if (sqlstateOf(error) !== untranslatable) throw error;
      // An escape takes six bytes of a limit for a character of two.
      return statement((text) => shortened(escaped(text), limits.DeadLetter.errorMessage.maxBytes));
    });
    await this.#run(action, plain);
  }

  /** Waits for a statement. @param action purpose of the statement, to follow "could not" in an error */
  async #run<Result>(action: string, statement: Promise<Result>): Promise<Result> {
    try {
      return await statement;
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

function columnsOf(rows: readonly QueuePlace[]) {
  return {
    topics: rows.map(({ topic }) => topic),
    recipients: rows.map(({ recipient }) => recipient),
    roles: rows.map(({ role }) => role),
    ranks: rows.map(({ rank }) => rank),
  };
}

/** Results of rows as `done_batch` gets them. */
export function resultsText(rows: readonly CompletedJob[]): string {
  const results = rows.flatMap(({ kept, rank }) =>
    kept === undefined ? [] : [`[${rank},${kept.durationMs},${JSON.stringify(kept.json ?? null)}]`],
  );
  return `[${results}]`;
}

/** @param together number of rows of the answer that has it */
function queuedMessage(
  row: TakeResult,
  id: bigint,
  payload: Uint8Array,
  together: number,
  server: string | undefined,
): QueuedMessage {
  // What waits for a subscribed function is written by functions of the schema alone.
  const isOfFunction = row.topic.startsWith(queueConstants.functionPrefix);
  const { headers, fault } = isOfFunction ? { headers: row.headers as Headers, fault: undefined } : headersOf(row);
  // A message that waits for its key must not keep the memory of all that came with it: one, and how far was looked, come together.
  const own = together > 2 ? Buffer.from(payload) : payload;
  return new QueuedMessage(row, id, { payload: own, headers, fault }, server);
}

/** Headers of a message. The database has set the first one, beside as many as a sent message may have. */
function headersOf({ headers: given }: TakeResult): CheckedHeaders {
  const pairs = given as readonly HeaderPair[];
  if (pairs.length <= frameLimits.PayloadHeaders.headers.maxItems) return checkedHeaders(pairs);
  const { headers, fault } = checkedHeaders(pairs.slice(1));
  return { headers: [pairs[0]!, ...headers], fault };
}

function failureText(failure: FailedAttempt, text: (plain: string) => string): string {
  const json = failureJson(failure);
  return JSON.stringify({ ...json, message: text(json.message) });
}
