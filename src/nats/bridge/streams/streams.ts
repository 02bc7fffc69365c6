/**
 * Runs the stream subscriptions of the leader: performs the steps of each {@link StreamReader}, and puts received
 * messages into queues. These queues are scheduled together with the queues of all other subscriptions.
 */

import { JetStreamApiError } from "@nats-io/jetstream";
import { jserrors } from "@nats-io/jetstream/internal";
import type { NatsConnection } from "@nats-io/transport-node";
import { HawserError } from "../../../foundation/errors/index.js";
import type { PostgresSession } from "../../../foundation/postgres/index.js";
import { type Logger, oncePerTurn, RareLog } from "../../../foundation/runtime/index.js";
import { type Delivery, type NatsConnector, receivedHeaders } from "../../connections/index.js";
import type { Subscription } from "../bindings.js";
import { errorText } from "../executor/index.js";
import { memoryOf, PayloadCopies, type StreamPlace } from "../message.js";
import { ByteBudget, newTotals, type Outcome, type Step, SubscriptionQueue } from "../queue/index.js";
import type { Subscriptions } from "../subscriptions.js";
import { type ReaderOutcome, type ReaderStep, readerDefaults, type StreamRead, StreamReader } from "./reader.js";
import { type StreamReading, StreamSource } from "./stream-source.js";
import { type StreamConfig, type StreamRow, StreamTable } from "./stream-table.js";

/** Maximum number of messages of a stream in a batch. */
export const streamBatchMessages = 5_000;
/** Into how many queues the messages of a subscription with key_token go. */
const streamQueues = 16;

/** Collaborators of {@link Streams}. */
export interface StreamsOptions {
  readonly session: PostgresSession;
  readonly connector: NatsConnector;
  readonly subscriptions: Subscriptions;
  readonly logger: Logger;
}

/** Counts of a stream subscription, since this process became the leader unless noted otherwise. */
export interface StreamCounts {
  readonly name: string;
  readonly stream: string;
  readonly functionName: string;
  /** Total of messages whose transaction this process committed. */
  readonly committed: number;
  /** Total of messages that became dead letters. */
  readonly deadLettered: number;
  /** Messages of the stream that are not done. */
  readonly lag: number;
  /** Messages that the stream removed before they were read, since the last nats_seek_stream; counted in Postgres. */
  readonly missing: number;
  /** Sequence number up to which all messages are done. */
  readonly position: number;
  /** True while the consumer is being read. */
  readonly isReading: boolean;
}

export class Streams {
  readonly #options: StreamsOptions;
  readonly #table: StreamTable;
  readonly #rareLog: RareLog;
  readonly #runs = new Map<bigint, StreamRun>();
  #epoch: bigint | undefined;

