/** A process that listens, mostly as a member of a group: claims, handles, commits, takes over and gives back. */
import {
  type IncomingMessage,
  ListenerChannel,
  type ListenerEffects,
  type MessageTurn,
  type Position,
  type StoredRow,
} from "../../../src/channel/index.js";
import { SimulatedProcess } from "../process.js";
import { type Enqueued, topics } from "./store.js";
import type { GroupWorld } from "./world.js";

const pollMs = 400;
/** From where a member claims: of each topic what is for any member, and the copies of its group. */
const places = topics.flatMap((topic) => [false, true].map((ofGroup) => ({ topic, ofGroup })));
const failed = { kind: "failed", errorCode: "handler_failed", errorMessage: "simulated" } as const;

/** A stored row, and the message that it has. */
type Stored = StoredRow & { readonly message: Enqueued; readonly copyFor: string | undefined };

export class Member extends SimulatedProcess {
  readonly #world: GroupWorld;
  readonly name: string;
  readonly #group: string | undefined;
  readonly #concurrency: number;
  epoch = 0;
  #isStopping = false;
  readonly #channels = new Map<
    string,
    { readonly channel: ListenerChannel; isLeaving: boolean; isCommitting: boolean }
  >();
  readonly #wanted = new Set(places);
  #claims = 0;
  #running = 0;

