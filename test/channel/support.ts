import {
  type HandlerResult,
  type Headers,
  type IncomingMessage,
  type LeavingMessage,
  ListenerChannel,
  type ListenerEffects,
  type ListenerLimits,
  type OutgoingMessage,
  type Position,
  SenderChannel,
  type SenderEffects,
  type SenderLimits,
  type StartedMessage,
  type StoredRow,
} from "../../src/jobs-and-peers/channel/index.js";
import { type Ack, Delivery } from "../../src/jobs-and-peers/wire/index.js";

interface Named extends OutgoingMessage {
  readonly ticket: string;
}

const senderLimits: SenderLimits = {
  ackTimeoutMs: 2_000,
  sendTimeoutMs: 30_000,
  connectWaitMs: 1_000,
  maxSendQueueMessages: 10,
  maxSendQueueBytes: 1_000,
  insertRows: 4,
  insertBytes: 500,
  batchTargetBytes: 100,
  batchMaxMessages: 8,
  shortBacklogRows: 3,
  storeRetryMinMs: 50,
  storeRetryMaxMs: 2_000,
};

/** A sender's channel with epoch 7 whose effects are written down, one line each. */
export class SenderBench implements SenderEffects<Named> {
  readonly log: string[] = [];
  readonly channel: SenderChannel<Named>;

  constructor(limits: Partial<SenderLimits> = {}, lastNumber = 0) {
    this.channel = new SenderChannel(7, { ...senderLimits, ...limits }, this, lastNumber);
  }

  /** Bench whose first dial has failed. */
  static down(...options: ConstructorParameters<typeof SenderBench>): SenderBench {
    const bench = new SenderBench(...options);
    bench.channel.onDialFailed(0);
    return bench;
  }

  /** Bench that is connected and goes live. */
  static live(): SenderBench {
    const bench = new SenderBench();
    bench.connect("c1", 0);
    return bench;
  }

  /** Offers messages named by their tickets, and flushes. */
  send(now: number, ...tickets: string[]): void {
    for (const ticket of tickets) {
      const delivery = ticket.startsWith("~") ? Delivery.AT_MOST_ONCE : Delivery.AT_LEAST_ONCE;
      const payload = new Uint8Array(10);
      const rest = { topicId: 1, encoding: undefined, headers: undefined };
      if (!this.channel.offer({ delivery, payload, ticket, ...rest }, now)) this.log.push(`refused ${ticket}`);
    }
    this.channel.flush(now);
  }

  /** Connects with a short backlog, so that the channel goes live. */
  connect(
    connection: unknown,
    now: number,
    backlog = 0,
    cursor: Position = { epoch: 0, number: 0 },
    credit = 500,
    queued = 0,
  ): void {
    const { epoch: cursorEpoch, number } = cursor;
    const welcome = { cursorEpoch, cursor: number, backlog, credit, maxMessageBytes: 50, queued };
    this.channel.onConnected(connection, welcome, now);
  }

  ack(connection: unknown, now: number, number: number, news: Partial<Ack> = {}): void {
    this.channel.onAck(
      connection,
      { epoch: 7, number, credit: 500, backlog: 0, busy: false, live: true, queued: 0, ...news },
      now,
    );
  }

  /** Takes the entries since the last call. */
  take(): string[] {
    return this.log.splice(0);
  }

  writeBatch(_delivery: Delivery, _topicKey: number, first: number, messages: Named[]): void {
    this.log.push(`write ${first} ${messages.map(({ ticket }) => ticket).join(",")}`);
  }
  writeGoLive(): void {
    this.log.push("write GoLive");
  }
  store(firstNumber: number, messages: Named[]): void {
    this.log.push(`store ${messages.map((_message, index) => firstNumber + index).join(",")}`);
  }
  announce(): void {
    this.log.push("announce");
  }
  sendEnded({ ticket }: Named, outcome: string): void {
    this.log.push(`${ticket} ${outcome}`);
  }
  linkChanged(): void {}
}

