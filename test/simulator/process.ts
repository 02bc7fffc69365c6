/**
 * A simulated process: one peer with a name, its lease, its sending and its receiving channels. The channels are the
 * product's own state machines; what surrounds them here stands for sockets, the store and the operating system.
 */
import {
  type IncomingMessage,
  type ListenerChannel,
  type ListenerEffects,
  origin,
  type Position,
  type SenderChannel,
  type SenderEffects,
  type SendOutcome,
} from "../../src/channel/index.js";
import { Wire } from "./network.js";
import type { CallResult, Session } from "./postgres.js";
import type { MessageRecord, SimulatedMessage } from "./records.js";
import type { World } from "./world.js";

type Lease = "starting" | "held" | "suspended" | "lost" | "dead";

interface Outgoing {
  readonly to: string;
  readonly key: number;
  readonly channel: SenderChannel<SimulatedMessage>;
  wire: Wire | undefined;
  redialMs: number;
  /** Grows when answers of earlier inserts are to be dropped. */
  inserts: number;
  timerAt: number;
}

interface Incoming {
  readonly key: number;
  channel: ListenerChannel;
  timerAt: number;
  committing: boolean;
  toCommit: Position | undefined;
}

export class PeerProcess {
  epoch = 0;
  lease: Lease = "starting";
  stalled = false;
  stopping = false;
  private session: Session | undefined;
  private generation = 0;
  private readonly inbox: (() => void)[] = [];
  private readonly outgoing = new Map<number, Outgoing>();
  private readonly incoming = new Map<number, Incoming>();
  private readonly giveUpAt: number;

  constructor(
    readonly world: World,
    readonly name: string,
  ) {
    this.giveUpAt = world.schedule.now + world.random.between(200, 15_000);
    this.start();
  }

  get dead(): boolean {
    return this.lease === "dead";
  }

  get listening(): boolean {
    return this.lease === "held" || this.lease === "suspended";
  }

  /** Runs when the process does: at once, when it wakes, or never. */
  deliver(run: () => void): void {
    if (this.dead) return;
    if (this.stalled) this.inbox.push(run);
    else run();
  }

  /** SIGKILL: memory is gone; the server notices a little later. */
  kill(): void {
    if (this.dead) return;
    this.lease = "dead";
    const session = this.session;
    if (session) this.world.schedule.after(this.world.random.delay(10), () => this.world.postgres.endSession(session));
    this.cutWires();
  }

  stall(): void {
    this.stalled = true;
  }

  wake(): void {
    this.stalled = false;
    const inbox = this.inbox.splice(0);
    // A long stall shows in its timers, and then the session is heard first. After a short one it goes on unaware,
    // with its timers or its events first: who knows.
    const sameServer = this.generation === this.world.postgres.generation;
    if (this.lease === "held" && !this.session?.alive && (!sameServer || this.world.random.chance(0.5))) {
      this.sessionLost();
    } else this.world.counts.add("transition: woke unaware");
    if (this.world.random.chance(0.5)) this.tickAll();
    for (const run of inbox) if (!this.dead && !this.stalled) run();
    this.tickAll();
  }

  /** A clean stop: what is unconfirmed is stored, handlers end, the final cursors are told, the lease is free. */
  stop(): void {
    if (this.lease !== "held" || this.stopping) return;
    this.stopping = true;
    for (const incoming of this.incoming.values()) incoming.channel.halt(true);
    for (const outgoing of this.outgoing.values()) {
      outgoing.channel.stop(this.now);
      this.arm(outgoing);
    }
    this.endIfStopped();
  }

  cutWires(): void {
    for (const outgoing of this.outgoing.values()) outgoing.wire?.cut();
    this.world.cutWiresTo(this);
  }

  wires(): Wire[] {
    return [...this.outgoing.values()].flatMap((outgoing) => (outgoing.wire?.open ? [outgoing.wire] : []));
  }

  /** The server that this process writes to: the one on which it holds its lease. */
  get trusted(): number {
    const { postgres, mutant } = this.world;
    return mutant.writesToAnyServer ? postgres.generation : this.generation;
  }

  get now(): number {
    return this.world.schedule.now;
  }

