/**
 * Run of the simulation: processes, a network, a database, an application, faults, and the rules that must hold.
 * Everything follows from the seed.
 */
import {
  comparePositions,
  type IncomingMessage,
  type LinkState,
  type ListenerChannel,
  type Position,
  type SenderChannel,
  type SendOutcome,
} from "../../../src/jobs-and-peers/channel/index.js";
import { Delivery } from "../../../src/jobs-and-peers/wire/index.js";
import type { Postgres, Session } from "../postgres.js";
import { Violation } from "../records.js";
import { SimulatedWorld } from "../world.js";
import type { Mutant } from "./mutants.js";
import type { Wire } from "./network.js";
import { PeerProcess } from "./process.js";
import type { MessageRecord, SimulatedMessage, Start } from "./records.js";
import { ChannelStore, laneOf, type ModelRow, type QueueRow } from "./store.js";

/** Faults of a run; each seed has some of them. */
const faultKinds = [
  "kill",
  "stall",
  "cut",
  "session",
  "failover",
  "crash",
  "twin",
  "delete",
  "outage",
  "stop",
  "release",
  "subscribe",
] as const;
export type FaultKind = (typeof faultKinds)[number];

const faultsUntilMs = 12_000;
/** Time in which a write is surely done where no call fails or is slow. */
const writtenWithinMs = 600;
/** Faults that leave the processes that they do not end as they were. */
const quietFaults: ReadonlySet<FaultKind> = new Set(["kill", "stop"]);
const mustSettleWithinMs = 240_000;
const maxSteps = 100_000;
/** Number of attempts of a handler. */
const maxAttempts = 5;
/** The topic that "z" serves: a listener of the topics of the others, without a channel of its own. Others subscribe now and then. */
const secondTopicId = 2;
/** How many handlers of a topic run at a time in a process, in runs with limits; of the other topics any number. */
const concurrencies: ReadonlyMap<number, number> = new Map([
  [1, 2],
  [3, 1],
]);
/** The topics of messages in runs with limits. */
const limitedTopicIds = [1, 3, 3, 4];

/** Starts of a message that kills its process: to be found among those before it, then `maxAttempts`, then some for failovers. */
const maxPoisonStarts = 40;

export class ChannelWorld extends SimulatedWorld {
  readonly store: ChannelStore;
  readonly postgres: Postgres;
  readonly limits = {
    sender: {
      ackTimeoutMs: 2_000,
      sendTimeoutMs: 6_000,
      connectWaitMs: 1_000,
      maxSendQueueMessages: 30,
      maxSendQueueBytes: 900,
      insertRows: 6,
      insertBytes: 200,
      batchTargetBytes: 120,
      batchMaxMessages: 4,
      shortBacklogRows: 3,
      storeRetryMinMs: 50,
      storeRetryMaxMs: 2_000,
    },
    listener: {
      creditBytes: 150,
      maxCreditGrowth: 2,
      busyAfterMs: 10,
      retryOf: () => ({ attempts: maxAttempts, delayMs: (attempts: number) => 100 * 2 ** (attempts - 1) }),
      shortBacklogRows: 3,
      messageOverheadBytes: 10,
      refillBelow: 2,
      refillBelowBytes: 120,
      leaveAfterMs: 60,
      askLeastMs: 20,
      askMostMs: 500,
      lanesAtOnce: 2,
    },
    suspects: 4,
    drainRows: 4,
  };
  readonly channels: { key: number; from: string; to: string }[];
  readonly callFaultRate: number;
  readonly dialFaultRate: number;
  readonly notifyLossRate: number;
  readonly slowRate: number;
  readonly #smallLimitRate: number;
  handlerFaultRate: number;
  /** Handlers are done at once, and get the messages of a batch as they come. */
  readonly passRate: number;
  /** Handlers of some topics have limits. */
  readonly hasLimits: boolean;
  readonly transactional: boolean;
  /** True if messages of topics of which the queue handles all do not hold up those of others. */
  readonly leavesTopics: boolean;
  readonly #poisonRate: number;

