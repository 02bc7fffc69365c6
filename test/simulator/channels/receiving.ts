/**
 * The receiving channels of a simulated process: who is let in, the queries to the store, the handlers and the commits.
 */

import {
  comparePositions,
  type HandlerResult,
  type IncomingMessage,
  ListenerChannel,
  type ListenerEffects,
  type ParkedMessage,
  type Position,
  type SendOutcome,
  type StartedMessage,
} from "../../../src/jobs-and-peers/channel/index.js";
import { ConcurrencyLimit, changeLimit } from "../../../src/jobs-and-peers/handlers/limits/concurrency-limit.js";
import { Quarantine } from "../../../src/jobs-and-peers/handlers/limits/quarantine.js";
import { Violation } from "../records.js";
import type { Wire } from "./network.js";
import type { PeerProcess } from "./process.js";
import type { MessageRecord } from "./records.js";
import { type CallResult, type OwnedChannel, rowKey, type Written } from "./store.js";
import type { ChannelWorld } from "./world.js";

interface Incoming {
  readonly key: number;
  channel: ListenerChannel;
  effects: ListenerEffects;
  timerAt: number;
  committing: boolean;
  toCommit: Position | undefined;
  /** Dead letters that the next commit writes besides the cursor. */
  dead: { position: Position; record: MessageRecord }[];
  done: Position[];
  unparked: Position[];
  /** By position, the newest of each: a message and its copy under the sender's next epoch are both parked. */
  toPark: Map<string, ParkedMessage>;
  parking: boolean;
  /** Something was parked when the channel was opened. */
  readonly hadParked: boolean;
  isolated: boolean;
  /** Its handler runs, for the last time that it may. */
  lastStart: MessageRecord | undefined;
  /** Messages that their handlers want later: at which attempt, and from when on. */
  readonly wanted: Map<MessageRecord, { readonly attempts: number; readonly at: number }>;
}

const isolationLimitMs = 30_000;

/** No channel has it: whoever waits for it waits until all channels are read. */
const everyKey = -1;
const statementTimeoutMs = 10_000;
const simulatedFailure = { kind: "failed", errorCode: "handler_failed", errorMessage: "simulated" } as const;
const unsubscribed = { kind: "refused", errorCode: "unsubscribed", errorMessage: "simulated" } as const;
const simulatedEnd: HandlerResult = { kind: "sessionEnded", errorCode: "handler_crashed", errorMessage: "simulated" };

export class Receiving {
  readonly #channels = new Map<number, Incoming>();
  /** Channels that are being given back, perhaps because of a topic: they are not opened. */
  readonly #leaving = new Map<number, number | undefined>();
  /** Who waits for what the catalog says of a channel. */
  readonly #lookingUp = new Map<number, ((found: boolean) => void)[]>();
  readonly #quarantine: Quarantine<Incoming>;
  /** Limits of the topics that have one, and how many handlers of theirs run. */
  readonly #limits = new Map<number, { readonly limit: ConcurrencyLimit; running: number }>();
  /** Topics whose names are known, in runs with limits; one of the others is looked up at a time. */
  readonly #known = new Set<number>();
  readonly #unknown = new ConcurrencyLimit(1);

  readonly process: PeerProcess;
  readonly world: ChannelWorld;