const listenerLimits: Omit<ListenerLimits, "retryOf"> = {
  limitOf: () => undefined,
  creditBytes: 100,
  maxCreditGrowth: 4,
  busyAfterMs: 10,
  shortBacklogRows: 3,
  refillBelow: 4,
  refillBelowBytes: 1_000,
  messageOverheadBytes: 0,
  leaveAfterMs: 500,
  askLeastMs: 100,
  askMostMs: 1_000,
  lanesAtOnce: 2,
  leaves: () => false,
  suspects: 0,
  hasRows: false,
};

/** Limits that a test sets, with numbers in place of the policy. */
type BenchLimits = Partial<Omit<ListenerLimits, "retryOf">> & { maxAttempts?: number; retryDelayMs?: number };

/** A listener's channel whose effects are written down, one line each. */
export class ListenerBench implements ListenerEffects {
  readonly log: string[] = [];
  readonly channel: ListenerChannel;
  /** Credit of the last Ack, in bytes. */
  credit = 0;
  /** Messages whose handlers run, in the order in which they began. */
  readonly turns: StartedMessage[] = [];
  /** Whether the process can have rows whose handlers run. */
  goesOn = true;

  constructor(
    cursor: Position = { epoch: 7, number: 0 },
    { maxAttempts = 3, retryDelayMs = 100, ...limits }: BenchLimits = {},
  ) {
    const retry = { attempts: maxAttempts, delayMs: (attempts: number) => retryDelayMs * 2 ** (attempts - 1) };
    const all = { ...listenerLimits, ...limits, retryOf: () => retry };
    this.channel = new ListenerChannel(cursor, all, this);
  }

  /** Bench that has had a Hello of the epoch it knows. */
  static connected(limits?: BenchLimits): ListenerBench {
    const bench = new ListenerBench(undefined, limits);
    bench.channel.onHello("c1", 7, 0);
    return bench;
  }

  take(): string[] {
    return this.log.splice(0);
  }

  /** Begins with the message that is next. */
  begin(now: number): IncomingMessage | undefined {
    const turn = this.channel.take(now);
    if (turn !== undefined) this.turns.push(turn);
    return turn?.running;
  }

  /** Turn of the message with this number. */
  turnOf(number: number): StartedMessage {
    return this.turns.find(({ running }) => running.position?.number === number)!;
  }

  /** The cursor is committed, with what leaves with it. */
  committed(number: number, now = 0): void {
    this.channel.onCommitted({ epoch: 7, number }, now);
  }

  /** The queue has rows of these lanes. */
  lanes(left: (string | undefined)[], hasRows = left.length > 0, now = 0): void {
    this.channel.onLanes(new Set(left), hasRows, now);
  }

  /** The handler of the message that was begun last, or of another one, has ended. */
  finish(result: HandlerResult, now: number, turn = this.turns.at(-1)!): void {
    this.turns.splice(this.turns.indexOf(turn), 1);
    this.channel.finish(turn, result, now);
  }

  /** Handles the message that is next. */
  handle(now: number): void {
    this.begin(now);
    this.finish({ kind: "done" }, now);
  }

  /** Messages with these numbers come over a connection; undefined stands for an at-most-once one. */
  messages(connection: unknown, now: number, numbers: (number | undefined)[], epoch = 7, key?: string): void {
    this.channel.onMessages(
      connection,
      numbers.map((number) => message(epoch, number, true, key)),
      now,
    );
  }

  /** Passes messages of a batch from a number on (0: at most once), if they may pass. @returns whether they may */
  pass(connection: unknown, now: number, first: number, count: number): boolean {
    if (!this.channel.canPassThrough(connection, 7, first)) return false;
    const last = first === 0 ? undefined : { epoch: 7, number: first + count - 1 };
    if (count > 0) this.channel.passedThrough(last, count, 10 * count, now);
    return true;
  }

  /** Begins with the message behind those that were passed. */
  beginPassed(now: number, number: number | undefined): void {
    this.turns.push(this.channel.startPassedThrough(message(7, number, true), now));
  }