  readonly #names: string[];
  readonly #processes = new Map<string, PeerProcess[]>();
  readonly #wires = new Map<Wire, { dialler: PeerProcess; listener: PeerProcess; key: number }>();
  readonly #records = new Map<Uint8Array, MessageRecord>();
  /** First handled position of each channel and key. */
  readonly #firstHandled = new Map<string, Position>();
  /** Message of each opened channel and key that was begun, and is neither done nor a row. */
  readonly #begun = new WeakMap<object, Map<string | undefined, MessageRecord>>();
  /** Handlers that run, by lane. */
  readonly #running = new Map<string, Set<Start>>();
  #hasKeys: boolean;
  readonly #isRestless: boolean;
  /** Some messages are for a topic that their channel's listener does not serve. */
  /** Calls are lost or slow, or there are faults that do not leave processes as they were. What was slow before the calm may land in it. */
  readonly #isDisturbed: boolean;
  readonly #hasSecondTopic: boolean;
  /** Listeners that serve it, besides "z". */
  readonly #subscribed = new Set<string>();
  readonly #everCommitted = new Map<string, number>();
  /** By name, all that ever raised its epoch, also what a failover has lost. */
  readonly #raises = new Map<string, { readonly epoch: number; readonly by: PeerProcess | undefined }[]>();
  readonly #lostEpochs = new Set<string>();
  readonly #kinds: FaultKind[];
  readonly #slowHandlers: boolean;
  readonly #mutual: boolean;
  #gapsAllowed = false;
  #faulty = true;
  #nextId = 1;

  readonly mutant: Mutant;

