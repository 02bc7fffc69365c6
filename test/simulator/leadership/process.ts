/**
 * A process of the simulation: the real protocol and the real buffer, around a leader that runs its messages in batches, in
 * several queues side by side.
 */

import { bridgeConstants, gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { type Clock, silentLogger } from "../../../src/foundation/runtime/index.js";
import {
  LeadershipProtocol,
  type LeadershipProtocolOptions,
  type Unfinished,
} from "../../../src/nats/bridge/leadership/protocol.js";
import { TakeoverBuffer } from "../../../src/nats/bridge/leadership/takeover-buffer.js";
import type { InboundMessage } from "../../../src/nats/bridge/message.js";
import { notBefore } from "../../../src/nats/bridge/receiver.js";
import { handOverPauseMs } from "../../../src/nats/bridge/succession.js";
import { optionsPollMs } from "../../../src/operating/installation/foreign-data.js";
import { SimulatedProcess } from "../process.js";
import type { Mutant } from "./mutants.js";
import type { LeadershipWorld } from "./world.js";

const payload = new Uint8Array(0);
const queues = 3;
export const queueOf = (id: number | string) => BigInt(Number(id) % queues);

export class LeadershipProcess extends SimulatedProcess {
  /** Its host is gone: nobody tells the server. */
  diedSilently = false;
  readonly startedAt: number;
  readonly clock: Clock;
  readonly protocol: LeadershipProtocol;
  readonly buffer: TakeoverBuffer;
  /** The last message that it was sent arrives then: one connection keeps the order. */
  arrivesAt = 0;
  /** Time until which everything that was sent to the process is received: the process has asked. */
  #completeUntil: number | undefined;
  #queue: InboundMessage[] = [];
  readonly #batches = new Map<bigint, object>();
  /** Start of the time in which it receives nothing that is published. */
  #stoppedAt: number | undefined;
  #hasDrained = false;
  /** The login for functions is not refused. */
  canRun = true;
  /** Row of the process in the table of processes. */
  told = { canRun: true, at: 0 };
  #gaveWayAt = Number.NEGATIVE_INFINITY;
  #isGivingWay = false;
  /** True if the process was able to run functions since it gave way. */
  #wasAble = false;
  #isFinishing = false;

  readonly #world: LeadershipWorld;
  readonly id: number;

  constructor(world: LeadershipWorld, id: number, mutant: Mutant) {
    super(world);
    this.#world = world;
    this.id = id;
    const { schedule, random, profile } = world;
    this.startedAt = schedule.now;
    const offset = random.between(0, 1_000_000);
    const rate = 1 + random.between(-200, 200) / 1e6;
    this.clock = {
      now: () => offset + schedule.now * rate,
      setTimeout: (callback, delayMs) => {
        let isOn = true;
        this.after(delayMs / rate, () => isOn && callback());
        return () => {
          isOn = false;
        };
      },
    };
    const limits = { bufferBytes: 1e12, takeoverBufferMs: profile.bufferMs, cleanTakeoverMs: profile.cleanMs };
    this.buffer = new (mutant.Buffer ?? TakeoverBuffer)(limits, this.clock.now());
    this.protocol = new (mutant.Protocol ?? LeadershipProtocol)(this.#options());
  }

  /** What has waited goes on event by event. */
  override wake(): void {
    for (const run of this.takeHeld()) this.after(0, run);
  }

  /** Delivers a message of NATS. */
  receive(number: number): void {
    const receivedAt = this.clock.now();
    const message: InboundMessage = {
      id: `${number}`,
      subject: "s",
      payload,
      headers: undefined,
      receivedAt,
      notBefore: notBefore(receivedAt, this.#completeUntil),
    };
    if (this.protocol.epoch === undefined) this.buffer.add(message, [queueOf(message.id)]);
    else {
      this.#queue.push(message);
      this.#pump();
    }
  }

  /** Asks from now on what it has received. */
  ask(): void {
    const { schedule } = this.#world;
    const askedAt = this.clock.now();
    this.after(Math.max(0, this.arrivesAt - schedule.now), () => {
      this.#completeUntil = askedAt;
      this.clock.setTimeout(() => this.ask(), bridgeConstants.leaderHeartbeatMs);
    });
  }

  /** Tells the others from now on whether it could lead, and hands leadership over where it cannot run functions. */
  tell(): void {
    this.told = { canRun: this.canRun, at: this.#world.schedule.now };
    this.#giveWay();
    this.clock.setTimeout(() => this.tell(), optionsPollMs);
  }

  #giveWay(): void {
    const { schedule, processes, counts } = this.#world;
    const now = schedule.now;
    const isPresent = ({ told }: LeadershipProcess) => told.canRun && now - told.at < gatewayConstants.gatewayStaleMs;
    if (this.canRun || this.protocol.epoch === undefined || this.isStopping) return;
    if (now - this.#gaveWayAt < handOverPauseMs) return;
    if (!processes.some((other) => other !== this && isPresent(other))) return;
    counts.add("gave way");
    this.#gaveWayAt = now;
    this.#wasAble = false;
    this.#isGivingWay = true;
    void this.protocol.stepDown("its login is refused").then(() => {
      this.#isGivingWay = false;
    });
  }

  /**
   * True unless the process was able to run functions after it had given way, and then was not: then it has to wait.
   */
  get shouldGiveWay(): boolean {
    return !this.#wasAble || this.#world.schedule.now - this.#gaveWayAt >= handOverPauseMs;
  }

  /** Tells the process whether it can run functions. */
  login(isAccepted: boolean): void {
    this.canRun = isAccepted;
    this.#wasAble ||= isAccepted;
    if (isAccepted) this.#pump();
  }

  get isStopping(): boolean {
    return this.#stoppedAt !== undefined;
  }

  /** A clean stop: lets the batches end, saves what nobody else runs, then gives the lead back. */
  stop(): void {
    this.#stoppedAt ??= this.clock.now();
    // What the server has sent by now is received.
    const { schedule } = this.#world;
    this.after(Math.max(0, this.arrivesAt - schedule.now), () => {
      this.#hasDrained = true;
      this.#finish();
    });
  }

  #finish(): void {
    if (this.#batches.size > 0 || this.#isFinishing || !this.#hasDrained) return;
    this.#isFinishing = true;
    void this.#save()
      .then(() => this.protocol.release())
      .then(() => {
        this.kill();
        this.#world.counts.add("stopped cleanly");
        this.#world.left();
      });
  }

  async #save(): Promise<void> {
    const { counts } = this.#world;
    if (this.protocol.epoch === undefined && this.buffer.length > 0) {
      const others = await this.protocol.othersHave(new AbortController().signal);
      const isLed = others.until !== Number.NEGATIVE_INFINITY;
      if (!isLed) counts.add("saved by one that waited");
      else if (others.until !== Number.POSITIVE_INFINITY) counts.add("saved beside one that ends");
      const kept = isLed ? this.buffer.takeOwn(others.until) : this.buffer.takeOver(others);
      this.#handOver(kept.map(({ message }) => message));
    }
    this.#handOver(this.#queue.splice(0));
  }

  /** Saves them, and tells who leads. */
  #handOver(messages: readonly InboundMessage[]): void {
    this.#world.saved.push(...messages);
    for (const other of this.#world.processes) other.after(5, () => other.#pump());
  }

  #options(): LeadershipProtocolOptions {
    const world = this.#world;
    return {
      table: world.store.tableFor(this),
      clock: this.clock,
      logger: silentLogger,
      owner: `process ${this.id}`,
      messages: {
        unfinished: () => this.#unfinished(),
        completeSince: () => this.buffer.completeSince,
        receivedSince: () => this.buffer.receivedSince,
        receivedUntil: () => this.#stoppedAt,
        isReceiving: () => !this.isStopping,
        canRun: () => this.canRun,
      },
      events: {
        onLeading: (_, { afterCleanEnd }) => {
          world.counts.add("leading");
          this.#queue = this.buffer.takeOver({ afterCleanEnd }).map(({ message }) => message);
          this.#pump();
        },
        onDeposed: () => {
          world.counts.add("deposed");
          this.buffer.restart(this.#queue[0]?.receivedAt ?? this.clock.now());
          for (const message of this.#queue.splice(0)) this.buffer.add(message, [queueOf(message.id)], true);
          this.#batches.clear();
          if (this.isStopping) this.#finish();
        },
        onWaiting: () => world.counts.add("waiting"),
        onProgress: (progress) => {
          const { length } = this.buffer;
          this.buffer.noteProgress(progress);
          world.counts.add("done by the leader, as others know", length - this.buffer.length);
          const unknown = this.buffer.unknownToLeader.map(({ message }) => message);
          if (unknown.length > 0) world.counts.add("handed over");
          this.#handOver(unknown);
          this.buffer.remove(new Set(unknown));
        },
        onProblem: () => world.counts.add("problem"),
      },
    };
  }

  #unfinished(): Unfinished {
    const behind = new Map<bigint, number>();
    let oldestAt = this.#stoppedAt;
    for (let queue = 0n; queue < queues; queue += 1n) {
      const at = this.#queue.find((message) => queueOf(message.id) === queue)?.receivedAt;
      if (at === undefined) continue;
      if (at < this.clock.now() - bridgeConstants.leaderHeartbeatMs) {
        this.#world.counts.add("told behind");
        behind.set(queue, at);
      } else oldestAt = Math.min(at, oldestAt ?? at);
    }
    return { oldestAt, behind };
  }

  #pump(): void {
    for (let queue = 0n; queue < queues; queue += 1n) this.#pumpQueue(queue);
  }

  #pumpQueue(queue: bigint): void {
    const { epoch } = this.protocol;
    const { saved } = this.#world;
    const isOfQueue = (message: InboundMessage) => queueOf(message.id) === queue;
    const source = saved.some(isOfQueue) ? saved : this.#queue;
    const { random, profile, store } = this.#world;
    if (this.#batches.has(queue) || epoch === undefined || !source.some(isOfQueue) || this.isStopping) return;
    if (!this.canRun || this.#isGivingWay) return;
    const messages = source.filter(isOfQueue).slice(0, random.between(1, 40));
    const batch = {};
    this.#batches.set(queue, batch);
    const runMs =
      this.#world.hasFaults && random.chance(profile.hangRate)
        ? random.between(1_000, profile.hangMs)
        : random.delay(2);
    const ids = messages.map(({ id }) => Number(id));
    void store.batch(this, epoch, ids, runMs).then((outcome) => {
      // It was deposed meanwhile, and keeps them again.
      if (this.#batches.get(queue) !== batch) return;
      this.#batches.delete(queue);
      if (outcome === "committed") remove(source, new Set(messages));
      else this.#world.counts.add(`batch ${outcome}`);
      if (outcome === "refused") this.protocol.poke();
      if (this.isStopping) this.#finish();
      else if (outcome === "committed") this.#pumpQueue(queue);
      else this.after(200, () => this.#pumpQueue(queue));
    });
  }
}

/** Takes messages out. Of what was saved, others may have added and taken away meanwhile. */
function remove(from: InboundMessage[], messages: ReadonlySet<InboundMessage>): void {
  const kept = from.filter((message) => !messages.has(message));
  from.splice(0, from.length, ...kept);
}