  /** At-most-once messages with these payloads and headers come over a connection. */
  unnumbered(connection: unknown, count: number, payloadBytes: number, headers?: Headers): void {
    const one = { ...message(7, undefined, true), payload: new Uint8Array(payloadBytes), headers };
    this.channel.onMessages(connection, new Array<IncomingMessage>(count).fill(one), 0);
  }

  /** Messages with these keys come over a connection, numbered from `first` on. */
  keyed(connection: unknown, now: number, first: number, keys: (string | undefined)[]): void {
    this.channel.onMessages(
      connection,
      keys.map((key, index) => message(7, first + index, true, key)),
      now,
    );
  }

  /** Begins with all that may. @returns their numbers */
  beginAll(now: number): number[] {
    const begun: number[] = [];
    for (let next = this.begin(now); next; next = this.begin(now)) begun.push(next.position!.number);
    return begun;
  }

  /** A query finds rows. */
  rows(numbers: number[], remaining = 0, epoch = 7): void {
    this.channel.onRows(
      numbers.map((number) => message(epoch, number, false) as StoredRow),
      remaining,
      0,
    );
  }

  /** Handles everything that waits. @returns the positions handled */
  handleAll(now: number): string[] {
    const handled: string[] = [];
    for (let next = this.begin(now); next; next = this.begin(now)) {
      handled.push(next.position ? place(next.position) : "~");
      this.finish({ kind: "done" }, now);
    }
    return handled;
  }

  writeAck(connection: unknown, { epoch, number, credit, backlog, busy, live, queued }: Ack): void {
    this.credit = credit;
    const words = [
      busy && "busy",
      live && "live",
      backlog > 0 && `backlog ${backlog}`,
      queued > 0 && `queued ${queued}`,
    ];
    this.log.push(`ack ${connection} ${epoch}/${number} ${words.filter(Boolean).join(" ")}`.trim());
  }
  closeConnection(connection: unknown): void {
    this.log.push(`close ${connection}`);
  }
  pauseReading(connection: unknown, paused: boolean): void {
    this.log.push(`${paused ? "pause" : "resume"} ${connection}`);
  }
  query(after: Position): void {
    this.log.push(`query above ${place(after)}`);
  }
  deleteStale(cursor: Position): void {
    this.log.push(`delete up to ${place(cursor)}`);
  }
  commit(cursor: Position, leaving: readonly LeavingMessage[]): void {
    const words = leaving.map(({ message, attempts, dueAt, isSuspect, turn, dead }) =>
      [
        message.position.number,
        attempts > 0 && `after ${attempts}`,
        dueAt !== undefined && `until ${dueAt}`,
        isSuspect && "suspect",
        turn !== undefined && "running",
        dead !== undefined && `dead ${dead.errorCode}`,
      ]
        .filter(Boolean)
        .join(" "),
    );
    this.log.push(`commit ${place(cursor)}${words.map((word) => `, ${word}`).join("")}`);
  }
  mayGoOn(): boolean {
    return this.goesOn;
  }
  askLanes(keys: readonly (string | undefined)[]): void {
    this.log.push(`ask ${keys.map((key) => key ?? "~").join(" ")}`);
  }
  run(): void {
    this.beginAll(0);
  }
  limitFreed(): void {
    this.log.push("limit freed");
  }
  ready(): void {}
  dropped(_message: IncomingMessage, errorCode: string): void {
    this.log.push(`dropped ${errorCode}`);
  }
  gap(epoch: number, first: number, last: number): void {
    this.log.push(`gap ${epoch}/${first}-${last}`);
  }
}

function message(epoch: number, number: number | undefined, fromWire: boolean, key?: string): IncomingMessage {
  return {
    position: number === undefined ? undefined : { epoch, number },
    topicId: 1,
    payload: new Uint8Array(10),
    encoding: undefined,
    headers: undefined,
    key,
    fromWire,
  };
}

function place({ epoch, number }: Position): string {
  return `${epoch}/${number}`;
}