  /** The application sends. */
  send(record: MessageRecord): void {
    const outgoing = this.lease === "held" && !this.stopping ? this.outgoing.get(record.key) : undefined;
    if (outgoing === undefined) {
      this.world.refused(record);
      return;
    }
    const taken = outgoing.channel.offer(
      {
        delivery: record.delivery,
        topicKey: 1,
        payload: record.payload,
        encoding: undefined,
        headers: undefined,
        number: 0,
        offeredAt: 0,
        settled: false,
        record,
      },
      this.now,
    );
    if (!taken) {
      this.world.counts.add("transition: busy");
      this.world.refused(record);
      return;
    }
    this.world.checkQueue(outgoing.channel);
    this.world.schedule.after(0, () =>
      this.deliver(() => {
        outgoing.channel.flush(this.now);
        this.arm(outgoing);
      }),
    );
  }

  /** Nothing is under way and every channel that has a listener is live. */
  get settled(): boolean {
    if (this.lease !== "held") return false;
    for (const { channel } of this.outgoing.values()) {
      if (channel.pendingMessages > 0 || channel.link !== "live") return false;
    }
    for (const { channel, committing } of this.incoming.values()) {
      if (channel.waitingMessages > 0 || channel.isHandling || channel.isCommitting || committing) return false;
      if (!channel.isLive) return false;
    }
    return true;
  }

  /** The store may have something for one of our channels. */
  announced(key: number): void {
    const incoming = this.incoming.get(key);
    if (incoming !== undefined && this.session?.alive) incoming.channel.onAnnounced();
  }

  /** A listener has come up: dial at once. */
  peerAppeared(name: string): void {
    for (const outgoing of this.outgoing.values()) {
      if (outgoing.to === name && outgoing.wire === undefined && this.listening) this.dial(outgoing);
    }
  }

  private start(): void {
    const { world } = this;
    const early = world.mutant.cursorBeforeLease ? this.readCursors() : undefined;
    const attempt = () => {
      if (this.dead) return;
      this.session ??= world.postgres.connect();
      const session = this.session;
      if (session === undefined || !session.alive) {
        this.session = undefined;
        world.schedule.after(world.random.delay(20), () => this.deliver(attempt));
        return;
      }
      if (!world.postgres.tryLease(session, this.name)) {
        if (this.now > this.giveUpAt) {
          world.counts.add("transition: name_in_use");
          this.kill();
          return;
        }
        world.schedule.after(world.random.delay(30), () => this.deliver(attempt));
        return;
      }
      session.onLost = () => this.deliver(() => this.sessionLost());
      world.postgres.takeName(session, this.name, (result) => this.deliver(() => this.named(result, early, attempt)));
    };
    world.schedule.after(world.random.delay(2), () => this.deliver(attempt));
  }

  private named(result: CallResult<number>, early: Map<number, Position> | undefined, retry: () => void): void {
    if (result.kind !== "ok" || !this.session?.alive) {
      this.world.schedule.after(this.world.random.delay(20), () => this.deliver(retry));
      return;
    }
    this.epoch = result.value;
    this.generation = this.world.postgres.generation;
    this.world.postgres.read(
      () => early ?? this.readCursors(),
      (cursors) =>
        this.deliver(() => {
          if (cursors.kind !== "ok") return this.named(result, early, retry);
          this.open(cursors.value);
        }),
    );
  }

  private readCursors(): Map<number, Position> {
    const { postgres, channels } = this.world;
    const mine = channels.filter((channel) => channel.to === this.name);
    return new Map(mine.map((channel) => [channel.key, postgres.cursors.get(channel.key) ?? origin]));
  }

  private open(cursors: Map<number, Position>): void {
    const { world } = this;
    this.lease = "held";
    world.counts.add("transition: lease taken");
    this.openIncoming(cursors);
    for (const { key, from, to } of world.channels) {
      if (from !== this.name) continue;
      const channel = new world.mutant.Sender(this.epoch, world.limits.sender, this.senderEffects(key));
      const outgoing = {
        to,
        key,
        channel,
        wire: undefined,
        redialMs: 100,
        inserts: 0,
        timerAt: Number.POSITIVE_INFINITY,
      };
      this.outgoing.set(key, outgoing);
      this.dial(outgoing);
    }
    this.poll();
    world.appeared(this);
    if (!this.session?.alive) this.sessionLost();
  }

