/**
 * A simulated process: one peer with a name, its lease, its sending and its receiving channels. The channels are the
 * product's own state machines; what surrounds them here stands for sockets, the store and the operating system.
 */
import {
  type ChannelWelcome,
  type IncomingMessage,
  SenderChannel,
  type SenderEffects,
} from "../../../src/jobs-and-peers/channel/index.js";
import { Delivery } from "../../../src/jobs-and-peers/wire/index.js";
import type { Session } from "../postgres.js";
import { SimulatedProcess } from "../process.js";
import { Violation } from "../records.js";
import { Wire } from "./network.js";
import { Receiving } from "./receiving.js";
import type { MessageRecord, SimulatedMessage } from "./records.js";
import type { CallResult, ChannelCall, NameTaken, OwnedChannel, Raised } from "./store.js";
import type { ChannelWorld } from "./world.js";

type Lease = "starting" | "held" | "suspended" | "lost" | "dead";

interface Outgoing {
  readonly key: number;
  readonly channel: SenderChannel<SimulatedMessage>;
  readonly effects: SenderEffects<SimulatedMessage>;
  wire: Wire | undefined;
  redialMs: number;
  /** Grows when answers of earlier inserts are to be dropped. */
  inserts: number;
  timerAt: number;
}

export class PeerProcess extends SimulatedProcess {
  epoch = 0;
  lease: Lease = "starting";
  stopping = false;
  /** Its handlers have ended, or are cut off: nothing of them counts any more. */
  isCutOff = false;
  #hasLeft = false;
  /** The holder of the name before ended in good order. */
  wasClean = true;
  #session: Session | undefined;
  #timeline = 0;
  /** The token of a renewal that was sent and not answered. */
  #renewal: object | undefined;
  readonly #outgoing = new Map<number, Outgoing>();
  readonly receiving: Receiving;
  readonly #giveUpAt: number;

  readonly world: ChannelWorld;
  readonly name: string;

  constructor(world: ChannelWorld, name: string) {
    super(world);
    this.world = world;
    this.name = name;
    this.receiving = new Receiving(this);
    this.#giveUpAt = world.schedule.now + world.random.between(200, 15_000);
    this.#start();
  }

  /** Its session with the database, as long as it knows of no end. */
  get session(): Session | undefined {
    return this.#session;
  }

  get listening(): boolean {
    return this.lease === "held" || this.lease === "suspended";
  }

  /** No handler may be started, and nobody is let in. */
  get haltsHandlers(): boolean {
    return this.lease !== "held" || this.stopping;
  }

  /** SIGKILL: memory is gone; the server notices a little later. */
  override kill(): void {
    if (this.isDead) return;
    super.kill();
    if (this.lease === "held" && !this.isCutOff) this.world.killed(this);
    this.lease = "dead";
    const session = this.#session;
    if (session) this.world.schedule.after(this.world.random.delay(10), () => this.world.postgres.endSession(session));
    this.cutWires();
  }

  override wake(): void {
    const held = this.takeHeld();
    // A long stall shows in its timers, and then the session is heard first. After a short one it goes on unaware,
    // with its timers or its events first: who knows.
    const sameServer = this.#timeline === this.world.postgres.timeline;
    if (this.lease === "held" && !this.#session?.isAlive && (!sameServer || this.world.random.chance(0.5))) {
      this.#sessionLost();
    } else this.world.counts.add("transition: woke unaware");
    if (this.world.random.chance(0.5)) this.#tickAll();
    for (const run of held) if (!this.isDead && !this.isStalled) run();
    this.#tickAll();
  }

  /** A clean stop: what is unconfirmed is stored, handlers end, the final cursors are told, the lease is free. */
  stop(): void {
    if (this.lease !== "held" || this.stopping) return;
    this.stopping = true;
    this.receiving.halt(true);
    for (const outgoing of this.#outgoing.values()) {
      outgoing.channel.stop(this.now);
      this.#arm(outgoing);
    }
    // Whoever stops it does not wait for ever.
    if (this.world.random.chance(0.3)) {
      this.after(this.world.random.between(50, 1_000), () => {
        this.world.counts.add("transition: handlers cut off at a stop");
        this.isCutOff = true;
        this.endIfStopped();
      });
    }
    this.endIfStopped();
  }

