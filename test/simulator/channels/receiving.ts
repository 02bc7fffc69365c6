/**
 * The receiving half of a simulated process: who is let in, the queries to the store, the handlers, the commits, and the worker that
 * handles rows of the queue.
 */

import {
  comparePositions,
  type HandlerResult,
  type IncomingMessage,
  type LeavingMessage,
  ListenerChannel,
  type ListenerEffects,
  type Position,
  type SendOutcome,
  type StartedMessage,
} from "../../../src/jobs-and-peers/channel/index.js";
import { ConcurrencyLimit, changeLimit } from "../../../src/jobs-and-peers/handlers/limits/concurrency-limit.js";
import { Violation } from "../records.js";
import type { Wire } from "./network.js";
import type { PeerProcess } from "./process.js";
import type { MessageRecord, Start } from "./records.js";
import { type Leaving, type OwnedChannel, type QueueRow, type RowEnd, type RowLease, rowKey } from "./store.js";
import type { ChannelWorld } from "./world.js";

interface Incoming {
  readonly key: number;
  channel: ListenerChannel;
  effects: ListenerEffects;
  timerAt: number;
  committing: boolean;
  toCommit: Position | undefined;
  /** What leaves with the next commit. */
  leaving: Leaving[];
  /** Messages that their handlers want later, and from when on. */
  readonly wanted: Map<MessageRecord, number>;
}

/** Row that this process has, and whose handler runs or has ended. */
interface RunningRow extends Pick<QueueRow, "key" | "position" | "payload" | "attempts" | "isSuspect"> {
  readonly lease: RowLease;
  /** Its insert is confirmed. */
  isCommitted: boolean;
  result: HandlerResult | undefined;
}

/** Number of handlers of rows that a process runs at a time. */
const rowsAtOnce = 3;
const simulatedFailure = { kind: "failed", errorCode: "handler_failed", errorMessage: "simulated" } as const;
const simulatedRefusal = { ...simulatedFailure, kind: "refused" } as const;

export class Receiving {
  readonly #channels = new Map<number, Incoming>();
  readonly #rows = new Map<RowLease, RunningRow>();
  /** Rows that were here before: an answer may tell of them again. */
  readonly #known = new WeakSet<RowLease>();
  /** Rows of messages that have left while their handlers run. */
  readonly #goingOn = new WeakMap<object, RowLease>();
  #isTaking = false;
  #takeAt = Number.POSITIVE_INFINITY;
  /** Limits of the topics that have one, and how many handlers of theirs run. */
  readonly #limits = new Map<number, { readonly limit: ConcurrencyLimit; running: number }>();
  /** Topics whose names are known, in runs with limits; one of the others is looked up at a time. */
  readonly #topics = new Set<number>();
  readonly #unknown = new ConcurrencyLimit(1);

  readonly process: PeerProcess;
  readonly world: ChannelWorld;

  constructor(process: PeerProcess) {
    this.process = process;
    this.world = process.world;
  }