  /** The receiving channels as they are after the lease was taken: nothing in memory but the committed cursors. */
  private openIncoming(cursors: Map<number, Position>): void {
    const { world } = this;
    for (const [key, cursor] of cursors) {
      const incoming = { key, timerAt: Number.POSITIVE_INFINITY, committing: false, toCommit: undefined } as Incoming;
      incoming.channel = new world.mutant.Listener(cursor, world.limits.listener, this.listenerEffects(incoming));
      this.incoming.set(key, incoming);
      incoming.channel.onAnnounced();
    }
  }

  private poll(): void {
    this.world.schedule.after(5_000, () =>
      this.deliver(() => {
        for (const { channel, key } of this.incoming.values()) {
          if (this.world.postgres.tableOf(key).size > 0) channel.onPolled();
        }
        this.poll();
      }),
    );
  }

  /** The session with the lease ended: write nothing until the lock is held again and the row is unchanged. */
  private sessionLost(): void {
    if (this.dead || this.lease !== "held") {
      if (!this.session?.alive) this.session = undefined;
      return;
    }
    if (this.session?.alive) return;
    this.world.counts.add("transition: lease suspended");
    this.lease = "suspended";
    this.session = undefined;
    this.setMayWrite(false);
    const regain = () => {
      if (this.lease !== "suspended") return;
      const again = () => this.world.schedule.after(this.world.random.delay(30), () => this.deliver(regain));
      this.session ??= this.world.postgres.connect();
      const session = this.session;
      if (!session?.alive) {
        this.session = undefined;
        return again();
      }
      const locked = this.world.postgres.tryLease(session, this.name);
      this.world.postgres.read(
        () => this.world.postgres.epochs.get(this.name),
        (row) =>
          this.deliver(() => {
            if (this.lease !== "suspended" || row.kind !== "ok" || !session.alive) return again();
            if (row.value !== this.epoch) return this.lose();
            if (!locked) return again();
            if (this.world.postgres.generation === this.generation || this.world.mutant.sameEpochAfterFailover) {
              return this.regained(session);
            }
            // Another server: it may have lost the epoch of a twin that listeners have heard of. Take the name anew.
            this.world.postgres.takeName(session, this.name, (taken) =>
              this.deliver(() => {
                if (this.lease !== "suspended" || taken.kind !== "ok" || !session.alive) return again();
                this.world.counts.add("transition: epoch renewed");
                this.generation = this.world.postgres.generation;
                this.epoch = taken.value;
                this.world.cutWiresTo(this);
                for (const outgoing of this.outgoing.values()) {
                  outgoing.inserts += 1;
                  outgoing.wire?.cut();
                  outgoing.wire = undefined;
                  outgoing.channel.rebase(this.epoch, this.now);
                  this.dial(outgoing);
                }
                // What was accepted before is no longer known to be in order: begin again from the cursors.
                this.incoming.clear();
                this.regained(session);
                this.reopenIncoming();
              }),
            );
          }),
      );
    };
    regain();
  }

  private reopenIncoming(): void {
    const { epoch } = this;
    this.world.postgres.read(
      () => this.readCursors(),
      (cursors) =>
        this.deliver(() => {
          if (this.epoch !== epoch) return;
          if (cursors.kind !== "ok") return this.reopenIncoming();
          this.openIncoming(cursors.value);
          for (const incoming of this.incoming.values()) {
            incoming.channel.halt(this.lease !== "held" || this.stopping);
          }
        }),
    );
  }

  private regained(session: Session): void {
    this.lease = "held";
    session.onLost = () => this.deliver(() => this.sessionLost());
    this.world.counts.add("transition: lease regained");
    this.setMayWrite(true);
    for (const { channel } of this.incoming.values()) channel.onAnnounced();
  }

  private setMayWrite(may: boolean): void {
    for (const { channel } of this.outgoing.values()) channel.setMayStore(may, this.now);
    for (const incoming of this.incoming.values()) {
      incoming.channel.halt(!may || this.stopping);
      this.armIncoming(incoming);
      if (may) this.commitNext(incoming);
    }
    for (const outgoing of this.outgoing.values()) this.arm(outgoing);
    this.endIfStopped();
  }

  /** Another process has the name. */
  private lose(): void {
    if (this.dead) return;
    this.world.counts.add("transition: name_lost");
    this.lease = "lost";
    for (const { channel } of this.outgoing.values()) channel.onFenced();
    this.kill();
  }