  constructor(process: PeerProcess) {
    this.process = process;
    this.world = process.world;
    this.#quarantine = new Quarantine(isolationLimitMs, {
      after: (delayMs, callback) => {
        let cancelled = false;
        process.after(delayMs, () => cancelled || callback());
        return () => {
          cancelled = true;
        };
      },
      changed: () => this.halt(process.haltsHandlers),
      othersIdle: (holder) =>
        [...this.#channels.values()].every((other) => other === holder || !other.channel.isHandling),
    });
  }

  /** Nothing waits, runs or is being committed, and every channel is live. */
  get settled(): boolean {
    for (const { channel, committing, unparked } of this.#channels.values()) {
      if (channel.parkedMessages + unparked.length > 0) return false;
      if (channel.waitingMessages > 0 || channel.isHandling || channel.isCommitting || committing) return false;
      if (!channel.isLive) return false;
    }
    return true;
  }

  /** Something that was parked when its channel was opened still is. */
  get keepsParked(): boolean {
    return [...this.#channels.values()].some(({ channel, hadParked }) => hadParked && channel.parkedMessages > 0);
  }

  /** No handler runs, and every cursor is committed. */
  get idle(): boolean {
    return [...this.#channels.values()].every(
      ({ channel, committing, dead, done, unparked }) =>
        !channel.isHandling &&
        !channel.isCommitting &&
        !committing &&
        dead.length + done.length + unparked.length === 0,
    );
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
    for (const [key, { cursor, done, parked, attempts, handedOver }] of owned) {
      if (this.#channels.has(key) || (this.#leaving.has(key) && !world.mutant.opensWhileLeaving)) continue;
      const incoming: Omit<Incoming, "channel" | "effects"> = {
        key,
        timerAt: Number.POSITIVE_INFINITY,
        committing: false,
        toCommit: undefined,
        dead: [],
        done: [],
        unparked: [],
        toPark: new Map(),
        parking: false,
        hadParked: parked.length > 0,
        isolated: false,
        lastStart: undefined,
        wanted: new Map(),
      };
      const opened = incoming as Incoming;
      const hasSuspect = !world.mutant.neverSuspects && (!wasClean || attempts > 0 || handedOver);
      const limitOf = ({ topicId }: IncomingMessage) => this.#limitUnder(topicId);
      const limits = { ...world.limits.listener, hasSuspect, startsBefore: attempts, limitOf };
      const effects = this.#effects(opened);
      opened.effects = effects;
      opened.channel =
        world.mutant.listener?.(cursor, done, limits, effects) ?? new ListenerChannel(cursor, done, limits, effects);
      if (done.length > 0) world.counts.add("transition: marks read");
      opened.channel.restore(parked);
      if (parked.length > 0) world.counts.add("transition: parked messages read");
      if (parked.some(({ attempts }) => attempts === 0)) world.counts.add("transition: parked behind its key read");
      this.#arm(opened);
      this.#channels.set(key, opened);
      if (this.process.haltsHandlers || this.#quarantine.blocks(opened)) opened.channel.halt(true);
      opened.channel.onAnnounced();
    }
  }

  /** All channels of this peer are being read. @returns what opens them; undefined: they could not be read */
  readAll(): (owned: ReadonlyMap<number, OwnedChannel> | undefined) => void {
    const waiting: (() => void)[] = [];
    this.#lookingUp.set(everyKey, waiting);
    return (owned) => {
      if (this.#lookingUp.get(everyKey) === waiting) this.#lookingUp.delete(everyKey);
      if (owned !== undefined) this.open(owned);
      for (const one of waiting) one();
    };
  }

  /** Everything begins again from the cursors. */
  forget(): void {
    const old = [...this.#channels.values()];
    this.#channels.clear();
    this.#leaving.clear();
    this.#lookingUp.clear();
    this.#known.clear();
    for (const incoming of old) this.#close(incoming);
  }

  #close(incoming: Incoming): void {
    incoming.channel.close();
    this.#quarantine.leave(incoming);
  }

  #isKnown(topicId: number): boolean {
    return !this.world.hasLimits || this.#known.has(topicId);
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
      if (!channel.canTake || channel.waitsForCommits || channel.isUnderSuspicion) continue;
      const turn = channel.take(this.process.now);
      if (turn === undefined) continue;
      const { position } = turn.running;
      const which = position === undefined ? "an at-most-once message" : `message ${rowKey(position)}`;
      throw new Violation(`${which} of channel ${key} waits, though nothing keeps it from starting`);
    }
  }

  halt(halted: boolean): void {
    for (const incoming of this.#channels.values()) {
      incoming.channel.halt(halted || this.#quarantine.blocks(incoming));
      this.#arm(incoming);
    }
  }

  /** The process stops in good order, and nothing is under way. */
  mark(): void {
    for (const { channel } of this.#channels.values()) channel.mark();
  }

  commitAll(): void {
    for (const incoming of this.#channels.values()) {
      this.#commitNext(incoming);
      this.#parkNext(incoming);
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

  /** The store may have something in a channel, perhaps one that was handed over. */
  announced(key: number): void {
    const known = this.#channels.get(key);
    if (known !== undefined) known.channel.onAnnounced();
    else this.#lookUp(key, () => undefined);
  }

  /** Begins to give back the channels of listeners that run again. */
  giveBack(): void {
    const { world, name, haltsHandlers } = this.process;
    if (haltsHandlers) return;
    for (const incoming of [...this.#channels.values()]) {
      const { key, channel } = incoming;
      if (this.#leaving.has(key) || !world.isToGiveBack(key, name)) continue;
      this.#leaving.set(key, undefined);
      channel.giveBack();
      this.#arm(incoming);
    }
  }

  /** A message has come for a topic that this peer does not serve: the channel goes to who does. */
  #notServed(incoming: Incoming, turn: StartedMessage): void {
    const { world, name } = this.process;
    const { key, channel } = incoming;
    const { topicId, position } = turn.running;
    this.process.read(
      () => ({ owner: world.ownerOf(key), heir: world.heirOf(key, name, topicId) }),
      (found) => {
        if (!this.#isOpen(incoming)) return this.#finish(incoming, turn, { kind: "postponed" });
        if (found.kind === "ok" && found.value.owner !== name && !world.mutant.keepsWhatItDoesNotOwn) {
          this.#drop(incoming);
          return this.#finish(incoming, turn, { kind: "postponed" });
        }
        const hasHeir = found.kind === "ok" && found.value.heir !== undefined;
        const isPassedOn = hasHeir && !world.mutant.keepsWhatItDoesNotServe;
        if (isPassedOn && !this.#leaving.has(key)) {
          this.#leaving.set(key, topicId);
          channel.giveBack();
        }
        const comesAgain = position !== undefined && (isPassedOn || found.kind !== "ok");
        this.#finish(incoming, turn, comesAgain ? { kind: "postponed" } : unsubscribed);
      },
    );
  }

  /** Nothing of the channel is under way: it is closed, and the store changes its owner. */
  #quiet(incoming: Incoming): void {
    const { key, channel } = incoming;
    const { world } = this;
    if (!this.#isOpen(incoming)) return;
    // What was read before the channel goes must not open it afterwards.
    const lookingUp = this.#lookingUp.get(key) ?? this.#lookingUp.get(everyKey);
    if (lookingUp !== undefined) {
      lookingUp.push(() => this.#quiet(incoming));
      return;
    }
    if (channel.isHandling) throw new Violation(`channel ${key} is given back while a handler runs`);
    if (channel.isCommitting) throw new Violation(`channel ${key} is given back before what is handled is committed`);
    world.endedInOrder(this.process, key);
    this.#channels.delete(key);
    this.#close(incoming);
    world.cutWiresTo(this.process, key);
    this.#changeOwner(key);
  }

  /** @param doubtUntil an earlier call whose answer was lost may land until then */
  #changeOwner(key: number, doubtUntil = Number.NEGATIVE_INFINITY): void {
    const { process, world } = this;
    const { epoch } = process;
    if (!this.#leaving.has(key)) return;
    const topicId = this.#leaving.get(key);
    world.store.giveBack(process.callFor(key), topicId, (result) =>
      process.deliver(() => {
        if (process.epoch !== epoch || !this.#leaving.has(key)) return;
        const again = (until: number) => {
          const change = () => process.epoch === epoch && this.#changeOwner(key, until);
          process.after(world.random.delay(30), change);
        };
        if (result.kind !== "ok") {
          again(result.kind === "unknown" ? process.now + statementTimeoutMs : doubtUntil);
          return;
        }
        if (result.value === "fenced") return process.lose();
        if (result.value === "stays" && process.now < doubtUntil) {
          world.counts.add("transition: channel stays closed in doubt");
          again(doubtUntil);
          return;
        }
        this.#leaving.delete(key);
        if (result.value === "stays") return this.announced(key);
        world.counts.add(`transition: channel ${topicId === undefined ? "given back" : "passed on"}`);
        world.tellGivenBack(key);
      }),
    );
  }

  /** The slow poll. */
  poll(): void {
    const { world } = this;
    this.process.read(
      () => [...world.store.owned(this.process.name).keys()].filter((key) => world.store.rowsOf(key).size > 0),
      (found) => {
        if (found.kind !== "ok") return;
        for (const key of found.value) {
          const known = this.#channels.get(key);
          if (known !== undefined) known.channel.onPolled();
          else this.#lookUp(key, () => undefined);
        }
      },
    );
  }

  /** A Hello came in: the catalog says whose the channel is, and whether the sender's epoch and ours are the newest. */
  hello(wire: Wire, key: number, sender: PeerProcess, welcomed: (wire: Wire) => void): void {
    const { process, world } = this;
    const epoch = sender.epoch;
    if (process.haltsHandlers) {
      wire.cut();
      return;
    }
    const incoming = this.#channels.get(key);
    if (incoming === undefined) {
      this.#lookUp(key, (found) => {
        if (!found) world.counts.add("transition: hello refused as wrong peer");
        if (found && wire.open) this.hello(wire, key, sender, welcomed);
        else wire.cut();
      });
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
        };
        if (!channel.onHello(wire, epoch, found.value.backlog)) return wire.cut();
        wire.onClosed[1] = () => process.deliver(() => incoming.channel.onClosed(wire));
        wire.send(1, () =>
          sender.deliver(() => {
            if (!sender.isOn(wire, key)) return;
            welcomed(wire);
            world.checkAck(key, epoch, told);
            sender.connected(wire, key, { ...welcome, maxMessageBytes: world.maxMessageBytes() });
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
    const { channel, key } = incoming;
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
      world.handlerStarts(process, incoming, { running: message, attempts: 1, parked: false });
      if (record.poison) {
        if (world.poisonEndsSessions) break;
        world.counts.add("fault: message that kills its process");
        this.#checkBystanders();
        process.kill();
        return batch.length;
      }
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
      world.handled(record, process, key);
      world.ended(incoming, message);
    }
    passed();
    if (done > 1) world.counts.add("transition: batch passed");
    return done;
  }

  #lookUp(key: number, then: (found: boolean) => void): void {
    const { process, world } = this;
    const { epoch } = process;
    if (this.#leaving.has(key) && !world.mutant.opensWhileLeaving) {
      then(false);
      return;
    }
    const others = this.#lookingUp.get(key);
    if (others !== undefined) {
      others.push(then);
      return;
    }
    const waiting = [then];
    this.#lookingUp.set(key, waiting);
    process.read(
      () => world.store.owned(process.name).get(key),
      (found) => {
        const isOld = process.epoch !== epoch || !process.listening;
        if (this.#lookingUp.get(key) === waiting) this.#lookingUp.delete(key);
        if (!isOld && found.kind === "ok" && found.value !== undefined) this.open(new Map([[key, found.value]]));
        for (const one of waiting) one(!isOld && this.#channels.has(key));
      },
    );
  }

  /** The channel was handed over. */
  #drop(incoming: Incoming): void {
    if (!this.#isOpen(incoming)) return;
    this.world.counts.add("transition: channel not owned any more");
    this.#channels.delete(incoming.key);
    this.#close(incoming);
    this.world.cutWiresTo(this.process, incoming.key);
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
          world.checkLive(process, incoming.channel, key, wire);
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
            incoming.channel.onRows(rows, found.value.length - rows.length);
            world.checkListener(incoming.channel);
            this.#arm(incoming);
          },
        );
      },
      deleteStale: (cursor) => {
        world.counts.add("transition: stale rows deleted");
        world.store.deleteStale(key, cursor);
      },
      commit: (cursor) => {
        if (!this.#isOpen(incoming)) return;
        incoming.toCommit = cursor;
        this.#commitNext(incoming);
      },
      deadLetter: ({ message, errorCode }) => {
        if (!this.#isOpen(incoming)) return;
        const record = world.recordOf(message);
        if (errorCode === unsubscribed.errorCode) {
          throw new Violation(`message ${record.id} is to be a dead letter, though a listener serves its topic`);
        }
        incoming.dead.push({ position: message.position!, record });
        this.#commitNext(incoming);
      },
      park: (parked) => {
        if (!this.#isOpen(incoming)) return;
        world.counts.add(`transition: ${parked.attempts === 0 ? "parked behind its key" : "message parked"}`);
        const written = { ...parked, message: { ...parked.message, fromWire: false } };
        incoming.toPark.set(rowKey(parked.message.position), written);
        this.#parkNext(incoming);
      },
      unpark: (position) => {
        if (!this.#isOpen(incoming)) return;
        world.counts.add("transition: parked message done");
        incoming.unparked.push(position);
        this.#commitNext(incoming);
      },
      mark: (done) => {
        if (!this.#isOpen(incoming)) return;
        world.counts.add("transition: marked beyond an unfinished message");
        incoming.done.push(...done);
        this.#commitNext(incoming);
      },
      countStart: (isLast, parked) => {
        const what = parked === undefined ? "message" : "parked message";
        this.#isolate(incoming, isLast, what, () => this.#countStart(incoming, parked));
      },
      uncountStart: () => {
        this.#endIsolation(incoming);
        if (this.#isOpen(incoming)) world.store.countAttempt(process.callFor(key), () => undefined, -1);
      },
      ready: () => process.after(0, () => this.#handleNext(incoming)),
      run: () => this.#handleNext(incoming),
      limitFreed: (limit) => {
        world.counts.add("transition: limit freed");
        process.after(0, () => limit.runWaiters(() => true));
      },
      drained: () => this.#quiet(incoming),
      dropped: () => world.counts.add("transition: at-most-once handler failed"),
      gap: (epoch, first, last) => world.gap(process, key, epoch, first, last),
    };
  }

  /** Counts a start, if it is the last one, when nothing else of the process runs. */
  #isolate(incoming: Incoming, isLast: boolean, what: string, count: () => void): void {
    const { world } = this;
    if (!isLast || world.mutant.countsBesideOthers) {
      count();
      return;
    }
    incoming.isolated = true;
    world.counts.add(`transition: ${what} isolated`);
    this.#quarantine.enter(incoming, count);
  }

  /**
   * Handles the answer to a call for a channel, unless the channel was closed meanwhile, or the peer has lost its name or the channel.
   *
   * @param go called with undefined if there was no answer
   */
  #answered<T>(
    incoming: Incoming,
    what: "cursor" | "parking" | "start",
    go: (value: Exclude<T, "fenced" | "notOwned"> | undefined) => void,
  ): (result: CallResult<T>) => void {
    const process = this.process;
    return (result) =>
      process.deliver(() => {
        // Begun before the name was taken anew: the server of before says nothing about the epoch of now.
        if (!this.#isOpen(incoming)) return;
        if (result.kind !== "ok") go(undefined);
        else if (result.value === "fenced") {
          process.world.counts.add(`transition: ${what} fenced`);
          process.lose();
        } else if (result.value === "notOwned") this.#drop(incoming);
        else go(result.value as Exclude<T, "fenced" | "notOwned">);
        process.endIfStopped();
      });
  }

  /** The start of the first message, or of a parked one, is counted in the store. */
  #countStart(incoming: Incoming, parkedAt?: Position): void {
    const { process, world } = this;
    if (!this.#isOpen(incoming)) return;
    const { channel, key } = incoming;
    const counted = this.#answered<number | "fenced">(incoming, "start", (starts) => {
      const tell = () => channel.onStartCounted(starts, parkedAt !== undefined);
      if (starts === undefined) process.after(world.random.delay(30), tell);
      else tell();
    });
    world.counts.add(`transition: ${parkedAt === undefined ? "attempt" : "start of a parked message"} counted`);
    if (parkedAt === undefined) world.store.countAttempt(process.callFor(key), counted);
    else world.store.countParked(process.callFor(key), parkedAt, counted);
  }

  #parkNext(incoming: Incoming): void {
    const { process, world } = this;
    if (!this.#isOpen(incoming) || incoming.parking || process.lease !== "held" || incoming.toPark.size === 0) return;
    incoming.parking = true;
    const { toPark } = incoming;
    incoming.toPark = new Map();
    const parked = [...toPark.values()];
    const answered = this.#answered<Written>(incoming, "parking", (isDone) => {
      incoming.parking = false;
      if (isDone === undefined) {
        incoming.toPark = new Map([...toPark, ...incoming.toPark]);
        process.after(world.random.delay(30), () => this.#parkNext(incoming));
        return;
      }
      incoming.channel.onParked(parked.map(({ message }) => message.position));
      this.#arm(incoming);
      this.#parkNext(incoming);
    });
    world.store.park(process.callFor(incoming.key), parked, answered);
  }

  #commitNext(incoming: Incoming): void {
    const { process, world } = this;
    const { toCommit: cursor, channel, key } = incoming;
    if (!this.#isOpen(incoming) || incoming.committing || process.lease !== "held") return;
    if (cursor === undefined && incoming.dead.length + incoming.done.length + incoming.unparked.length === 0) return;
    incoming.committing = true;
    incoming.toCommit = undefined;
    const dead = incoming.dead.splice(0);
    const done = incoming.done.splice(0);
    const unparked = incoming.unparked.splice(0);
    const answered = this.#answered<Written>(incoming, "cursor", (isDone) => {
      incoming.committing = false;
      if (isDone === undefined) {
        incoming.toCommit ??= cursor;
        incoming.dead.unshift(...dead);
        incoming.done.unshift(...done);
        incoming.unparked.unshift(...unparked);
        process.after(world.random.delay(30), () => this.#commitNext(incoming));
        return;
      }
      if (cursor !== undefined) channel.onCommitted(cursor);
      if (done.length > 0) channel.onMarked(done.length);
      if (unparked.length > 0) channel.onUnparked(unparked.length);
      this.#commitNext(incoming);
    });
    const commit = { cursor: cursor ?? { epoch: 0, number: 0 }, dead, done, unparked };
    world.store.commitCursor(process.callFor(key), commit, answered);
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
      if (this.#isOpen(incoming)) this.#known.add(topicId);
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
    const { running: message } = turn;
    if (!this.#isOpen(incoming)) this.#finish(incoming, turn, { kind: "postponed" });
    else if (!world.serves(process.name, message.topicId)) this.#notServed(incoming, turn);
    else if (turn.attempts > world.limits.listener.retryOf().attempts) {
      world.counts.add("transition: given up after crashes");
      this.#finish(incoming, turn, { kind: "refused", errorCode: "handler_crashed", errorMessage: "simulated" });
    } else if (world.random.chance(world.handlerFaultRate / 4)) {
      world.counts.add("fault: handler postponed");
      this.#finish(incoming, turn, { kind: "postponed" });
    } else if (world.transactional && message.position !== undefined) {
      this.#handleInTransaction(incoming, turn, message.position);
    } else {
      this.#runHandler(incoming, turn, (result) => {
        if (result.kind === "done") world.handled(world.recordOf(message), process, incoming.key);
        this.#finish(incoming, turn, result);
      });
    }
  }

  /** The handler of the application: it takes its time, fails, sends on, or ends the process. */
  #runHandler(incoming: Incoming, turn: StartedMessage, ended: (result: HandlerResult) => void): void {
    const { process, world } = this;
    const { running: message, attempts } = turn;
    const { parked } = turn.place;
    const record = world.handlerStarts(process, incoming, { running: message, attempts, parked: parked !== undefined });
    const isSuspect = parked === undefined ? incoming.channel.isUnderSuspicion : parked.count !== undefined;
    this.#checkWanted(incoming, record, attempts, isSuspect);
    if (isSuspect && attempts === world.limits.listener.retryOf().attempts) incoming.lastStart = record;
    this.#count(message, 1);
    const end = () =>
      process.deliver(() => {
        this.#count(message, -1);
        incoming.lastStart = undefined;
        if (record.poison && world.poisonEndsSessions && message.position !== undefined) {
          world.counts.add("fault: message that ends its session");
          ended(simulatedEnd);
          return;
        }
        if (record.poison) {
          world.counts.add("fault: message that kills its process");
          this.#checkBystanders();
          process.kill();
          return;
        }
        const failed = world.random.chance(world.handlerFaultRate);
        if (failed && world.random.chance(0.2)) {
          world.counts.add("fault: handler wants it later");
          const delayMs = world.random.pick([0, 1_000, 20_000]) * world.random.next();
          ended({ ...simulatedFailure, kind: "deferred", delayMs });
          return;
        }
        if (failed) world.counts.add("fault: handler failed");
        ended(failed ? simulatedFailure : { kind: "done" });
      });
    if (record.hops > 0) world.sendOn(process, record, (_outcome: SendOutcome) => end());
    else world.schedule.after(world.handlerMs(), end);
  }

  /** A message that its handler wants later comes then, as the same attempt unless its starts are counted in the store. */
  #checkWanted({ wanted }: Incoming, record: MessageRecord, attempts: number, isSuspect: boolean): void {
    const before = wanted.get(record);
    if (before === undefined) return;
    wanted.delete(record);
    if (this.process.now < before.at) throw new Violation(`message ${record.id} is begun before its handler wants it`);
    if (attempts > before.attempts && !isSuspect)
      throw new Violation(`message ${record.id} is wanted later, and that counts as an attempt`);
  }

  /** A message ends the process: no other one may be at the start that makes a dead letter of it. */
  #checkBystanders(): void {
    for (const { lastStart } of this.#channels.values()) {
      if (lastStart === undefined || lastStart.poison) continue;
      throw new Violation(`another message killed the process at the last start of message ${lastStart.id}`);
    }
  }

  #handleInTransaction(incoming: Incoming, turn: StartedMessage, position: Position): void {
    const { process, world } = this;
    const record = world.recordOf(turn.running);
    let failure: HandlerResult | undefined;
    let begun = false;
    world.store.handle(
      process.callFor(incoming.key),
      position,
      turn.place.parked !== undefined,
      {
        isAlive: () => !process.isDead,
        run: (ended) =>
          process.deliver(() => {
            if (!this.#isOpen(incoming)) return ended("rollback");
            begun = true;
            this.#runHandler(incoming, turn, (result) => {
              if (result.kind !== "done") failure = result;
              ended(result.kind === "done" ? "commit" : "rollback");
            });
          }),
        effect: () => world.effect(record),
      },
      (result) =>
        process.deliver(() => {
          if (!this.#isOpen(incoming)) this.#finish(incoming, turn, { kind: "postponed" });
          else if (result.kind !== "ok") {
            world.counts.add("transition: transaction tried again");
            this.#finish(incoming, turn, begun ? simulatedEnd : { kind: "postponed" });
          } else if (result.value === "fenced") process.lose();
          else if (result.value === "notOwned") {
            this.#drop(incoming);
            this.#finish(incoming, turn, { kind: "postponed" });
          } else if (result.value === "rolledBack") this.#finish(incoming, turn, failure ?? { kind: "postponed" });
          else {
            world.counts.add(`transition: transaction ${result.value}`);
            this.#finish(incoming, turn, { kind: "done" });
          }
        }),
    );
  }

  #finish(incoming: Incoming, turn: StartedMessage, result: HandlerResult): void {
    if (!this.#isOpen(incoming)) {
      // The channel is closed, and its messages are handled again; only its limit hears of the end.
      incoming.channel.finish(turn, { kind: "postponed" }, this.process.now);
      return;
    }
    const { running: message, attempts } = turn;
    if (result.kind === "deferred" && message.position !== undefined)
      incoming.wanted.set(this.world.recordOf(message), { attempts, at: this.process.now + result.delayMs });
    incoming.channel.finish(turn, this.world.mutant.handlerResult?.(result) ?? result, this.process.now);
    // Unless it is to be tried again.
    if (turn.running !== message) this.world.ended(incoming, message);
    const { committed, accepted } = incoming.channel;
    if (comparePositions(committed, accepted) > 0) throw new Violation("the cursor passed the watermark");
    this.#arm(incoming);
    this.#handleNext(incoming);
    this.process.endIfStopped();
  }

  #endIsolation(incoming: Incoming): void {
    if (!incoming.isolated) return;
    incoming.isolated = false;
    this.#quarantine.leave(incoming);
  }

  #arm(incoming: Incoming): void {
    this.#quarantine.handlerEnded();
    if (!incoming.channel.isUnderSuspicion) this.#endIsolation(incoming);
    this.process.armTimer(incoming, incoming.channel);
  }
}