  /** Nothing waits, runs or is being committed, and every channel is live. */
  get settled(): boolean {
    return (
      this.idle && [...this.#channels.values()].every(({ channel }) => channel.waitingMessages === 0 && channel.isLive)
    );
  }

  /** No handler runs, and what has ended is committed. */
  get idle(): boolean {
    return !this.#runsHandlers && this.committed;
  }

  get #runsHandlers(): boolean {
    if ([...this.#rows.values()].some(({ result }) => result === undefined)) return true;
    return [...this.#channels.values()].some(({ channel }) => channel.isHandling);
  }

  /** What has ended is committed. */
  get committed(): boolean {
    if ([...this.#rows.values()].some(({ result }) => result !== undefined)) return false;
    return [...this.#channels.values()].every(({ channel, committing }) => !channel.isCommitting && !committing);
  }

  #isOpen(incoming: Incoming): boolean {
    return this.#channels.get(incoming.key) === incoming;
  }

  channel(key: number): ListenerChannel | undefined {
    return this.#channels.get(key)?.channel;
  }

  /** The channels as they are after the lease was taken: nothing in memory but the committed cursors. */
  open(owned: ReadonlyMap<number, OwnedChannel>): void {
    const { world, wasClean } = this.process;
    for (const [key, { cursor, hasRows }] of owned) {
      const incoming: Omit<Incoming, "channel" | "effects"> = {
        key,
        timerAt: Number.POSITIVE_INFINITY,
        committing: false,
        toCommit: undefined,
        leaving: [],
        wanted: new Map(),
      };
      const opened = incoming as Incoming;
      const limits = {
        ...world.limits.listener,
        suspects: wasClean ? 0 : world.limits.suspects,
        hasRows,
        limitOf: ({ topicId }: IncomingMessage) => this.#limitUnder(topicId),
        leaves: ({ topicId }: IncomingMessage) => this.#leaves(topicId),
        ...world.mutant.listenerLimits,
      };
      const effects = this.#effects(opened);
      opened.effects = effects;
      opened.channel = world.mutant.listener?.(cursor, limits, effects) ?? new ListenerChannel(cursor, limits, effects);
      if (hasRows) world.counts.add("transition: channel opened with rows");
      if (limits.suspects > 0) world.counts.add("transition: channel opened with suspects");
      this.#arm(opened);
      this.#channels.set(key, opened);
      if (this.process.haltsHandlers) opened.channel.halt(true);
      opened.channel.onAnnounced();
    }
  }

  /** Whether the queue handles the messages of a topic: all of them, so that those of others need not wait where the run says so. */
  #leaves(topicId: number): false | "message" | "topic" {
    const { world, name } = this.process;
    if (!world.transactional && world.serves(name, topicId)) return false;
    return world.leavesTopics ? "topic" : "message";
  }

  /** Everything begins again from the cursors. */
  forget(): void {
    const old = [...this.#channels.values()];
    this.#channels.clear();
    this.#topics.clear();
    for (const { channel } of old) channel.close();
    // What was to be committed with a cursor comes again.
    for (const { lease, isCommitted } of this.#rows.values()) if (!isCommitted) this.#rows.delete(lease);
  }

  #isKnown(topicId: number): boolean {
    return !this.world.hasLimits || this.#topics.has(topicId);
  }

  /** Limit under which a message of a topic starts. */
  #limitUnder(topicId: number): ConcurrencyLimit | undefined {
    return this.#isKnown(topicId) ? this.#limitOf(topicId)?.limit : this.#unknown;
  }

  #limitOf(topicId: number) {
    const concurrency = this.world.concurrencyOf(topicId);
    if (concurrency === undefined) return undefined;
    let entry = this.#limits.get(topicId);
    if (entry === undefined) {
      entry = { limit: new ConcurrencyLimit(concurrency), running: 0 };
      this.#limits.set(topicId, entry);
    }
    return entry;
  }

  /** A handler starts or ends. */
  #count({ topicId }: IncomingMessage, change: 1 | -1): void {
    const entry = this.#limitOf(topicId);
    if (entry === undefined) return;
    entry.running += change;
    const { world, name } = this.process;
    const most = world.concurrencyOf(topicId)!;
    if (entry.running > most) throw new Violation(`${entry.running} handlers of topic ${topicId} run in "${name}"`);
    if (entry.running === most && change > 0) world.counts.add("transition: limit full");
  }

  /** No message waits that its limit, and nothing else, kept from starting before. */
  checkLimits(): void {
    if (this.process.haltsHandlers) return;
    for (const { channel, key } of this.#channels.values()) {
      if (!channel.canTake) continue;
      const turn = channel.take(this.process.now);
      if (turn === undefined) continue;
      const { position } = turn.running;
      const which = position === undefined ? "an at-most-once message" : `message ${rowKey(position)}`;
      throw new Violation(`${which} of channel ${key} waits, though nothing keeps it from starting`);
    }
  }

  halt(halted: boolean): void {
    for (const incoming of this.#channels.values()) {
      incoming.channel.halt(halted);
      this.#arm(incoming);
    }
  }

  /** The process stops in good order: its handlers have ended, or are cut off. */
  leaveUnfinished(): void {
    const { world, now } = this.process;
    for (const { channel } of this.#channels.values()) if (!world.mutant.keepsUnfinished) channel.leaveUnfinished(now);
    for (const row of this.#rows.values()) {
      row.result ??= { kind: "postponed" };
      this.#endRow(row);
    }
  }

  commitAll(): void {
    for (const incoming of this.#channels.values()) this.#commitNext(incoming);
    this.wakeWorker(0);
  }

  /** A topic is served from now on, or is not any more. */
  handlersChanged(): void {
    for (const incoming of this.#channels.values()) {
      incoming.channel.handlersChanged();
      this.#arm(incoming);
    }
  }

  askStore(): void {
    for (const { channel } of this.#channels.values()) channel.onAnnounced();
  }

  tickAll(): void {
    for (const incoming of this.#channels.values()) {
      incoming.channel.tick(this.process.now);
      this.#arm(incoming);
    }
  }

  /** The store may have something in a channel. */
  announced(key: number): void {
    this.#channels.get(key)?.channel.onAnnounced();
  }

  /** The slow poll. */
  poll(): void {
    const { world } = this;
    this.process.read(
      () => [...world.store.owned(this.process.name).keys()].filter((key) => world.store.rowsOf(key).size > 0),
      (found) => {
        if (found.kind !== "ok") return;
        for (const key of found.value) this.#channels.get(key)?.channel.onPolled();
      },
    );
  }

  /** A Hello came in: the catalog says whether the sender's epoch and ours are the newest. */
  hello(wire: Wire, key: number, sender: PeerProcess, welcomed: (wire: Wire) => void): void {
    const { process, world } = this;
    const epoch = sender.epoch;
    const incoming = this.#channels.get(key);
    if (process.haltsHandlers || incoming === undefined) {
      wire.cut();
      return;
    }
    process.read(
      () => ({
        sender: world.store.epochOf(sender.name),
        backlog: world.store.rowsAbove(key, incoming.channel.accepted).length,
      }),
      (found) => {
        if (!wire.open) return;
        if (found.kind !== "ok" || process.haltsHandlers || !this.#isOpen(incoming)) return wire.cut();
        if ((found.value.sender ?? 0) > epoch) {
          world.counts.add("transition: hello refused as fenced");
          wire.cut();
          sender.deliver(() => sender.helloRefused());
          return;
        }
        const { channel } = incoming;
        const told = world.mutant.welcome?.(channel) ?? channel.committed;
        const welcome = {
          ...channel.welcome(found.value.backlog),
          cursorEpoch: told.epoch,
          cursor: told.number,
          maxMessageBytes: world.maxMessageBytes(),
        };
        if (!channel.onHello(wire, epoch, found.value.backlog)) return wire.cut();
        wire.onClosed[1] = () => process.deliver(() => incoming.channel.onClosed(wire));
        wire.send(1, () =>
          sender.deliver(() => {
            if (!sender.isOn(wire, key)) return;
            welcomed(wire);
            world.checkAck(key, epoch, told);
            sender.connected(wire, key, world.mutant.welcomed?.(welcome) ?? welcome);
          }),
        );
      },
    );
  }

  messages(wire: Wire, key: number, batch: IncomingMessage[]): void {
    const incoming = this.#channels.get(key);
    if (incoming === undefined || wire.keepUnread(() => this.messages(wire, key, batch))) return;
    const begun = this.#pass(wire, incoming, batch);
    if (!this.#isOpen(incoming)) return;
    if (begun < batch.length) incoming.channel.onMessages(wire, batch.slice(begun), this.process.now);
    this.world.checkListener(incoming.channel);
    this.#arm(incoming);
  }

  /** Handlers that are done at once get the messages of a batch as they come. @returns how many have begun */
  #pass(wire: Wire, incoming: Incoming, batch: readonly IncomingMessage[]): number {
    const { process, world } = this;
    const { channel } = incoming;
    const { position } = batch[0]!;
    const isPlain = ({ topicId, key }: IncomingMessage) =>
      key === undefined &&
      this.#isKnown(topicId) &&
      world.serves(process.name, topicId) &&
      world.concurrencyOf(topicId) === undefined;
    if (world.transactional || !batch.every(isPlain) || !world.random.chance(world.passRate)) return 0;
    if (!channel.canPassThrough(wire, position?.epoch ?? 0, position?.number ?? 0)) return 0;
    let done = 0;
    let bytes = 0;
    const passed = () => {
      if (done > 0) channel.passedThrough(batch[done - 1]!.position, done, bytes, process.now);
    };
    for (const message of batch) {
      const record = world.recordOf(message);
      if (record.hops > 0 || channel.isHalted || world.random.chance(0.05)) break;
      const start = this.#starts(incoming, message);
      if (record.poison) {
        world.counts.add("fault: message that kills its process");
        process.kill();
        return batch.length;
      }
      world.handlerEnded(start);
      const fails = world.random.chance(world.handlerFaultRate);
      if (!fails || world.mutant.passesWhatFails) {
        done += 1;
        bytes += message.payload.length;
      }
      if (fails) {
        world.counts.add("fault: handler failed");
        world.counts.add("transition: passed messages end with one that fails");
        passed();
        if (world.mutant.passesWhatFails) return done;
        const turn: StartedMessage | undefined = channel.startPassedThrough(message, process.now);
        if (turn === undefined) throw new Violation(`message ${record.id} was passed, and is not the next one`);
        this.#finish(incoming, turn, simulatedFailure);
        return done + 1;
      }
      world.handled(record, process);
      world.ended(incoming, message);
    }
    passed();
    if (done > 1) world.counts.add("transition: batch passed");
    return done;
  }

  #effects(incoming: Incoming): ListenerEffects {
    const { process, world } = this;
    const { key } = incoming;
    return {
      writeAck: (connection, ack) => {
        const wire = connection as Wire;
        if (ack.busy) world.counts.add("transition: listener busy");
        if (ack.live) {
          world.counts.add("transition: listener live ack");
          world.checkLive(process, incoming.channel, wire);
        }
        // Acks of one tick are one frame, with the newest words.
        if (wire.pendingAck !== undefined) world.counts.add("transition: acks coalesced");
        else {
          world.schedule.after(world.random.chance(0.1) ? world.random.delay(2) : 0, () => {
            const newest = wire.pendingAck!;
            wire.pendingAck = undefined;
            wire.send(1, () => world.atDialler(wire, (sender) => sender.acked(wire, key, newest)));
          });
        }
        wire.pendingAck = ack;
      },
      closeConnection: (connection) => {
        world.counts.add("transition: connection replaced");
        (connection as Wire).cut();
      },
      pauseReading: (connection, paused) => {
        if (paused) world.counts.add("transition: reading paused");
        (connection as Wire).pauseReading(paused);
      },
      query: (after) => {
        const { drainRows } = world.limits;
        process.read(
          () => world.store.rowsAbove(key, after),
          (found) => {
            if (!this.#isOpen(incoming)) return;
            if (found.kind !== "ok") {
              incoming.channel.onQueryFailed();
              process.after(world.random.delay(30), () => incoming.channel.retryQuery());
              return;
            }
            const rows = found.value.slice(0, drainRows).map((row) => ({
              position: row.position,
              topicId: row.topicId,
              payload: row.payload,
              encoding: undefined,
              headers: undefined,
              key: world.keyOf(row.payload),
              fromWire: false,
            }));
            if (rows.length > 0) world.counts.add("transition: listener drained rows");
            incoming.channel.onRows(rows, found.value.length - rows.length, process.now);
            world.checkListener(incoming.channel);
            this.#arm(incoming);
          },
        );
      },
      deleteStale: (cursor) => {
        world.counts.add("transition: stale rows deleted");
        world.store.deleteStale(process.callFor(key), cursor);
      },
      commit: (cursor, leaving) => {
        if (!this.#isOpen(incoming)) return;
        incoming.toCommit = cursor;
        for (const each of leaving) incoming.leaving.push(this.#leavingOf(incoming, each));
        this.#commitNext(incoming);
      },
      mayGoOn: () => process.lease === "held" && process.session !== undefined,
      askLanes: (keys) => {
        const served = new Set(world.topicIds.filter((topicId) => this.#leaves(topicId) !== "topic"));
        world.store.findLanes(
          process.callFor(key),
          keys,
          (topicId) => served.has(topicId),
          (result) =>
            process.deliver(() => {
              if (!this.#isOpen(incoming)) return;
              const answer = () => {
                const { left, hasRows } = result.kind === "ok" ? result.value : { left: undefined, hasRows: true };
                if (left !== undefined && left.size > 0) world.counts.add("transition: lane still away");
                if (left !== undefined && left.size < keys.length) world.counts.add("transition: lane comes back");
                if (this.#isOpen(incoming)) incoming.channel.onLanes(left, hasRows, process.now);
                this.#arm(incoming);
              };
              if (result.kind === "ok") answer();
              else process.after(world.random.delay(30), answer);
            }),
        );
      },
      ready: () => process.after(0, () => this.#handleNext(incoming)),
      run: () => this.#handleNext(incoming),
      limitFreed: (limit) => {
        world.counts.add("transition: limit freed");
        process.after(0, () => limit.runWaiters(() => true));
      },
      dropped: () => world.counts.add("transition: at-most-once handler failed"),
      gap: (epoch, first, last) => world.gap(process, key, epoch, first, last),
    };
  }

  #leavingOf(incoming: Incoming, leaving: LeavingMessage): Leaving {
    const { process, world } = this;
    const { message, key: messageKey, attempts, dueAt = 0, isSuspect, turn, dead } = leaving;
    const { position, topicId, payload } = message;
    const record = world.recordOf(message);
    const wantedAt = incoming.wanted.get(record);
    incoming.wanted.delete(record);
    if (wantedAt !== undefined && (dueAt < wantedAt || attempts > 0))
      throw new Violation(`message ${record.id} is not to come when its handler wants it, as the same attempt`);
    if (isSuspect) world.counts.add("transition: suspect left");
    else if (turn !== undefined) world.counts.add("transition: left while its handler runs");
    else if (dead === undefined)
      world.counts.add(`transition: left ${attempts > 0 ? "after an attempt" : "before an attempt"}`);
    let lease: RowLease | undefined;
    if (turn !== undefined) {
      lease = { session: process.session! };
      this.#known.add(lease);
      this.#goingOn.set((turn as StartedMessage).place, lease);
      const { key } = incoming;
      const row = { key, position, lease, payload, attempts, isSuspect, isCommitted: false, result: undefined };
      this.#rows.set(lease, row);
    }
    const recipient = world.serves(process.name, topicId) ? process.name : undefined;
    const isDead = dead !== undefined;
    return { position, messageKey, topicId, payload, recipient, attempts, dueAt, isSuspect, lease, isDead };
  }

  #commitNext(incoming: Incoming): void {
    const { process, world } = this;
    const { toCommit: cursor, channel, key } = incoming;
    if (!this.#isOpen(incoming) || incoming.committing || process.lease !== "held" || cursor === undefined) return;
    incoming.committing = true;
    incoming.toCommit = undefined;
    const leaving = incoming.leaving.splice(0);
    world.store.commitCursor(process.callFor(key), cursor, leaving, (result) =>
      process.deliver(() => {
        // Begun before the name was taken anew: the server of before says nothing about the epoch of now.
        if (!this.#isOpen(incoming)) return;
        if (result.kind === "ok" && result.value === "fenced") {
          world.counts.add("transition: cursor fenced");
          return process.lose();
        }
        incoming.committing = false;
        if (result.kind !== "ok") {
          incoming.toCommit ??= cursor;
          incoming.leaving.unshift(...leaving);
          process.after(world.random.delay(30), () => this.#commitNext(incoming));
          return;
        }
        channel.onCommitted(cursor, process.now);
        this.#arm(incoming);
        for (const { payload, lease } of leaving) {
          world.ended(incoming, { payload });
          const row = lease && this.#rows.get(lease);
          if (row === undefined) continue;
          row.isCommitted = true;
          this.#endRow(row);
        }
        this.#commitNext(incoming);
        process.endIfStopped();
      }),
    );
  }

  // ---- rows of the queue ----

  /** Takes rows after a while. */
  wakeWorker(delayMs: number): void {
    const { process } = this;
    const at = process.now + delayMs;
    if (at >= this.#takeAt) return;
    this.#takeAt = at;
    process.after(delayMs, () => {
      if (this.#takeAt !== at) return;
      this.#takeAt = Number.POSITIVE_INFINITY;
      this.#takeRows();
    });
  }

  #takeRows(): void {
    const { process, world } = this;
    const { session } = process;
    const rows = [...this.#rows.values()];
    if (process.haltsHandlers || session === undefined || this.#isTaking) return;
    if (rows.length >= rowsAtOnce || rows.some(({ isSuspect }) => isSuspect)) return;
    this.#isTaking = true;
    world.store.take(process.callFor(0), session, rowsAtOnce, (result) =>
      process.deliver(() => {
        this.#isTaking = false;
        if (result.kind !== "ok") this.wakeWorker(world.random.delay(30));
        else if (session === process.session) for (const row of result.value) this.#begin(row);
      }),
    );
  }

  #begin({ key, position, lease, payload, attempts, isSuspect, messageKey }: QueueRow): void {
    const { process, world } = this;
    if (lease === undefined || this.#known.has(lease)) return;
    this.#known.add(lease);
    const row: RunningRow = {
      key,
      position,
      lease,
      payload,
      attempts,
      isSuspect,
      isCommitted: true,
      result: undefined,
    };
    this.#rows.set(lease, row);
    const record = world.recordOf(row);
    const start = world.handlerStarts({
      ...{ process, record, position, key, messageKey, opened: undefined },
      isHeld: () => world.store.rowOf(lease) !== undefined,
    });
    this.#runHandler(start, record, (result) => {
      if (result.kind === "done" && !world.transactional) world.handled(record, process);
      row.result = result;
      this.#endRow(row);
    });
  }

  /** Its handler has ended, and its insert is confirmed: the row ends. */
  #endRow(row: RunningRow): void {
    const { process, world } = this;
    const { lease, payload, result, isCommitted } = row;
    if (result === undefined || !isCommitted) return;
    const record = world.recordOf(row);
    const effect = () => {
      world.counts.add("transition: row done");
      // One that did not have it any more may have been the first.
      record.started = Math.max(1, record.started);
      if (world.transactional) world.effect(payload);
    };
    world.store.endRow(process.callFor(row.key), row, this.#rowEndOf(row, result), effect, (ended) =>
      process.deliver(() => {
        if (ended.kind !== "ok") {
          process.after(world.random.delay(30), () => this.#endRow(row));
          return;
        }
        this.#rows.delete(lease);
        this.wakeWorker(0);
        process.endIfStopped();
      }),
    );
  }

  #handleNext(incoming: Incoming): void {
    const { process, world } = this;
    const { channel } = incoming;
    if (!this.#isOpen(incoming)) return;
    const turn = channel.take(process.now);
    if (turn === undefined) return;
    const { running: message } = turn;
    if (incoming.channel.canTake) {
      world.counts.add("transition: handled side by side");
      process.after(0, () => this.#handleNext(incoming));
    }
    this.#arm(incoming);
    if (this.#isKnown(message.topicId)) this.#handle(incoming, turn);
    else this.#lookUpTopic(incoming, turn);
  }

  /** The name of the topic is unknown, and with it the limit of its handler. */
  #lookUpTopic(incoming: Incoming, turn: StartedMessage): void {
    const { process, world } = this;
    const { topicId } = turn.running;
    world.counts.add("transition: topic looked up");
    const known = () => {
      if (this.#isOpen(incoming)) this.#topics.add(topicId);
      const { effects } = incoming;
      const waiter = world.mutant.movesSilently ? { ...effects, limitFreed: () => undefined } : effects;
      if (changeLimit(turn, this.#limitUnder(topicId), waiter)) this.#handle(incoming, turn);
      else {
        world.counts.add("transition: limit full after the look-up");
        this.#finish(incoming, turn, { kind: "postponed" });
      }
    };
    process.after(world.random.delay(2), known);
  }

  #handle(incoming: Incoming, turn: StartedMessage): void {
    const { process, world } = this;
    const { running: message, place } = turn;
    if (!this.#isOpen(incoming)) this.#finish(incoming, turn, { kind: "postponed" });
    else if (message.position !== undefined && this.#leaves(message.topicId) !== false) {
      world.counts.add("transition: topic left after its message was accepted");
      this.#finish(incoming, turn, { kind: "postponed" });
    } else if (world.random.chance(world.handlerFaultRate / 4)) {
      world.counts.add("fault: handler postponed");
      this.#finish(incoming, turn, { kind: "postponed" });
    } else {
      const start = this.#starts(incoming, message, place);
      this.#count(message, 1);
      this.#runHandler(start, world.recordOf(message), (result) => {
        this.#count(message, -1);
        if (result.kind === "done") world.handled(world.recordOf(message), process);
        this.#finish(incoming, turn, result);
      });
    }
  }

  /** The handler of a message of a channel starts. @param place the message's, unless it is passed */
  #starts(incoming: Incoming, message: IncomingMessage, place: object = message): Start {
    const { process, world } = this;
    const { key } = incoming;
    const { position } = message;
    const isHeld = () => {
      const lease = this.#goingOn.get(place);
      if (lease !== undefined && world.store.rowOf(lease) !== undefined) return true;
      if (lease !== undefined && world.store.isPassed(key, position!)) return false;
      return this.#isOpen(incoming) && world.holdsName(process) && !process.isCutOff;
    };
    const opened = this.#goingOn.has(place) ? undefined : incoming;
    const record = world.recordOf(message);
    const { messageKey } = record;
    return world.handlerStarts({ process, record, position, key, messageKey, isHeld, opened });
  }

  /** The handler of the application: it takes its time, fails, sends on, or ends the process. */
  #runHandler(start: Start, record: MessageRecord, ended: (result: HandlerResult) => void): void {
    const { process, world } = this;
    const end = () =>
      process.deliver(() => {
        if (process.isCutOff) return;
        world.handlerEnded(start);
        if (record.poison) {
          world.counts.add("fault: message that kills its process");
          process.kill();
        } else if (!world.random.chance(world.handlerFaultRate)) ended({ kind: "done" });
        else if (world.random.chance(0.2)) {
          world.counts.add("fault: handler wants it later");
          const delayMs = world.random.pick([0, 1_000, 20_000]) * world.random.next();
          ended({ ...simulatedFailure, kind: "deferred", delayMs });
        } else {
          world.counts.add("fault: handler failed");
          ended(world.random.chance(0.1) ? simulatedRefusal : simulatedFailure);
        }
      });
    if (record.hops > 0) world.sendOn(process, record, (_outcome: SendOutcome) => end());
    else world.schedule.after(world.handlerMs(), end);
  }

  #finish(incoming: Incoming, turn: StartedMessage, result: HandlerResult): void {
    const { process, world } = this;
    const { running: message, place } = turn;
    const lease = this.#goingOn.get(place);
    if (!this.#isOpen(incoming)) {
      // The channel is closed, and its messages are handled again; only its limit hears of the end.
      incoming.channel.finish(turn, { kind: "postponed" }, process.now);
    } else {
      if (result.kind === "deferred" && message.position !== undefined && lease === undefined)
        incoming.wanted.set(world.recordOf(message), process.now + result.delayMs);
      incoming.channel.finish(turn, world.mutant.handlerResult?.(result) ?? result, process.now);
      if (place.leaving === undefined || place.leaving.dead !== undefined) world.ended(incoming, message);
      const { committed, accepted } = incoming.channel;
      if (comparePositions(committed, accepted) > 0) throw new Violation("the cursor passed the watermark");
      this.#arm(incoming);
      this.#handleNext(incoming);
    }
    const row = lease && this.#rows.get(lease);
    if (row !== undefined) {
      row.result = result;
      this.#endRow(row);
    }
    process.endIfStopped();
  }

  /** What becomes of a row whose handler has ended so. */
  #rowEndOf({ attempts: before }: RunningRow, result: HandlerResult): RowEnd {
    const { attempts: most, delayMs } = this.world.limits.listener.retryOf();
    const attempts = before + (result.kind === "failed" ? 1 : 0);
    if (result.kind === "done") return { kind: "done" };
    if (result.kind === "refused" || attempts >= most) return { kind: "dead" };
    const waitMs = result.kind === "deferred" ? result.delayMs : delayMs(Math.max(1, attempts));
    return { kind: "again", attempts, dueAt: this.process.now + waitMs };
  }

  #arm(incoming: Incoming): void {
    this.process.armTimer(incoming, incoming.channel);
  }
}