  private endIfStopped(): void {
    if (!this.stopping || this.dead) return;
    for (const { channel } of this.outgoing.values()) if (channel.pendingMessages > 0) return;
    for (const { channel, committing } of this.incoming.values()) {
      if (channel.isHandling || channel.isCommitting || committing) return;
    }
    this.world.counts.add("transition: stopped cleanly");
    if (this.session) this.world.postgres.releaseLease(this.session, this.name);
    this.kill();
  }

  private dial(outgoing: Outgoing): void {
    if (this.dead || this.stopping || outgoing.wire !== undefined) return;
    const { world } = this;
    outgoing.channel.onDialling();
    const target = world.addressOf(outgoing.to);
    const failed = () => {
      if (outgoing.wire !== undefined) return;
      outgoing.channel.onDialFailed(this.now);
      this.arm(outgoing);
      this.redialLater(outgoing);
    };
    // Nobody says Hello with an epoch that it does not surely hold: after a failover it may be an older one again.
    if (target === undefined || this.lease !== "held" || world.random.chance(world.dialFaultRate)) {
      world.schedule.after(world.random.delay(2), () => this.deliver(failed));
      return;
    }
    const wire = new Wire(world, () => !this.dead && !target.dead);
    outgoing.wire = wire;
    world.registerWire(wire, this, target);
    let welcomed = false;
    wire.onClosed[0] = () =>
      this.deliver(() => {
        if (outgoing.wire === wire) outgoing.wire = undefined;
        if (!welcomed) return failed();
        outgoing.channel.onClosed(wire, this.now);
        this.arm(outgoing);
        if (outgoing.wire === undefined) this.redialLater(outgoing);
      });
    wire.send(0, () => target.deliver(() => target.hello(wire, outgoing.key, this, () => (welcomed = true))));
  }

  private redialLater(outgoing: Outgoing): void {
    const wait = outgoing.redialMs * (0.5 + this.world.random.next() / 2);
    outgoing.redialMs = Math.min(3_000, outgoing.redialMs * 2);
    this.world.schedule.after(wait, () => this.deliver(() => this.dial(outgoing)));
  }

  /** A Hello came in: the catalog says whether the sender's epoch and ours are the newest. */
  private hello(wire: Wire, key: number, sender: PeerProcess, welcomed: () => void): void {
    const { world } = this;
    const incoming = this.incoming.get(key);
    const epoch = sender.epoch;
    if (incoming === undefined || this.lease !== "held" || this.stopping) {
      wire.cut();
      return;
    }
    world.postgres.read(
      () => ({
        sender: world.postgres.epochs.get(sender.name),
        own: world.postgres.epochs.get(this.name),
        backlog: world.postgres.rowsAbove(key, incoming.channel.accepted).length,
      }),
      (found) =>
        this.deliver(() => {
          if (!wire.open) return;
          if (found.kind !== "ok") return wire.cut();
          if (found.value.own !== this.epoch || this.lease !== "held") return wire.cut();
          if (this.incoming.get(key) !== incoming) return wire.cut();
          if ((found.value.sender ?? 0) > epoch) {
            world.counts.add("transition: hello refused as fenced");
            wire.cut();
            return sender.deliver(() => sender.lease === "held" && sender.lose());
          }
          const welcome = incoming.channel.onHello(wire, epoch, found.value.backlog);
          if (welcome === undefined) return wire.cut();
          wire.onClosed[1] = () => this.deliver(() => incoming.channel.onClosed(wire));
          wire.send(1, () =>
            sender.deliver(() => {
              const outgoing = sender.outgoing.get(key);
              if (outgoing === undefined || outgoing.wire !== wire) return;
              welcomed();
              outgoing.redialMs = 100;
              world.checkAck(key, epoch, welcome.cursor);
              outgoing.channel.onConnected(wire, { ...welcome, maxMessageBytes: world.maxMessageBytes() }, sender.now);
              sender.arm(outgoing);
            }),
          );
        }),
    );
  }