  cutWires(): void {
    for (const outgoing of this.#outgoing.values()) outgoing.wire?.cut();
    this.world.cutWiresTo(this);
  }

  wires(): Wire[] {
    return [...this.#outgoing.values()].flatMap((outgoing) => (outgoing.wire?.open ? [outgoing.wire] : []));
  }

  /** The server that this process writes to: the one on which it holds its lease. */
  get trusted(): number {
    const { postgres, mutant } = this.world;
    return mutant.writesToAnyServer ? postgres.timeline : this.#timeline;
  }

  get now(): number {
    return this.world.schedule.now;
  }

  /** Reads something in one snapshot. */
  read<T>(look: () => T, answer: (result: CallResult<T>) => void): void {
    this.world.store.read(look, (result) => this.deliver(() => answer(result)));
  }

  /** Caller of a statement about a channel. */
  callFor(key: number): ChannelCall {
    return { name: this.name, epoch: this.epoch, server: this.trusted, key };
  }

  /** The application sends. */
  send(record: MessageRecord): void {
    const outgoing = this.lease === "held" && !this.stopping ? this.#outgoing.get(record.key) : undefined;
    if (outgoing === undefined) {
      this.world.refused(record);
      return;
    }
    const { channel, effects } = outgoing;
    const message = {
      delivery: record.delivery,
      topicId: record.topicId,
      payload: record.payload,
      encoding: undefined,
      headers: undefined,
      record,
    };
    const overtakes = this.world.mutant.atMostOnceOvertakes === true && outgoing.wire?.open === true;
    if (record.delivery === Delivery.AT_MOST_ONCE && (overtakes || channel.writesAtOnce(record.payload.length))) {
      this.world.counts.add("transition: at-most-once written at once");
      effects.writeBatch(record.delivery, record.topicId, 0, [message]);
      effects.sendEnded(message, "sent");
      return;
    }
    const taken = channel.offer(message, this.now);
    if (!taken) {
      this.world.counts.add("transition: busy");
      this.world.refused(record);
      return;
    }
    this.world.checkQueue(outgoing.channel);
    this.after(0, () => {
      outgoing.channel.flush(this.now);
      this.#arm(outgoing);
    });
  }

  /** Nothing is under way and every channel that has a listener is live. */
  get settled(): boolean {
    if (this.lease !== "held") return false;
    for (const { channel } of this.#outgoing.values()) {
      if (channel.pendingMessages > 0 || channel.link !== "live") return false;
    }
    return this.receiving.settled;
  }

  /** The store may have something for one of our channels. */
  announced(key: number): void {
    if (this.listening && this.#session?.isAlive) this.receiving.announced(key);
  }

  /** A listener has come up: dial at once. */
  peerAppeared(name: string): void {
    for (const outgoing of this.#outgoing.values()) {
      if (this.world.listenerOf(outgoing.key) === name && outgoing.wire === undefined && this.listening)
        this.#dial(outgoing);
    }
  }

  #start(): void {
    const { world } = this;
    const early = world.mutant.cursorBeforeLease ? world.store.owned(this.name) : undefined;
    const attempt = () => {
      if (this.isDead) return;
      this.#session ??= world.postgres.connect();
      const session = this.#session;
      if (session === undefined || !session.isAlive) {
        this.#session = undefined;
        this.after(world.random.delay(20), attempt);
        return;
      }
      if (!world.store.tryLease(session, this.name)) {
        if (this.now > this.#giveUpAt) {
          world.counts.add("transition: name_in_use");
          this.kill();
          return;
        }
        this.after(world.random.delay(30), attempt);
        return;
      }
      session.onLost = () => this.deliver(() => this.#sessionLost());
      world.store.takeName(session, this, {}, (result) => this.deliver(() => this.#named(result, early, attempt)));
    };
    this.after(world.random.delay(2), attempt);
  }

  #named(result: CallResult<NameTaken>, early: Map<number, OwnedChannel> | undefined, retry: () => void): void {
    if (result.kind !== "ok" || !this.#session?.isAlive) {
      this.after(this.world.random.delay(20), retry);
      return;
    }
    this.epoch = result.value.epoch;
    this.wasClean = result.value.wasClean;
    this.#timeline = this.world.postgres.timeline;
    this.read(
      () => early ?? this.world.store.owned(this.name),
      (cursors) => {
        if (cursors.kind !== "ok") return this.#named(result, early, retry);
        this.#open(cursors.value);
      },
    );
  }

  #open(owned: Map<number, OwnedChannel>): void {
    const { world } = this;
    this.lease = "held";
    world.counts.add("transition: lease taken");
    this.receiving.open(owned);
    for (const { key, from } of world.channels) {
      if (from !== this.name) continue;
      const own = this.#senderEffects(key);
      const effects = world.mutant.senderEffects?.(own) ?? own;
      const limits = { ...world.limits.sender, ...world.mutant.senderLimits };
      const channel = new SenderChannel(this.epoch, limits, effects);
      const outgoing = {
        key,
        channel,
        effects,
        wire: undefined,
        redialMs: 100,
        inserts: 0,
        timerAt: Number.POSITIVE_INFINITY,
      };
      this.#outgoing.set(key, outgoing);
      this.#dial(outgoing);
    }
    this.#poll();
    this.#work();
    world.appeared(this);
    if (!this.#session?.isAlive) this.#sessionLost();
  }

  /** The session with the lease ended: write nothing until the lock is held again and the row is unchanged. */
  #sessionLost(): void {
    if (this.isDead || this.lease !== "held") {
      if (!this.#session?.isAlive) this.#session = undefined;
      return;
    }
    if (this.#session?.isAlive) return;
    this.world.counts.add("transition: lease suspended");
    this.lease = "suspended";
    this.#session = undefined;
    this.#setMayWrite(false);
    const regain = () => {
      if (this.lease !== "suspended") return;
      const again = () => this.after(this.world.random.delay(30), regain);
      this.#session ??= this.world.postgres.connect();
      const session = this.#session;
      if (!session?.isAlive) {
        this.#session = undefined;
        return again();
      }
      const locked = this.world.store.tryLease(session, this.name);
      this.read(
        () => this.world.store.row(this.name),
        (row) => {
          if (this.lease !== "suspended" || row.kind !== "ok" || !session.isAlive) return again();
          const isSameEpoch = row.value.epoch === this.epoch;
          if (!isSameEpoch && !this.#knowsToken(row.value)) return this.lose();
          if (!locked) return again();
          const sameServer = this.world.postgres.timeline === this.#timeline;
          if (isSameEpoch && (sameServer || this.world.mutant.sameEpochAfterFailover)) return this.#regained(session);
          // Another server: it may have lost the epoch of a twin that listeners have heard of. Take the name anew.
          this.#renewal ??= {};
          this.world.store.takeName(session, this, this.#renewal, (taken) =>
            this.deliver(() => {
              if (this.lease !== "suspended" || taken.kind !== "ok" || !session.isAlive) return again();
              this.world.counts.add("transition: epoch renewed");
              this.#renewal = undefined;
              this.#timeline = this.world.postgres.timeline;
              this.epoch = taken.value.epoch;
              this.world.cutWiresTo(this);
              for (const outgoing of this.#outgoing.values()) {
                outgoing.inserts += 1;
                outgoing.wire?.cut();
                outgoing.wire = undefined;
                outgoing.channel.restartNumbering(this.epoch, this.now);
                this.#dial(outgoing);
              }
              // What was accepted before is no longer known to be in order: begin again from the cursors.
              this.receiving.forget();
              this.#regained(session);
              this.#reopenIncoming();
            }),
          );
        },
      );
    };
    regain();
  }

  /** The epoch is of a renewal of ours whose answer was lost. */
  #knowsToken({ token, by }: Raised): boolean {
    if (this.#renewal === undefined || token !== this.#renewal || this.world.mutant.ignoresTokens) return false;
    this.world.counts.add("transition: own token found");
    if (by !== this) throw new Violation(`"${this.name}" goes on under an epoch that somebody else has raised`);
    return true;
  }

  #reopenIncoming(): void {
    const { epoch } = this;
    this.read(
      () => this.world.store.owned(this.name),
      (owned) => {
        if (this.epoch !== epoch) return;
        if (owned.kind !== "ok") return this.#reopenIncoming();
        this.receiving.open(owned.value);
      },
    );
  }

  #poll(): void {
    this.after(5_000, () => {
      if (this.listening) this.receiving.poll();
      this.#beat();
      this.#poll();
    });
  }

  /** The beat of the worker. */
  #work(): void {
    this.receiving.wakeWorker(0);
    if (this.lease === "held")
      this.world.store.freeRows(this.callFor(0), this.world.limits.listener.retryOf().attempts);
    this.after(1_000, () => this.#work());
  }

  /** The session is heard from, and the catalog still has our epoch: a release may have raised it while nothing is written. */
  #beat(): void {
    const { epoch } = this;
    const timeline = this.#timeline;
    this.read(
      () => this.world.store.epochOf(this.name),
      (row) => {
        if (row.kind !== "ok" || this.lease !== "held" || this.epoch !== epoch) return;
        if (timeline !== this.world.postgres.timeline || !this.#session?.isAlive || row.value === epoch) return;
        this.world.counts.add("transition: deposed, as a beat showed");
        this.lose();
      },
    );
  }

  #regained(session: Session): void {
    this.lease = "held";
    session.onLost = () => this.deliver(() => this.#sessionLost());
    this.world.counts.add("transition: lease regained");
    this.#setMayWrite(true);
    this.receiving.askStore();
  }

  #setMayWrite(may: boolean): void {
    for (const { channel } of this.#outgoing.values()) channel.setMayStore(may, this.now);
    this.receiving.halt(this.haltsHandlers);
    if (may) this.receiving.commitAll();
    for (const outgoing of this.#outgoing.values()) this.#arm(outgoing);
    this.endIfStopped();
  }

  /** Another process has the name. */
  lose(): void {
    if (this.isDead) return;
    this.world.counts.add("transition: name_lost");
    this.world.checkLoss(this);
    this.lease = "lost";
    for (const { channel } of this.#outgoing.values()) channel.onFenced();
    this.kill();
  }

  endIfStopped(): void {
    if (!this.stopping || this.isDead) return;
    for (const { channel } of this.#outgoing.values()) if (channel.pendingMessages > 0) return;
    if (!this.isCutOff && !this.receiving.idle) return;
    if (!this.#hasLeft) {
      this.#hasLeft = true;
      this.isCutOff = true;
      this.receiving.leaveUnfinished();
    }
    if (!this.receiving.committed) return;
    this.world.counts.add("transition: stopped cleanly");
    this.world.endedInOrder(this);
    if (this.#session) this.world.store.releaseLease(this.#session, this.name, this.epoch);
    this.kill();
  }

  #dial(outgoing: Outgoing): void {
    if (this.isDead || this.stopping || outgoing.wire !== undefined) return;
    const { world } = this;
    outgoing.channel.onDialling();
    const target = world.addressOf(world.listenerOf(outgoing.key));
    const failed = () => {
      if (outgoing.wire !== undefined) return;
      outgoing.channel.onDialFailed(this.now);
      this.#arm(outgoing);
      this.#redialLater(outgoing);
    };
    // Nobody says Hello with an epoch that it does not surely hold: after a failover it may be an older one again.
    if (target === undefined || this.lease !== "held" || world.random.chance(world.dialFaultRate)) {
      this.after(world.random.delay(2), failed);
      return;
    }
    const wire = new Wire(world, () => !this.isDead && !target.isDead);
    outgoing.wire = wire;
    world.registerWire(wire, this, target, outgoing.key);
    let welcomed = false;
    wire.onClosed[0] = () =>
      this.deliver(() => {
        if (outgoing.wire === wire) outgoing.wire = undefined;
        if (!welcomed) return failed();
        outgoing.channel.onClosed(wire, this.now);
        this.#arm(outgoing);
        if (outgoing.wire === undefined) this.#redialLater(outgoing);
      });
    const onWelcome = () => {
      welcomed = true;
    };
    wire.send(0, () => target.deliver(() => target.receiving.hello(wire, outgoing.key, this, onWelcome)));
  }

  /** The wire is the channel's present one. */
  isOn(wire: Wire, key: number): boolean {
    return this.#outgoing.get(key)?.wire === wire;
  }

  /** The listener has welcomed us. */
  connected(wire: Wire, key: number, welcome: ChannelWelcome): void {
    const outgoing = this.#outgoing.get(key)!;
    outgoing.redialMs = 100;
    outgoing.channel.onConnected(wire, welcome, this.now);
    this.#arm(outgoing);
  }

  /** Whether its session with the database is this one; undefined without one that lives. */
  hasSession(session: Session): boolean | undefined {
    return this.#session?.isAlive ? this.#session === session : undefined;
  }

  /** A listener has refused our epoch as an old one. That is no proof: the catalog has the truth. */
  helloRefused(): void {
    if (this.lease !== "held") return;
    this.read(
      () => this.world.store.epochOf(this.name),
      (row) => {
        if (row.kind === "ok" && (row.value ?? 0) > this.epoch) this.lose();
      },
    );
  }

  #redialLater(outgoing: Outgoing): void {
    const wait = outgoing.redialMs * (0.5 + this.world.random.next() / 2);
    outgoing.redialMs = Math.min(3_000, outgoing.redialMs * 2);
    this.after(wait, () => this.#dial(outgoing));
  }

  #senderEffects(key: number): SenderEffects<SimulatedMessage> {
    const { world } = this;
    return {
      writeBatch: (_delivery, topicId, firstNumber, messages) => {
        const { channel, wire } = this.#outgoing.get(key)! as Outgoing & { wire: Wire };
        world.checkOrder(wire, firstNumber, channel.link, messages);
        const batch = messages.map(
          (message, index): IncomingMessage => ({
            position: firstNumber === 0 ? undefined : { epoch: this.epoch, number: firstNumber + index },
            topicId,
            payload: message.payload,
            encoding: undefined,
            headers: undefined,
            key: message.record.messageKey,
            fromWire: true,
          }),
        );
        if (world.random.chance(0.02)) {
          channel.pauseWriting();
          world.counts.add("fault: full socket buffer");
          this.after(world.random.delay(20), () => channel.onWritable(wire, this.now));
        }
        wire.send(0, () => world.atListener(wire, (listener) => listener.receiving.messages(wire, key, batch)));
      },
      writeGoLive: () => {
        const { wire, channel } = this.#outgoing.get(key)! as Outgoing & { wire: Wire };
        wire.storedAtGoLive = { epoch: this.epoch, number: channel.storedNumber };
        wire.send(0, () => world.atListener(wire, (listener) => listener.receiving.channel(key)?.onGoLive(wire)));
      },
      store: (firstNumber, messages) => this.#insert(key, firstNumber, messages),
      announce: () => {
        const to = world.listenerOf(key);
        if (world.random.chance(world.notifyLossRate)) world.counts.add("fault: lost notification");
        else world.schedule.after(world.random.delay(3), () => world.announce(to, key));
      },
      sendEnded: (message, outcome) => {
        world.settle(message.record, outcome);
        if (this.stopping) this.after(0, () => this.endIfStopped());
      },
      linkChanged: (state) => world.counts.add(`transition: sender ${state}`),
    };
  }

  #insert(key: number, firstNumber: number, messages: readonly SimulatedMessage[]): void {
    const { world } = this;
    const rows = messages.map((message, index) => ({
      position: { epoch: this.epoch, number: firstNumber + index },
      topicId: message.topicId,
      payload: message.payload,
    }));
    const outgoing = this.#outgoing.get(key)!;
    const insert = ++outgoing.inserts;
    world.store.insert(this.callFor(key), rows, (result) =>
      this.deliver(() => {
        if (insert !== outgoing.inserts) return;
        if (result.kind === "ok" && result.value === "fenced") {
          world.counts.add("transition: insert fenced");
          return this.lose();
        }
        if (result.kind === "ok") outgoing.channel.onStored(this.now);
        else if (result.kind === "unknown" && world.mutant.resolvesOnUnknown) outgoing.channel.onStored(this.now);
        else outgoing.channel.onStoreFailed(this.now);
        this.#arm(outgoing);
        this.endIfStopped();
      }),
    );
  }

  acked(wire: Wire, key: number, ack: Parameters<SenderChannel<SimulatedMessage>["onAck"]>[1]): void {
    const outgoing = this.#outgoing.get(key);
    if (outgoing === undefined) return;
    this.world.checkAck(key, this.epoch, ack);
    outgoing.channel.onAck(wire, this.world.mutant.ack?.(ack) ?? ack, this.now);
    this.#arm(outgoing);
    this.endIfStopped();
  }

  #tickAll(): void {
    for (const outgoing of this.#outgoing.values()) {
      outgoing.channel.tick(this.now);
      this.#arm(outgoing);
    }
    this.receiving.tickAll();
  }

  #arm(outgoing: Outgoing): void {
    this.armTimer(outgoing, outgoing.channel);
  }

  armTimer(slot: { timerAt: number }, channel: { readonly deadline: number; tick(now: number): void }): void {
    const at = Math.max(channel.deadline, this.now);
    if (at >= slot.timerAt || at === Number.POSITIVE_INFINITY || this.isDead) return;
    slot.timerAt = at;
    this.after(at - this.now, () => {
      if (slot.timerAt !== at) return;
      slot.timerAt = Number.POSITIVE_INFINITY;
      channel.tick(this.now);
      this.armTimer(slot, channel);
    });
  }
}