  constructor(seed: number, mutant: Mutant = {}) {
    super(seed);
    const { random } = this;
    this.mutant = mutant;
    this.store = new ChannelStore(this, mutant.store ?? {});
    this.postgres = this.store.postgres;
    this.#mutual = random.chance(0.3);
    this.#names = this.#mutual || random.chance(0.6) ? ["a", "b"] : ["a", "b", "c"];
    this.channels = this.#mutual
      ? [
          { key: 1, from: "a", to: "b" },
          { key: 2, from: "b", to: "a" },
        ]
      : this.#names.slice(1).map((from, index) => ({ key: index + 1, from, to: "a" }));
    this.passRate = seed % 3 === 0 ? 0 : 0.7;
    this.hasLimits = mutant.limits ?? seed % 5 === 2;
    this.transactional = mutant.transactional ?? random.chance(0.3);
    this.leavesTopics = random.chance(0.5);
    this.#poisonRate = (mutant.poison ?? random.chance(0.15)) ? 0.05 : 0;
    this.#kinds = faultKinds.filter((kind) => (mutant.faults ? mutant.faults.includes(kind) : random.chance(0.4)));
    // A handler that sends on needs channels of its own.
    const hasOther = !this.#mutual && (mutant.secondTopic ?? random.chance(0.6));
    if (hasOther) this.#names.push("z");
    this.#hasSecondTopic = hasOther && (mutant.secondTopic ?? random.chance(0.4));
    const calm = random.chance(0.2);
    this.callFaultRate = calm ? 0 : random.next() * 0.1;
    this.dialFaultRate = calm ? 0 : random.next() * 0.3;
    this.notifyLossRate = calm ? 0 : random.next() * 0.6;
    this.#smallLimitRate = random.chance(0.2) ? 0.5 : 0;
    this.slowRate = calm ? 0 : random.pick([0, 0.02, 0.2]);
    this.handlerFaultRate = random.chance(0.3) ? random.pick([0.05, 0.4]) : 0;
    this.#slowHandlers = random.chance(0.3);
    this.#hasKeys = mutant.keys ?? random.chance(0.4);
    this.#isRestless = mutant.restless ?? seed % 7 === 3;
    if (this.#isRestless) this.#makeRestless();
    Object.assign(this, mutant.warmStart);
    this.#isDisturbed = this.callFaultRate + this.slowRate > 0 || this.#kinds.some((kind) => !quietFaults.has(kind));
  }

  /** Many rows wait for long, while listeners stop several times in a row. */
  #makeRestless(): void {
    this.#hasKeys = this.mutant.keys ?? true;
    this.handlerFaultRate = 0.4;
    this.limits.listener.retryOf = () => ({
      attempts: maxAttempts,
      delayMs: (attempts) => (attempts % 2 === 1 ? 3_000 : 100),
    });
    if (this.mutant.faults === undefined && !this.#kinds.includes("stop")) this.#kinds.push("stop");
  }

  /** Milliseconds of a clock that every server agrees on. */
  clock(): number {
    return 1_000_000 + this.schedule.now;
  }

  run(): void {
    for (const name of this.#names) this.#startProcess(name);
    this.#plan();
    this.runUntil(faultsUntilMs, maxSteps, () => {
      this.#checkLimits();
      return false;
    });
    this.#calm();
    this.runUntil(faultsUntilMs + mustSettleWithinMs, maxSteps, (steps) => {
      this.#checkLimits();
      if (steps % 8 === 0) this.#revive();
      return steps % 64 === 0 && this.#quiet();
    });
    this.#checkEnd();
  }

  // ---- what processes ask ----

  addressOf(name: string): PeerProcess | undefined {
    const alive = (this.#processes.get(name) ?? []).filter((process) => process.listening);
    // A stale address now and then: an older process that does not know yet that it has lost its name.
    return this.random.chance(0.1) ? alive[0] : alive.at(-1);
  }

  /** The listener of a channel. */
  listenerOf(key: number): string {
    return this.channels.find((channel) => channel.key === key)!.to;
  }

  /** Ids of all topics. */
  readonly topicIds: readonly number[] = [secondTopicId, ...new Set(limitedTopicIds)];

  /** Whether a listener serves a topic. */
  serves(name: string, topicId: number): boolean {
    return topicId !== secondTopicId || name === "z" || this.#subscribed.has(name);
  }

  /** Whether a listener may take a row of the queue. */
  mayTake(name: string, { key, topicId, recipient }: QueueRow): boolean {
    if (!this.serves(name, topicId)) return false;
    if (recipient !== undefined) return recipient === name;
    return name === "z" || name === this.listenerOf(key);
  }

  /** Something may be taken from the queue after a while. */
  queueChanged(delayMs: number): void {
    this.schedule.after(delayMs, () => {
      for (const process of this.#all()) process.deliver(() => process.receiving.wakeWorker(this.random.delay(1)));
    });
  }

  /** How many handlers of a topic a process runs at a time; undefined: any number. */
  concurrencyOf(topicId: number): number | undefined {
    return this.hasLimits ? concurrencies.get(topicId) : undefined;
  }

  appeared(process: PeerProcess): void {
    for (const other of this.#all()) {
      if (!this.random.chance(this.notifyLossRate)) {
        other.after(this.random.delay(3), () => other.peerAppeared(process.name));
      }
    }
  }

  announce(name: string, key: number): void {
    for (const process of this.#processes.get(name) ?? []) process.deliver(() => process.announced(key));
  }

  registerWire(wire: Wire, dialler: PeerProcess, listener: PeerProcess, key: number): void {
    this.#wires.set(wire, { dialler, listener, key });
  }

  atListener(wire: Wire, run: (listener: PeerProcess) => void): void {
    const listener = this.#wires.get(wire)!.listener;
    listener.deliver(() => run(listener));
  }

  atDialler(wire: Wire, run: (dialler: PeerProcess) => void): void {
    const dialler = this.#wires.get(wire)!.dialler;
    dialler.deliver(() => run(dialler));
  }

  /** Cuts the connections to a process. */
  cutWiresTo(process: PeerProcess): void {
    for (const [wire, { listener }] of this.#wires) if (listener === process) wire.cut();
  }

  /** The limit of a listener, which may be another one after a restart. */
  maxMessageBytes(): number {
    if (!this.random.chance(this.#smallLimitRate)) return 1_000;
    this.counts.add("fault: lower message limit");
    return 30;
  }

  handlerMs(): number {
    if (this.#slowHandlers && this.random.chance(0.05)) return this.random.between(500, 4_000);
    return this.random.delay(1);
  }

  /** A handler sends on, back to where its message came from, and waits for the confirmation. */
  sendOn(process: PeerProcess, record: MessageRecord, done: (outcome: SendOutcome) => void): void {
    const from = this.channels.find((channel) => channel.key === record.key)!.from;
    const back = this.channels.find((channel) => channel.from === process.name && channel.to === from)!;
    process.send(this.#record(back.key, Delivery.AT_LEAST_ONCE, record.hops - 1, done));
  }

  // ---- what happens to messages ----

  refused(record: MessageRecord): void {
    record.excused = true;
    this.settle(record, "dropped");
  }

  settle(record: MessageRecord, outcome: SendOutcome): void {
    if (record.outcome !== undefined) throw new Violation(`message ${record.id} settled twice`);
    record.outcome = outcome;
    const mustBeDone = outcome === "delivered" && !record.excused && this.postgres.timeline === 1;
    if (mustBeDone && record.finished === 0)
      throw new Violation(`message ${record.id} of channel ${record.key} counts as delivered, but was not handled`);
    this.counts.add(`outcome: ${outcome}`);
    if (record.onSettled) this.schedule.after(0, () => record.onSettled?.(outcome));
  }

  lost(payload: Uint8Array): void {
    const record = this.#records.get(payload)!;
    record.excused = true;
    this.#gapsAllowed = true;
  }

  handlerStarts(start: Start): Start {
    const { record, process, position, key, isHeld, opened } = start;
    if (position === undefined) {
      if (record.started > 0) throw new Violation(`at-most-once message ${record.id} handled twice`);
      record.started += 1;
      return start;
    }
    const holds = isHeld();
    if (holds && opened !== undefined && this.store.isPassed(key, position)) {
      throw new Violation(`handler started for ${at(position)}, at or below the committed cursor`);
    }
    // One that has lost its name and does not know yet may still start what it had accepted; nothing it does is committed.
    const lane = laneOf({ ...start, topicId: record.topicId });
    if (opened !== undefined) {
      const begun = this.#begun.get(opened) ?? new Map<string | undefined, MessageRecord>();
      this.#begun.set(opened, begun);
      const before = begun.get(record.messageKey) ?? record;
      if (before !== record) throw new Violation(`message ${record.id} is begun before message ${before.id} is done`);
      begun.set(record.messageKey, record);
    }
    const running = this.#running.get(lane) ?? new Set();
    this.#running.set(lane, running);
    if (holds) {
      for (const other of running) {
        if (other.process.isDead || !other.isHeld()) continue;
        throw new Violation(`message ${record.id} is begun while the handler of message ${other.record.id} runs`);
      }
      const isStranger = process.trusted !== this.postgres.timeline;
      const [waiting] = isStranger ? [] : this.store.rowsBefore(lane, position);
      if (waiting !== undefined) {
        const { id } = this.recordOf(waiting);
        throw new Violation(`message ${record.id} is begun while message ${id} of its lane is in the queue`);
      }
    }
    running.add(start);
    if (holds && record.doneBefore !== undefined && this.postgres.timeline === 1) {
      throw new Violation(`message ${record.id} is handled again after ${record.doneBefore}`);
    }
    if (!holds) this.counts.add("transition: handled by a deposed listener");
    else if (record.started === 0) {
      const before = this.#firstHandled.get(lane);
      if (before !== undefined && comparePositions(position, before) <= 0) {
        throw new Violation(`${at(position)} of channel ${key} first handled after ${at(before)}`);
      }
      const { from } = this.channels.find((channel) => channel.key === key)!;
      // Of a taking that a failover has lost, and whose sender does not know yet: it orders nothing.
      if (!this.#lostEpochs.has(`${from}/${position.epoch}`)) this.#firstHandled.set(lane, position);
    } else if (record.started > 0) this.counts.add("transition: handled again");
    if (holds) record.started += 1;
    if (record.poison && record.started > maxPoisonStarts) {
      throw new Violation(`message ${record.id} has killed ${record.started} processes`);
    }
    if (opened === undefined)
      this.counts.add(`transition: row begun${process.name === "z" ? " by another listener" : ""}`);
    return start;
  }

  handlerEnded(start: Start): void {
    this.#running.get(laneOf({ ...start, topicId: start.record.topicId }))?.delete(start);
  }

  /** A failover has lost a name's taking: what was begun of it, uncommitted, orders nothing any more. */
  epochLost(name: string, epoch: number): void {
    this.#lostEpochs.add(`${name}/${epoch}`);
    for (const { key, from } of this.channels) {
      for (const [lane, position] of this.#firstHandled) {
        if (from === name && lane.startsWith(`${key} `) && position.epoch === epoch) this.#firstHandled.delete(lane);
      }
    }
  }

  /** A process that was deposed, and has its name back by a failover that lost its successor, does not count. */
  holdsName({ name, epoch }: PeerProcess): boolean {
    return this.store.epochOf(name) === epoch && this.store.newestEpochs.get(name) === epoch;
  }

  keyOf(payload: Uint8Array): string | undefined {
    return this.#records.get(payload)!.messageKey;
  }

  recordOf({ payload }: Pick<IncomingMessage, "payload">): MessageRecord {
    return this.#records.get(payload)!;
  }

  /** A message of a channel is done or given up, or has become a row. */
  ended(opened: object, message: Pick<IncomingMessage, "payload">): void {
    this.#begun.get(opened)?.delete(this.keyOf(message.payload));
  }

  /** The handler is done. */
  handled(record: MessageRecord, process: PeerProcess): void {
    record.finished += 1;
    record.finishedBy = { process, at: this.schedule.now };
  }

  /** A process has stopped, and nothing was under way: nobody handles again what it has done. */
  endedInOrder(process: PeerProcess): void {
    this.#staysDone(process, "a stop in good order", Number.POSITIVE_INFINITY);
  }

  /** A process is killed. Where nothing else disturbs it, nobody handles again what it has done a while ago. */
  killed(process: PeerProcess): void {
    if (this.#isDisturbed) return;
    const before = this.schedule.now - 2 * this.limits.listener.leaveAfterMs - writtenWithinMs;
    this.#staysDone(process, "a kill long after", before);
  }

  #staysDone(process: PeerProcess, how: string, before: number): void {
    if (!this.holdsName(process)) return;
    for (const record of this.#records.values()) {
      const { finishedBy } = record;
      if (finishedBy?.process !== process || finishedBy.at >= before) continue;
      if (record.delivery === Delivery.AT_LEAST_ONCE) record.doneBefore ??= how;
    }
  }

  /** The effect of a transactional handler is committed. */
  effect(payload: Uint8Array): void {
    this.counts.add("transition: effect committed");
    this.#kept(payload, "effect");
  }

  /** The message is kept as a dead letter. */
  deadLetter(payload: Uint8Array): void {
    this.counts.add("transition: dead letter");
    this.#kept(payload, "dead letter");
  }

  #kept(payload: Uint8Array, what: string): void {
    const { postgres } = this;
    const record = this.recordOf({ payload });
    record.effects += 1;
    record.finished += 1;
    if (record.effects > 1 && postgres.timeline === 1) throw new Violation(`message ${record.id} has a second ${what}`);
    postgres.whenTakenBack(() => {
      record.effects -= 1;
      record.finished -= 1;
      // A failover has lost it; what came live and was acknowledged is nowhere else.
      if (postgres.timeline > 1) this.lost(record.payload);
    });
  }

  gap(process: PeerProcess, key: number, epoch: number, first: number, last: number): void {
    this.counts.add("transition: gap");
    // One that has lost its name may see rows of a cursor that it knows nothing of.
    const holds = this.holdsName(process);
    if (holds && !this.#gapsAllowed)
      throw new Violation(`channel ${key}: gap ${epoch}/${first}-${last}, though nobody deleted`);
  }

  // ---- checks ----

  checkQueue(channel: SenderChannel<SimulatedMessage>): void {
    if (channel.pendingMessages > this.limits.sender.maxSendQueueMessages)
      throw new Violation("send queue over its limit");
  }

  checkListener(channel: ListenerChannel): void {
    const { creditBytes } = this.limits.listener;
    if (channel.waitingMemoryBytes > creditBytes * 4) throw new Violation("listener keeps more than its limits");
    if (channel.waitingMessages > 200) throw new Violation("listener queues more than its limits");
  }

  /** While a channel is live, at-most-once messages are written behind the numbered ones that were sent before. */
  checkOrder(wire: Wire, firstNumber: number, link: LinkState, messages: readonly SimulatedMessage[]): void {
    for (const { record } of messages) {
      if (firstNumber > 0 && record.id < wire.unnumberedId) {
        throw new Violation(`message ${record.id} is written after at-most-once message ${wire.unnumberedId}`);
      }
      if (firstNumber === 0 && link === "live") wire.unnumberedId = record.id;
    }
  }

  /** Rows of an insert follow each other, and nothing older is neither stored nor acknowledged. */
  checkInsert(key: number, rows: readonly ModelRow[]): void {
    const first = rows[0]!.position;
    const cursor = this.store.cursors.get(key);
    for (let number = first.number - 1; number > 0 && !this.#gapsAllowed; number--) {
      const position = { epoch: first.epoch, number };
      if (cursor !== undefined && comparePositions(position, cursor) <= 0) break;
      if (!this.store.rowsOf(key).has(`${first.epoch}/${number}`)) {
        throw new Violation(`${at(first)} of channel ${key} stored before ${at(position)}`);
      }
    }
  }

  checkCursor(key: number, cursor: Position): void {
    const id = `${key}/${cursor.epoch}`;
    this.#everCommitted.set(id, Math.max(this.#everCommitted.get(id) ?? 0, cursor.number));
  }

  /** Nobody takes a name from a process whose session is well. */
  checkTaking(name: string, session: Session): void {
    const holder = this.#alive(name).find(
      (process) => process.lease === "held" && process.hasSession(session) === false,
    );
    if (holder !== undefined) throw new Violation(`"${name}" was taken from a process that holds it`);
  }

  /** A name's epoch was raised; `by` is undefined for a release. */
  epochRaised(name: string, epoch: number, by: PeerProcess | undefined): void {
    const raises = this.#raises.get(name) ?? [];
    this.#raises.set(name, [...raises, { epoch, by }]);
  }

  /** Nobody gives a name up that no one else has ever taken since, and that no failover has lost. */
  checkLoss(process: PeerProcess): void {
    const { name, epoch } = process;
    const raises = this.#raises.get(name) ?? [];
    if (raises.some((raise) => raise.by !== process && raise.epoch >= epoch)) return;
    if ((this.store.epochOf(name) ?? 0) < epoch || this.#lostEpochs.has(`${name}/${epoch}`)) return;
    throw new Violation(`"${name}" gave up its name, which nobody else has taken`);
  }

  /** Only what was committed is ever told to a sender. */
  checkAck(key: number, epoch: number, cursor: Position): void {
    if (cursor.epoch !== epoch) return;
    const committed = this.#everCommitted.get(`${key}/${epoch}`) ?? 0;
    if (cursor.number > committed) {
      throw new Violation(`channel ${key}: told ${at(cursor)} while only ${epoch}/${committed} was ever committed`);
    }
  }

  /** Live means that the listener has everything that was stored when the sender went live. */
  checkLive(process: PeerProcess, channel: ListenerChannel, wire: Wire): void {
    const stored = wire.storedAtGoLive;
    if (stored === undefined || this.#gapsAllowed || !this.holdsName(process)) return;
    if (comparePositions(stored, channel.accepted) > 0) {
      throw new Violation(`live at ${at(channel.accepted)}, though ${at(stored)} was stored before GoLive`);
    }
  }

  /** When everything of a moment has happened: no message waits that its limit lets start. */
  #checkLimits(): void {
    if (!this.hasLimits || this.schedule.nextAt <= this.schedule.now) return;
    for (const process of this.#all()) if (!process.isStalled) process.receiving.checkLimits();
  }

  #quiet(): boolean {
    for (const record of this.#records.values()) {
      if (this.#unfinished(record)) return false;
    }
    if (this.store.leftover !== undefined) return false;
    return this.#names.every((name) => {
      const alive = this.#alive(name);
      return alive.length === 1 && alive[0]!.settled;
    });
  }

  #unfinished(record: MessageRecord): boolean {
    if (record.excused || record.delivery === Delivery.AT_MOST_ONCE) return false;
    return (record.outcome === "delivered" || record.outcome === "stored") && record.finished === 0;
  }

  #checkEnd(): void {
    for (const record of this.#records.values()) {
      if (this.#unfinished(record)) {
        throw new Violation(`message ${record.id} of channel ${record.key} was ${record.outcome}, but never handled`);
      }
      if (record.outcome === "dropped" && record.delivery === Delivery.AT_MOST_ONCE && record.started > 0) {
        throw new Violation(`at-most-once message ${record.id} was reported dropped, but handled`);
      }
    }
    if (this.store.leftover !== undefined) throw new Violation(`something is left: ${this.store.leftover}`);
    for (const name of this.#names) {
      const alive = this.#alive(name);
      if (alive.length !== 1 || !alive[0]!.settled) throw new Violation(`${name} did not come to rest, live`);
    }
  }

  // ---- application and faults ----

  #record(
    key: number,
    delivery: MessageRecord["delivery"],
    hops: number,
    onSettled?: (outcome: SendOutcome) => void,
  ): MessageRecord {
    const payload = new Uint8Array(this.random.chance(0.03) ? 200 : this.random.between(1, 40));
    const id = this.#nextId++;
    const firstTopicId = this.hasLimits ? limitedTopicIds[id % limitedTopicIds.length]! : 1;
    const record = {
      id,
      key,
      delivery,
      topicId: this.#hasSecondTopic && this.random.chance(0.2) ? secondTopicId : firstTopicId,
      payload,
      hops,
      outcome: undefined,
      excused: false,
      poison: hops === 0 && this.random.chance(this.#poisonRate),
      messageKey: this.#hasKeys ? this.random.pick([undefined, "x", "y", "z"]) : undefined,
      started: 0,
      finished: 0,
      finishedBy: undefined,
      doneBefore: undefined,
      effects: 0,
      onSettled,
    };
    this.#records.set(payload, record);
    return record;
  }

  #plan(): void {
    const { random } = this;
    // Things happen together: faults in the middle of bursts, now and then long after them.
    const moments = Array.from({ length: random.between(2, 5) }, () => random.between(5, faultsUntilMs - 1_500));
    for (const { key, from } of this.channels) {
      for (const moment of moments) {
        if (random.chance(0.25)) continue;
        const count = random.between(1, 16);
        const spreadMs = random.pick([0, 2, 20, 300]);
        for (let index = 0; index < count; index++) {
          this.schedule.after(moment + random.next() * spreadMs, () => this.#applicationSends(from, key));
        }
      }
    }
    const faultAt = () => Math.min(random.pick(moments) + random.delay(random.pick([3, 30, 200])), faultsUntilMs - 500);
    this.planFaults(this.#kinds, this.mutant.faultTimes, faultAt, (kind) => this.#faulty && this.#inject(kind));
  }

  #applicationSends(from: string, key: number): void {
    const process = this.#alive(from).at(-1);
    if (process === undefined) return;
    const delivery = this.random.chance(0.2) ? Delivery.AT_MOST_ONCE : Delivery.AT_LEAST_ONCE;
    const hops =
      this.#mutual && delivery === Delivery.AT_LEAST_ONCE && this.random.chance(0.4) ? this.random.between(1, 3) : 0;
    const record = this.#record(key, delivery, hops);
    process.deliver(() => process.send(record));
  }

  #inject(kind: FaultKind): void {
    const { random, counts, schedule } = this;
    const name = random.pick(this.#names);
    const process = this.#alive(name).at(-1);
    counts.add(`fault: ${kind}`);
    if (kind === "kill") {
      process?.kill();
      schedule.after(random.delay(100), () => this.#startProcess(name));
    } else if (kind === "stall" && process !== undefined && !process.isStalled) {
      process.stall();
      schedule.after(random.between(10, 9_000), () => !process.isDead && process.wake());
      // Meanwhile the server may give up on it, and a twin takes the name.
      if (random.chance(0.7)) {
        schedule.after(random.delay(200), () => this.postgres.endSomeSession());
        schedule.after(random.delay(200), () => this.#startProcess(name));
      }
    } else if (kind === "cut") {
      for (const other of this.#all()) for (const wire of other.wires()) if (random.chance(0.6)) wire.cut();
    } else if (kind === "session") this.postgres.endSomeSession();
    else if (kind === "failover") {
      this.#gapsAllowed = true;
      this.store.failover();
    } else if (kind === "crash") this.store.crash();
    else if (kind === "twin") this.#startProcess(name);
    else if (kind === "delete") {
      const payload = this.store.deleteSomeRow();
      if (payload !== undefined) this.lost(payload);
    } else if (kind === "outage") {
      this.postgres.isAvailable = false;
      schedule.after(random.chance(0.2) ? 8_000 : random.between(50, 4_000), () => {
        this.postgres.isAvailable = true;
      });
    } else if (kind === "release") this.#release(name, process);
    else if (kind === "subscribe") {
      for (let at = 0, nth = random.between(1, 6); nth > 0; nth--) {
        schedule.after(at, () => this.#faulty && this.#subscribe(name, !this.#subscribed.has(name)));
        at += random.delay(100);
      }
    } else if (kind === "stop") {
      process?.stop();
      schedule.after(random.between(100, 2_000), () => this.#startProcess(name));
      // Rows wait for longer than that.
      for (let nth = this.#isRestless ? random.between(1, 3) : 0; nth > 0; nth--) {
        schedule.after(nth * 500 + random.delay(300), () => {
          this.#alive(name).at(-1)?.stop();
          schedule.after(random.delay(60), () => this.#startProcess(name));
        });
      }
    }
  }

  /** A listener is away, or seems to be: what is stored for it is released, while it comes back or a twin starts. */
  #release(name: string, process: PeerProcess | undefined): void {
    const { random, schedule } = this;
    const how = random.pick(["kill", "stop", "stall", "session"] as const);
    if (how === "kill") process?.kill();
    else if (how === "stop") process?.stop();
    else if (process !== undefined && process.session !== undefined) {
      this.postgres.endSession(process.session);
      if (how === "stall" && !process.isStalled) {
        process.stall();
        schedule.after(random.between(10, 4_000), () => !process.isDead && process.wake());
      }
    }
    for (let nth = random.between(1, 3); nth > 0; nth--) {
      schedule.after(random.delay(300), () =>
        this.store.release(name, random.chance(0.2), (released) => {
          if (released > 0) this.counts.add("transition: released");
        }),
      );
    }
    schedule.after(random.delay(300), () => this.#startProcess(name));
  }

  /** A listener begins or ends to serve the second topic, without a restart. */
  #subscribe(name: string, isServed: boolean): void {
    if (!this.#hasSecondTopic || name === "z") return;
    if (isServed) this.#subscribed.add(name);
    else this.#subscribed.delete(name);
    for (const process of this.#alive(name)) process.deliver(() => process.receiving.handlersChanged());
    this.queueChanged(0);
  }

  /** Faults end: whoever is stopped wakes, the database is there, every name has a process. */
  #calm(): void {
    this.#faulty = false;
    this.postgres.isAvailable = true;
    Object.assign(this, { callFaultRate: 0, dialFaultRate: 0, notifyLossRate: 0, slowRate: 0, handlerFaultRate: 0 });
    for (const process of this.#all()) if (process.isStalled && !process.isDead) process.wake();
    for (const name of this.#names) this.#subscribe(name, true);
    this.#revive();
  }

  #revive(): void {
    for (const name of this.#names) {
      if (this.#processes.get(name)?.some(({ isDead }) => !isDead) !== true) this.#startProcess(name);
    }
  }

  #startProcess(name: string): void {
    const list = this.#processes.get(name) ?? [];
    this.#processes.set(name, list);
    if (this.#alive(name).length < 3) list.push(new PeerProcess(this, name));
  }

  #alive(name: string): PeerProcess[] {
    return (this.#processes.get(name) ?? []).filter((process) => !process.isDead);
  }

  #all(): PeerProcess[] {
    return this.#names.flatMap((name) => this.#alive(name));
  }
}

function at(position: Position): string {
  return `${position.epoch}/${position.number}`;
}