  private senderEffects(key: number): SenderEffects<SimulatedMessage> {
    const { world } = this;
    return {
      writeBatch: (_delivery, topicKey, firstNumber, messages) => {
        const wire = this.outgoing.get(key)!.wire!;
        const batch = messages.map(
          (message, index): IncomingMessage => ({
            position: firstNumber === 0 ? undefined : { epoch: this.epoch, number: firstNumber + index },
            topicKey,
            payload: message.payload,
            encoding: undefined,
            headers: undefined,
            fromWire: true,
          }),
        );
        if (world.random.chance(0.02)) {
          const { channel } = this.outgoing.get(key)!;
          channel.pauseWriting();
          world.counts.add("fault: full socket buffer");
          world.schedule.after(world.random.delay(20), () => this.deliver(() => channel.onWritable(wire, this.now)));
        }
        wire.send(0, () => world.atListener(wire, (listener) => listener.messages(wire, key, batch)));
      },
      writeGoLive: () => {
        const { wire, channel } = this.outgoing.get(key)! as Outgoing & { wire: Wire };
        wire.storedAtGoLive = { epoch: this.epoch, number: channel.storedNumber };
        wire.send(0, () => world.atListener(wire, (listener) => listener.incoming.get(key)?.channel.onGoLive(wire)));
      },
      store: (messages) => this.insert(key, messages),
      announce: () => {
        const { to } = this.outgoing.get(key)!;
        if (world.random.chance(world.notifyLossRate)) world.counts.add("fault: lost notification");
        else world.schedule.after(world.random.delay(3), () => world.announce(to, key));
      },
      settle: (message, outcome) => {
        world.settle(message.record, outcome);
        if (this.stopping) world.schedule.after(0, () => this.deliver(() => this.endIfStopped()));
      },
      linkChanged: (state) => world.counts.add(`transition: sender ${state}`),
    };
  }

  private insert(key: number, messages: readonly SimulatedMessage[]): void {
    const { world } = this;
    const rows = messages.map((message) => ({
      position: { epoch: this.epoch, number: message.number },
      topicKey: message.topicKey,
      payload: message.payload,
    }));
    const outgoing = this.outgoing.get(key)!;
    const insert = ++outgoing.inserts;
    world.postgres.insert(this.name, this.epoch, this.trusted, key, rows, (result) =>
      this.deliver(() => {
        if (insert !== outgoing.inserts) return;
        if (result.kind === "ok" && result.value === "fenced") {
          world.counts.add("transition: insert fenced");
          return this.lose();
        }
        if (result.kind === "ok") outgoing.channel.onStored(this.now);
        else if (result.kind === "unknown" && world.mutant.resolvesOnUnknown) outgoing.channel.onStored(this.now);
        else outgoing.channel.onStoreFailed(this.now);
        this.arm(outgoing);
        this.endIfStopped();
      }),
    );
  }

  private messages(wire: Wire, key: number, batch: IncomingMessage[]): void {
    const incoming = this.incoming.get(key);
    if (incoming === undefined || wire.keepUnread(() => this.messages(wire, key, batch))) return;
    incoming.channel.onMessages(wire, batch, this.now);
    this.world.checkListener(incoming.channel);
    this.armIncoming(incoming);
  }