  constructor(options: StreamsOptions) {
    this.#options = options;
    this.#table = new StreamTable(options.session);
    this.#rareLog = new RareLog(options.logger, "streams");
    options.connector.on("connected", () => this.#wake());
  }

  /** Counts of all stream subscriptions; empty unless this process is the leader. */
  *counts(): Generator<StreamCounts> {
    for (const run of this.#runs.values()) yield run.counts;
  }

  /** Starts as the leader; {@link configure} follows. */
  startLeading(epoch: bigint): void {
    this.#epoch = epoch;
  }

  /** Stops reading. Messages that were received but not committed are read again by the next leader. */
  stopLeading(): void {
    this.#epoch = undefined;
    for (const run of this.#runs.values()) run.end();
    this.#runs.clear();
  }

  /**
   * Applies the current stream subscriptions, and reads their rows. Does nothing unless this process is the leader.
   *
   * @throws errors of the session
   */
  async configure(bindings: readonly Subscription[]): Promise<void> {
    const epoch = this.#epoch;
    if (epoch === undefined) return;
    const rows = bindings.length + this.#runs.size === 0 ? [] : await this.#table.all();
    if (this.#epoch !== epoch) return;
    const present = new Map(rows.map((row) => [row.id, row]));
    for (const [id, run] of this.#runs) {
      if (present.has(id) && bindings.some((binding) => binding.id === id)) continue;
      this.#runs.delete(id);
      run.end();
      void run.deleteConsumers();
    }
    for (const binding of bindings) {
      const row = present.get(binding.id);
      if (row === undefined) continue;
      const run = this.#runs.get(binding.id);
      if (run !== undefined) run.configure(binding, row);
      else this.#runs.set(binding.id, new StreamRun(this.#contextOf(epoch), binding, row));
    }
  }

  stop(): void {
    this.stopLeading();
    this.#rareLog.end();
  }

  #wake(): void {
    for (const run of this.#runs.values()) run.wake();
  }

  #contextOf(epoch: bigint): RunContext {
    const { connector, subscriptions, logger } = this.#options;
    return { epoch, connector, subscriptions, logger, table: this.#table, rareLog: this.#rareLog };
  }
}

interface RunContext extends Pick<StreamsOptions, "connector" | "subscriptions" | "logger"> {
  readonly epoch: bigint;
  readonly table: StreamTable;
  readonly rareLog: RareLog;
}

/** Current read of a stream, with the queues that run its messages. */
interface CurrentRead {
  readonly reading: StreamRead;
  readonly queues: readonly SubscriptionQueue[];
  /** Functions that unregister the queues and release the connection. */
  readonly releases: readonly (() => void)[];
  readonly source: StreamReading;
  readonly copies: PayloadCopies;
  /** Creation time of the stream in digits: the first part of the message ids. */
  readonly created: string;
}

/** Stream subscription while this process is the leader: its reader, its source in NATS and the current read. */
class StreamRun {
  readonly #context: RunContext;
  readonly #config: StreamConfig;
  readonly #reader: StreamReader;
  #binding: Subscription;
  #row: StreamRow;
  #source: StreamSource | undefined;
  #current: CurrentRead | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #pumpSoon = oncePerTurn(() => this.#pump());
  #hasEnded = false;
  readonly #totals = newTotals();
  #created = "";

  constructor(context: RunContext, binding: Subscription, row: StreamRow) {
    this.#context = context;
    this.#binding = binding;
    this.#config = this.#row = row;
    this.#reader = new StreamReader({ ...readerDefaults, hasFilter: row.filters.length > 0 });
    this.#reader.onReady = () => this.#pumpSoon();
    this.#pumpSoon();
  }

  get counts(): StreamCounts {
    const { name, stream } = this.#config;
    const { reading, confirmed, lag } = this.#reader;
    return {
      ...{ name, stream, functionName: this.#binding.functionName },
      committed: this.#totals.committed,
      deadLettered: this.#totals.deadLettered,
      lag: reading === undefined ? (this.#row.lag ?? 0) : lag,
      missing: this.#row.missing,
      position: reading === undefined ? (this.#row.position ?? 0) : confirmed,
      isReading: reading !== undefined,
    };
  }

  /** Applies changes of the subscription: another role, or a new position by nats_seek_stream. */
  configure(binding: Subscription, row: StreamRow): void {
    const isOther = binding.runAs !== this.#binding.runAs || binding.wrapper !== this.#binding.wrapper;
    this.#binding = binding;
    if (row.missing > this.#row.missing) this.#logMissing(row.missing - this.#row.missing);
    this.#row = row;
    if (!isOther && !this.#reader.isOutdated(row)) return;
    this.#reader.restart(performance.now());
    this.wake();
  }

  wake(): void {
    this.#reader.wake();
  }

  #onStep(reading: StreamRead, step: Step, outcome: Outcome): void {
    const present = this.#current;
    // The step belongs to an earlier read, whose queue is closed.
    if (present?.reading !== reading) return;
    if (outcome.kind === "deposed") {
      this.#reader.restart(performance.now());
      return;
    }
    const done = doneOf(step, outcome);
    if (done.length === 0) return;
    this.#reader.markDone(done);
    const replies = this.#reader.takeAcknowledged();
    const acknowledged = present.reading.acknowledgesEach ? replies : replies.slice(-1);
    present.source.acknowledge(acknowledged);
    present.source.pull();
  }

  /** Stops reading. A running batch may still commit. */
  end(): void {
    this.#hasEnded = true;
    clearTimeout(this.#timer);
    this.#stopReading();
  }

  /** Deletes the consumers in NATS after the subscription has ended. */
  async deleteConsumers(): Promise<void> {
    const { connection } = this.#context.connector;
    if (connection === undefined) return;
    try {
      await (await this.#sourceOf(connection)).deleteConsumers();
    } catch (error) {
      const { consumer, stream } = this.#config;
      this.#context.rareLog.warn(
        "cannot delete the consumer of a subscription that has ended; delete it by hand",
        `${consumer} of the stream ${stream}: ${errorText(error)}`,
      );
    }
  }

  #pump(): void {
    if (this.#hasEnded) return;
    clearTimeout(this.#timer);
    const step = this.#reader.next(performance.now());
    if (this.#current?.reading !== this.#reader.reading) this.#stopReading();
    if (this.#current === undefined && this.#reader.reading !== undefined) this.#startReading(this.#reader.reading);
    if (step !== undefined) {
      void this.#run(step);
      return;
    }
    const { readyAt } = this.#reader;
    if (!Number.isFinite(readyAt)) return;
    this.#timer = setTimeout(() => this.#pump(), Math.max(1, readyAt - performance.now()));
  }

  async #run(step: ReaderStep): Promise<void> {
    const outcome = await this.#outcomeOf(step).catch((error: unknown): ReaderOutcome => {
      const isProblem = error instanceof HawserError && error.code === "not_supported";
      if (isProblem || error instanceof JetStreamApiError) return { kind: "problem", problem: error.message };
      const { name, domain } = this.#config;
      // A check does not report this problem: if JetStream stays silent, the reader restarts by itself.
      if (error instanceof jserrors.JetStreamNotEnabled && step.kind !== "check") {
        const where = domain === undefined ? "" : ` of the domain "${domain}"`;
        return {
          kind: "problem",
          problem: `JetStream${where} does not answer; check that it is enabled for this account`,
        };
      }
      this.#context.rareLog.warn("cannot read a stream now; trying again", `${name}: ${errorText(error)}`);
      return { kind: "unavailable" };
    });
    if (this.#hasEnded) return;
    if (outcome.kind === "written" && step.kind === "record") this.#logRecorded(step);
    if (outcome.kind === "inspected") this.#created = outcome.info.created.replace(/\D/g, "");
    this.#reader.onOutcome(step, outcome, performance.now());
  }

  async #outcomeOf(step: ReaderStep): Promise<ReaderOutcome> {
    const { table, epoch, connector } = this.#context;
    const { id } = this.#config;
    const written = (isWritten: boolean): ReaderOutcome => ({ kind: isWritten ? "written" : "moved" });
    switch (step.kind) {
      case "take": {
        const state = await table.take(id, epoch);
        return state === undefined ? { kind: "moved" } : { kind: "taken", state };
      }
      case "record":
        return written(await table.record(id, step, epoch));
      case "note": {
        const isWritten = await table.note(id, step, epoch);
        return isWritten === "busy" ? { kind: "unavailable" } : written(isWritten);
      }
      default: {
        const { connection } = connector;
        if (connection === undefined) return { kind: "unavailable" };
        const source = await this.#sourceOf(connection);
        if (step.kind === "prepare") return { kind: "prepared", ...(await source.prepare(step)) };
        return { kind: "inspected", info: await source.inspect(step.state, step.kind === "check") };
      }
    }
  }

  async #sourceOf(connection: NatsConnection): Promise<StreamSource> {
    if (this.#source?.connection !== connection) {
      this.#source = await StreamSource.over(connection, this.#config, this.#context.connector.options?.domain);
    }
    return this.#source;
  }

  #startReading(reading: StreamRead): void {
    const source = this.#source;
    const { subscriptions, connector } = this.#context;
    if (source === undefined || source.connection !== connector.connection) {
      this.#reader.restart(performance.now());
      return;
    }
    const reader = this.#reader;
    const subscriptionOf = (lane: number): Subscription => ({
      ...this.#binding,
      stream: {
        generation: reading.generation,
        lane,
        server: reading.server,
        lag: (count) => reader.lag - count,
      },
    });
    const budget = new ByteBudget(Number.MAX_SAFE_INTEGER);
    const shared = subscriptions.context;
    const settings = { ...shared.settings, maxBatchMessages: streamBatchMessages };
    const context = { ...shared, settings, budget };
    const count = this.#config.keyToken === undefined ? 1 : streamQueues;
    const queues = Array.from(
      { length: count },
      (_, lane) => new SubscriptionQueue(subscriptionOf(lane), context, { totals: this.#totals }),
    );
    for (const queue of queues) queue.onStep = (step, outcome) => this.#onStep(reading, step, outcome);
    const unregister = queues.map((queue) => subscriptions.addStreamQueue(queue));
    if (unregister.includes(undefined)) return;
    const releaseConnection = connector.use(source.connection);
    this.#current = {
      ...{ reading, queues, copies: new PayloadCopies(), created: this.#created },
      releases: [...unregister.map((each) => each!), releaseConnection],
      source: source.read(reading.nth, {
        onMessage: (message) => this.#onMessage(message),
        onAnswer: () => reader.onAnswer(performance.now()),
        onRequest: () => reader.onRequest(performance.now()),
        onEnd: (problem) => this.#onInterrupted(reading, problem),
        room: () => (reader.reading === reading && reader.hasRoom ? reader.room : undefined),
      }),
    };
    void source.connection.closed().then(() => this.#onInterrupted(reading, "the connection to NATS was lost"));
    this.#context.logger.debug({ subscription: this.#config.name, position: reader.confirmed }, "reading a stream");
  }

  #stopReading(): void {
    const present = this.#current;
    this.#current = undefined;
    if (present === undefined) return;
    present.source.stop();
    for (const release of present.releases) release();
  }

  #onInterrupted(reading: StreamRead, problem: string): void {
    if (this.#hasEnded || this.#reader.reading !== reading) return;
    this.#context.rareLog.warn("reading a stream was interrupted and restarts", `${this.#config.name}: ${problem}`);
    this.#reader.restart(performance.now());
  }

  #onMessage(delivery: Delivery): void {
    const present = this.#current;
    if (present === undefined) return;
    const { number, nth, at, pending, reply } = delivery;
    const { subject, data } = delivery.message;
    const received = receivedHeaders(delivery.message);
    const headers = received?.toJsonText();
    const receivedAt = performance.now();
    const bytes = memoryOf({ subject, payload: data, headers });
    const place = this.#reader.receive({ number, nth, at, bytes, reply }, pending, receivedAt);
    if (place === undefined) return;
    present.queues[this.#queueOf(subject)]!.offer({
      // A stream that was restored to an older state gives its next messages the numbers of those that it has lost.
      id: `${present.created}-${number}-${at}`,
      subject,
      payload: present.copies.of(data),
      headers,
      headersProblem: received?.problem,
      receivedAt,
      place,
    });
  }

  /** Lane of a message: messages with the same key token go to the same queue. */
  #queueOf(subject: string): number {
    const { keyToken } = this.#config;
    if (keyToken === undefined) return 0;
    const token = subject.split(".")[keyToken - 1] ?? "";
    let hash = 0;
    for (let index = 0; index < token.length; index += 1) hash = (hash * 31 + token.charCodeAt(index)) >>> 0;
    return hash % streamQueues;
  }

  #logRecorded({ state, missing }: Extract<ReaderStep, { kind: "record" }>): void {
    const { name: subscription, stream } = this.#config;
    const { logger } = this.#context;
    if (state.problem !== undefined) {
      logger.error({ subscription, stream, problem: state.problem }, "a stream subscription cannot continue");
    }
    if (missing !== undefined) {
      const details = { subscription, stream, ...missing };
      if (missing.reason === "recreated") {
        const text = "a stream was created again: messages of the old one that a subscription had not read are lost";
        logger.error(details, text);
      } else {
        const level = missing.reason === "overwritten" ? "info" : "error";
        logger[level](details, "a stream removed messages before a subscription read them");
      }
      if (missing.reason !== "overwritten") this.#row = { ...this.#row, missing: this.#row.missing + missing.count };
    }
  }

  /** Logs missing messages that were noticed as gaps in the sequence. */
  #logMissing(count: number): void {
    const { name: subscription, stream } = this.#config;
    this.#context.logger.error(
      { subscription, stream, count },
      "messages were deleted from a stream before a subscription read them",
    );
  }
}

/** Positions of the messages that a step has finished; retried dead letters have none. */
function doneOf(step: Step, outcome: Outcome): readonly StreamPlace[] {
  if (step.kind === "fetch" || (outcome.kind !== "committed" && outcome.kind !== "partly")) return [];
  const messages = step.kind === "batch" ? step.messages : [step.message];
  const done = outcome.kind === "partly" ? messages.slice(0, outcome.committed) : messages;
  return done.flatMap(({ place }) => place ?? []);
}