  constructor(world: GroupWorld, name: string, group: string | undefined) {
    super(world);
    this.#world = world;
    this.name = name;
    this.#group = group;
    this.#concurrency = world.random.between(1, 3);
    const { store, schedule, random } = world;
    schedule.after(random.delay(5), () =>
      store.take(name, (epoch) =>
        this.#soon(() => {
          this.epoch = epoch;
          store.enter(name, group, epoch);
          this.#poll();
        }),
      ),
    );
  }

  /** Ends in good order. */
  stop(): void {
    this.deliver(() => {
      this.#isStopping = true;
      for (const { channel } of this.#channels.values()) channel.halt(true);
      this.#endWhenIdle();
    });
  }

  /** The relay has stored something. */
  notified(): void {
    this.deliver(() => {
      for (const place of places) this.#wanted.add(place);
      for (const { channel } of this.#channels.values()) channel.onAnnounced();
      this.#pump();
    });
  }

  /** Takes over what a listener had that is gone. @param isOperator an operator hands it over to this one */
  takeOver(from: string, isOperator: boolean): void {
    this.deliver(() => {
      this.#world.counts.add("transition: taken over");
      this.#world.store.reassign(from, this.name, isOperator, () => this.#soon(() => this.#open()));
    });
  }

  #soon(run: () => void, delayMs = this.#world.random.delay(1)): void {
    this.after(delayMs, run);
  }

  #lost(): void {
    this.#world.counts.add("transition: name lost");
    this.kill();
  }

  #poll(): void {
    if (this.#world.store.epochs.get(this.name) !== this.epoch) {
      this.#lost();
      return;
    }
    for (const place of places) this.#wanted.add(place);
    this.#open();
    for (const { channel } of this.#channels.values()) channel.onPolled();
    this.#giveBack();
    this.#pump();
    this.#soon(() => this.#poll(), pollMs);
  }

  #endWhenIdle(): void {
    const isBusy = [...this.#channels.values()].some(({ channel }) => channel.isHandling || channel.isCommitting);
    if (isBusy) {
      this.#soon(() => this.#endWhenIdle(), 5);
      return;
    }
    this.#world.store.leave(this.name, this.epoch);
    this.#world.counts.add("transition: stopped");
    this.kill();
  }

  // ---- claims ----

  #pump(): void {
    const { random, store, schedule } = this.#world;
    if (this.#group === undefined || this.#isStopping || this.epoch === 0) return;
    for (const place of this.#wanted) {
      if (this.#claims > 0 || this.#running >= this.#concurrency) return;
      this.#wanted.delete(place);
      this.#claims += 1;
      const isAnswerLost = random.chance(this.#world.faultRate);
      let isOver = false;
      const over = (): void => {
        if (isOver) return;
        isOver = true;
        this.#claims -= 1;
      };
      const again = (): void => {
        over();
        this.#wanted.add(place);
        this.#pump();
      };
      // It may ask again while the first claim is under way.
      if (isAnswerLost && random.chance(0.5)) this.#soon(again, random.delay(3));
      schedule.after(random.delay(1), () =>
        store.claim({ name: this.name, epoch: this.epoch, ...place, most: random.between(1, 3) }, (claim) =>
          this.#soon(() => {
            if (claim === "fenced") return this.#lost();
            if (isAnswerLost) {
              this.#world.counts.add("fault: answer to a claim lost");
              return again();
            }
            over();
            if (claim.hasMore) this.#wanted.add(place);
            if (claim.claimed > 0) {
              this.#open();
              this.#channels.get(claim.channel)?.channel.onAnnounced();
            }
            this.#pump();
          }),
        ),
      );
    }
  }

  // ---- channels ----

  #open(): void {
    const { store } = this.#world;
    if (store.epochs.get(this.name) !== this.epoch) return;
    for (const name of store.owned(this.name)) {
      if (this.#channels.has(name)) continue;
      const opened = { isLeaving: false, isCommitting: false } as { channel: ListenerChannel } & {
        isLeaving: boolean;
        isCommitting: boolean;
      };
      const { limits } = this.#world;
      opened.channel = new ListenerChannel(store.cursorOf(name), store.marksOf(name), limits, this.#effects(name));
      this.#channels.set(name, opened);
      if (this.#isStopping) opened.channel.halt(true);
      opened.channel.onAnnounced();
    }
  }

  #drop(name: string): void {
    this.#channels.delete(name);
  }

  /** Channels that were made for others that run again. */
  #giveBack(): void {
    const { store, counts } = this.#world;
    for (const [name, opened] of this.#channels) {
      const [kind, home] = name.split(" ");
      if (kind === "W" || home === this.name || opened.isLeaving || !store.directory.has(home!)) continue;
      if (store.directory.get(home!)!.epoch !== store.epochs.get(home!)) continue;
      opened.isLeaving = true;
      counts.add("transition: channel goes back");
      opened.channel.giveBack();
    }
  }

  #effects(name: string): ListenerEffects {
    const { store, random } = this.#world;
    const channelOf = (): ListenerChannel | undefined => this.#channels.get(name)?.channel;
    let toCommit: Position | undefined;
    const commit = (): void => {
      const cursor = toCommit;
      if (cursor === undefined) return;
      toCommit = undefined;
      this.#world.schedule.after(random.delay(2), () => {
        const outcome = store.commit(name, cursor, this.name, this.epoch);
        this.#soon(() => {
          if (outcome === "fenced") return this.#lost();
          if (outcome === "notOwned") return this.#drop(name);
          channelOf()?.onCommitted(cursor);
          for (const place of places) this.#wanted.add(place);
          this.#pump();
        });
      });
    };
    return {
      query: (after) =>
        this.#soon(() => {
          const rows = store.rowsOf(name, after);
          const most = random.between(1, 8);
          const found = rows.slice(0, most).map(
            ({ position, message, copyFor }): Stored => ({
              position,
              topicId: 1,
              payload: new Uint8Array(1),
              encoding: undefined,
              headers: undefined,
              key: message.key === undefined ? undefined : `${message.topic} ${message.key}`,
              fromWire: false,
              message,
              copyFor,
            }),
          );
          this.#soon(() => channelOf()?.onRows(found, Math.max(0, rows.length - most)));
        }),
      ready: () => this.#soon(() => this.#run(name)),
      run: () => undefined,
      limitFreed: () => undefined,
      commit: (cursor) => {
        toCommit = cursor;
        commit();
      },
      mark: (done) => this.#soon(() => channelOf()?.onMarked(done.length)),
      drained: () =>
        this.#soon(() => {
          const home = name.split(" ")[1]!;
          this.#drop(name);
          store.giveBack(name, this.name, this.epoch, home);
        }),
      // Claims leave numbers out. One that has lost the channel finds what the next owner has left.
      gap: () => {
        const isOwner = store.epochs.get(this.name) === this.epoch && store.ownerOf(name) === this.name;
        if (isOwner && name.startsWith("C ")) this.#world.gap(name);
      },
      countAttempt: () => undefined,
      park: () => undefined,
      unpark: () => undefined,
      countParked: () => undefined,
      deleteStale: () => undefined,
      deadLetter: () => undefined,
      dropped: () => undefined,
      writeAck: () => undefined,
      closeConnection: () => undefined,
      pauseReading: () => undefined,
    };
  }

  #run(name: string): void {
    const { random, schedule } = this.#world;
    for (;;) {
      const channel = this.#channels.get(name)?.channel;
      if (channel === undefined || this.#running >= this.#concurrency || !channel.canTake) return;
      const turn = channel.take(schedule.now);
      if (turn === undefined) return;
      this.#running += 1;
      this.#soon(() => this.#end(name, channel, turn), random.delay(random.pick([2, 20])));
    }
  }

  #end(name: string, channel: ListenerChannel, turn: MessageTurn): void {
    const { random, schedule, store } = this.#world;
    const { message, position, copyFor } = turn.running as IncomingMessage as Stored;
    this.#running -= 1;
    const fails = random.chance(0.1);
    const outcome = fails ? undefined : store.effect(name, position, this.name, this.epoch);
    if (outcome === "done") this.#world.effect(message, copyFor, name, this.#group);
    if (outcome === "fenced") {
      this.#lost();
      return;
    }
    if (outcome === "notOwned") this.#drop(name);
    else channel.finish(turn, fails ? failed : { kind: "done" }, schedule.now);
    this.#arm(channel);
    for (const other of this.#channels.keys()) this.#run(other);
    this.#pump();
  }

  /** Ticks at the deadline that the channel has now, and at those that follow. */
  #arm(channel: ListenerChannel): void {
    const { schedule } = this.#world;
    const at = channel.deadline;
    if (at === Number.POSITIVE_INFINITY) return;
    const tick = (): void => {
      channel.tick(schedule.now);
      this.#arm(channel);
    };
    this.#soon(tick, Math.max(0.1, at - schedule.now));
  }
}