  private listenerEffects(incoming: Incoming): ListenerEffects {
    const { world } = this;
    const { key } = incoming;
    const replaced = () => this.incoming.get(key) !== incoming;
    return {
      writeAck: (connection, ack) => {
        const wire = connection as Wire;
        if (ack.busy) world.counts.add("transition: listener busy");
        if (ack.live) {
          world.counts.add("transition: listener live ack");
          world.checkLive(this, incoming.channel, wire);
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
        world.postgres.read(
          () => world.postgres.rowsAbove(key, after),
          (found) =>
            this.deliver(() => {
              if (replaced()) return;
              if (found.kind !== "ok") {
                incoming.channel.onQueryFailed();
                world.schedule.after(world.random.delay(30), () => this.deliver(() => incoming.channel.retryQuery()));
                return;
              }
              const rows = found.value.slice(0, drainRows).map((row) => ({
                position: row.position,
                topicKey: row.topicKey,
                payload: row.payload,
                encoding: undefined,
                headers: undefined,
                fromWire: false,
              }));
              if (rows.length > 0) world.counts.add("transition: listener drained rows");
              incoming.channel.onRows(rows, found.value.length - rows.length);
              world.checkListener(incoming.channel);
              this.armIncoming(incoming);
            }),
        );
      },
      deleteStale: (cursor) => {
        world.counts.add("transition: stale rows deleted");
        world.postgres.deleteStale(key, cursor);
      },
      commit: (cursor, dead) => {
        if (dead !== undefined) {
          world.counts.add("transition: dead letter");
          world.handled(world.recordOf(dead.message));
        }
        if (replaced()) return;
        incoming.toCommit = cursor;
        this.commitNext(incoming);
      },
      ready: () => world.schedule.after(0, () => this.deliver(() => this.handleNext(incoming))),
      dropped: () => world.counts.add("transition: at-most-once handler failed"),
      gap: (epoch, first, last) => world.gap(this, key, epoch, first, last),
    };
  }

  private acked(wire: Wire, key: number, ack: Parameters<SenderChannel<SimulatedMessage>["onAck"]>[1]): void {
    const outgoing = this.outgoing.get(key);
    if (outgoing === undefined) return;
    this.world.checkAck(key, this.epoch, ack.cursor);
    outgoing.channel.onAck(wire, ack, this.now);
    this.arm(outgoing);
    this.endIfStopped();
  }

  private commitNext(incoming: Incoming): void {
    const cursor = incoming.toCommit;
    if (this.incoming.get(incoming.key) !== incoming) return;
    if (incoming.committing || cursor === undefined || this.lease !== "held") return;
    incoming.committing = true;
    incoming.toCommit = undefined;
    this.world.postgres.commitCursor(this.name, this.epoch, this.trusted, incoming.key, cursor, (result) =>
      this.deliver(() => {
        incoming.committing = false;
        if (result.kind === "ok" && result.value === "fenced") {
          this.world.counts.add("transition: cursor fenced");
          return this.lose();
        }
        if (result.kind === "ok") {
          incoming.channel.onCommitted(cursor);
          this.commitNext(incoming);
        } else {
          incoming.toCommit ??= cursor;
          this.world.schedule.after(this.world.random.delay(30), () => this.deliver(() => this.commitNext(incoming)));
        }
        this.endIfStopped();
      }),
    );
  }

  private handleNext(incoming: Incoming): void {
    const { world } = this;
    const { channel } = incoming;
    if (this.incoming.get(incoming.key) !== incoming) return;
    const message = channel.take(this.now);
    if (message === undefined) return;
    if (world.random.chance(world.handlerFaultRate / 4)) {
      world.counts.add("fault: handler postponed");
      channel.finish({ kind: "postponed" }, this.now);
      this.armIncoming(incoming);
      return;
    }
    const record = world.handlerStarts(this, incoming.key, message, channel.attempt);
    this.armIncoming(incoming);
    const finish = () =>
      this.deliver(() => {
        const failed = world.random.chance(world.handlerFaultRate);
        if (failed) world.counts.add("fault: handler failed");
        else world.handled(record);
        channel.finish(
          failed ? { kind: "failed", errorCode: "handler_failed", errorMessage: "simulated" } : { kind: "done" },
          this.now,
        );
        this.armIncoming(incoming);
        this.handleNext(incoming);
        this.endIfStopped();
      });
    if (record.hops > 0) world.sendOn(this, record, (_outcome: SendOutcome) => finish());
    else world.schedule.after(world.handlerMs(), finish);
  }

  private tickAll(): void {
    for (const outgoing of this.outgoing.values()) {
      outgoing.channel.tick(this.now);
      this.arm(outgoing);
    }
    for (const incoming of this.incoming.values()) {
      incoming.channel.tick(this.now);
      this.armIncoming(incoming);
    }
  }

  private arm(outgoing: Outgoing): void {
    this.armTimer(outgoing, outgoing.channel);
  }

  private armIncoming(incoming: Incoming): void {
    this.armTimer(incoming, incoming.channel);
  }

  private armTimer(slot: { timerAt: number }, channel: { deadline(): number; tick(now: number): void }): void {
    const at = Math.max(channel.deadline(), this.now);
    if (at >= slot.timerAt || at === Number.POSITIVE_INFINITY || this.dead) return;
    slot.timerAt = at;
    this.world.schedule.after(at - this.now, () =>
      this.deliver(() => {
        if (slot.timerAt !== at) return;
        slot.timerAt = Number.POSITIVE_INFINITY;
        channel.tick(this.now);
        this.armTimer(slot, channel);
      }),
    );
  }
}
