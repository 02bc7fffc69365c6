/**
 * Postgres as groups see it: channels with their owners and cursors, epochs with fences, marks, the directory, and two writers of
 * messages: the relay, which gives them to listeners or lets them wait, and the members that claim them.
 */
import { comparePositions, type Position } from "../../../src/channel/index.js";
import { Postgres, type Steps, Transaction } from "../postgres.js";
import type { GroupFaults } from "./mutants.js";
import type { GroupWorld } from "./world.js";

/** All listeners serve them. */
export const topics = ["t", "u"] as const;
export const groups = ["red", "blue"] as const;

/** An enqueued message. */
export interface Enqueued {
  readonly id: number;
  readonly topic: string;
  readonly key: string | undefined;
  /** Each listener, and each group, has a copy. */
  readonly isToAll: boolean;
}

export interface Row {
  channel: string;
  position: Position;
  readonly message: Enqueued;
  /** Recipient of a copy: `listener m1` or `group red`. */
  readonly copyFor: string | undefined;
}

/** A listener of the directory. It serves all topics. */
interface Listed {
  readonly group: string | undefined;
  readonly epoch: number;
}

interface ClaimRequest {
  readonly name: string;
  readonly epoch: number;
  readonly topic: string;
  /** Of the copies of its group, not of what is for any member. */
  readonly ofGroup: boolean;
  readonly most: number;
}

interface Claim {
  readonly channel: string;
  readonly isAway: boolean;
  readonly claimed: number;
  readonly hasMore: boolean;
}

const page = 6;
const start: Position = { epoch: 0, number: 0 };

export class GroupStore {
  rows: Row[] = [];
  readonly directory = new Map<string, Listed>();
  /** Epochs of names, and the members that were seen last. */
  readonly epochs = new Map<string, number>();
  readonly #groups = new Map<string, string | undefined>();
  readonly cursors = new Map<string, Position>();
  readonly #marks = new Map<string, Position[]>();
  readonly #owners = new Map<string, string>();
  /** Channels whose claimed messages an operator, or a member that changed its group, has taken out of their group. */
  readonly #strays = new Set<string>();
  /** Channels in which copies of a group were claimed. */
  readonly #copied = new Set<string>();
  /** By {@link placeOf}. */
  readonly #waiting = new Map<string, string>();
  readonly #postgres: Postgres;
  readonly #outbox: Enqueued[] = [];
  #turn = 1_000;
  #claims = 0;

  readonly #world: GroupWorld;
  readonly #faults: GroupFaults;

  constructor(world: GroupWorld, faults: GroupFaults) {
    this.#world = world;
    this.#faults = faults;
    this.#postgres = new Postgres(world);
  }

  enqueue(message: Enqueued): void {
    this.#outbox.push(message);
  }

  ownerOf(channel: string): string | undefined {
    return this.#owners.get(channel);
  }

  owned(name: string): string[] {
    const found: string[] = [];
    for (const [channel, owner] of this.#owners) if (owner === name) found.push(channel);
    return found.sort();
  }

  cursorOf(channel: string): Position {
    return this.cursors.get(channel) ?? start;
  }

  marksOf(channel: string): readonly Position[] {
    return this.#marks.get(channel) ?? [];
  }

  rowsOf(channel: string, after: Position = start): Row[] {
    return this.rows
      .filter((row) => row.channel === channel && comparePositions(row.position, after) > 0)
      .sort((one, other) => comparePositions(one.position, other.position));
  }

  // ---- names ----

  /** A new epoch, once what is written under the old one has ended. */
  take(name: string, go: (epoch: number) => void): void {
    const epoch = (this.epochs.get(name) ?? 0) + 1;
    this.epochs.set(name, epoch);
    const tx = this.#postgres.begin(new Transaction());
    this.#postgres.lock(
      tx,
      `fence ${name}`,
    )(() => {
      go(epoch);
      this.#postgres.commit(tx);
    });
  }

  enter(name: string, group: string | undefined, epoch: number): void {
    if (this.epochs.get(name) !== epoch) return;
    this.directory.set(name, { group, epoch });
    if (this.#groups.has(name) && this.#groups.get(name) !== group)
      for (const channel of [`K ${name}`, ...this.owned(name)]) this.#strays.add(channel);
    this.#groups.set(name, group);
  }

  leave(name: string, epoch: number): void {
    if (this.epochs.get(name) === epoch) this.directory.delete(name);
  }

  /** True if a listener that waits for others to be away may take over from this one. */
  mayTakeOver(from: string, to: string): boolean {
    const group = this.#groups.get(to);
    return group === undefined || this.#groups.get(from) === group;
  }

  /** True if copies that were claimed in a channel keep it from a listener outside of the group. */
  #staysInGroup(channel: string, from: string, to: string): boolean {
    if (this.#faults.takesOverFromOthers === true || this.#groups.get(from) === this.#groups.get(to)) return false;
    return this.#copied.has(channel);
  }

  /** All channels of a listener go to another one. An operator asks no group, and not whether the listener runs. */
  reassign(from: string, to: string, isOperator: boolean, done: () => void): void {
    if (!isOperator && (this.#world.isRunning(from) || !this.mayTakeOver(from, to))) return;
    this.take(from, () => {
      // It may be a member of another group by now.
      if (!isOperator && !this.mayTakeOver(from, to)) return;
      this.directory.delete(from);
      for (const channel of this.owned(from)) {
        if (isOperator) this.#strays.add(channel);
        else if (this.#staysInGroup(channel, from, to)) continue;
        this.#owners.set(channel, to);
      }
      done();
    });
  }

  /** True if copies of a group wait for a claim. */
  get groupWaits(): boolean {
    return this.rows.some(({ channel, copyFor }) => isWaiting(channel) && copyFor !== undefined);
  }

  /** A listener that waits for others to be away looks at the channels in which copies of groups wait: they stay. */
  takeOverWaiting(to: string): void {
    if (this.#faults.takesOverWaiting !== true) return;
    for (const { channel, copyFor } of this.rows) {
      if (isWaiting(channel) && copyFor !== undefined) this.#owners.set(channel, to);
    }
  }

  /** True if the copies in a channel belong to the group of the listener that has it. */
  keepsCopies(channel: string): boolean {
    return !this.#strays.has(channel);
  }

  giveBack(channel: string, from: string, epoch: number, to: string): boolean {
    if (this.epochs.get(from) !== epoch || this.#owners.get(channel) !== from) return false;
    if (this.directory.get(to)?.epoch !== this.epochs.get(to)) return false;
    this.#owners.set(channel, to);
    return true;
  }

  // ---- handlers ----

  /** A transactional handler ends: what it did counts if it is the first, and its listener has name and channel. */
  effect(
    channel: string,
    position: Position,
    name: string,
    epoch: number,
  ): "done" | "duplicate" | "notOwned" | "fenced" {
    if (this.epochs.get(name) !== epoch) return "fenced";
    if (this.#owners.get(channel) !== name) return "notOwned";
    const marks = this.#marks.get(channel) ?? [];
    const isDone = comparePositions(position, this.cursorOf(channel)) <= 0;
    if (isDone || marks.some((mark) => comparePositions(mark, position) === 0)) return "duplicate";
    this.#marks.set(channel, [...marks, position]);
    return "done";
  }

  commit(channel: string, cursor: Position, name: string, epoch: number): "done" | "notOwned" | "fenced" {
    if (this.epochs.get(name) !== epoch) return "fenced";
    if (this.#owners.get(channel) !== name) return "notOwned";
    if (comparePositions(cursor, this.cursorOf(channel)) > 0) this.cursors.set(channel, cursor);
    const isBehind = (position: Position): boolean => comparePositions(position, this.cursorOf(channel)) > 0;
    this.rows = this.rows.filter((row) => row.channel !== channel || isBehind(row.position));
    this.#marks.set(channel, this.marksOf(channel).filter(isBehind));
    return "done";
  }

  // ---- the relay ----

  /** A turn: what it has read is stored with its commit, a while later. */
  turn(done: () => void): void {
    const { random, schedule, counts } = this.#world;
    const tx = this.#postgres.begin(new Transaction());
    const adopted = this.#adopt(tx);
    const epoch = ++this.#turn;
    const messages = this.#outbox.slice(0, random.between(1, page));
    // Most turns find nothing.
    const isIdle = messages.length + adopted.length === 0;
    const listeners = isIdle ? [] : this.#listeners();
    const isGroup = listeners.length > 0 && listeners.every((name) => this.#groups.get(name) !== undefined);
    const routed = new Map<string, string>();
    const copies = messages.some(({ isToAll }) => isToAll) ? this.#recipients() : [];
    const rows = messages.flatMap((message): Omit<Row, "position">[] => {
      if (message.isToAll && copies.length > 0) {
        return copies.map((copyFor) => ({ channel: this.#channelOfCopy(message, copyFor, epoch), message, copyFor }));
      }
      const place = `${message.topic} ${message.key}`;
      const followed = message.key === undefined ? undefined : (routed.get(place) ?? this.#channelOfKey(message));
      const channel = followed ?? this.#channelFor(message, isGroup ? [] : listeners, epoch);
      if (message.key !== undefined) routed.set(place, channel);
      return [{ channel, message, copyFor: undefined }];
    });
    schedule.after(random.delay(2), () => {
      this.#outbox.splice(0, messages.length);
      for (const message of messages) this.#world.handedOver(message, message.isToAll ? copies : []);
      const numbers = new Map<string, number>();
      for (const { channel, message, copyFor } of rows) {
        const number = (numbers.get(channel) ?? 0) + 1;
        numbers.set(channel, number);
        this.rows.push({ channel, position: { epoch, number }, message, copyFor });
        if (copyFor !== undefined) counts.add(`transition: copy for a ${copyFor.split(" ")[0]}`);
        else if (isWaiting(channel)) counts.add("transition: message waits");
        else counts.add("transition: message given to a listener");
      }
      for (const topic of adopted) {
        const channel = this.#waiting.get(topic)!;
        this.#owners.set(channel, random.pick(listeners));
        this.#waiting.delete(topic);
        counts.add("transition: waiting channel adopted");
      }
      this.#postgres.commit(tx);
      this.#world.notify();
      done();
    });
  }

  /** Listeners of the directory; if it has none, those that were there. */
  #listeners(): string[] {
    return [...(this.directory.size > 0 ? this.directory.keys() : this.#groups.keys())].sort();
  }

  /** Who has a copy of what is handed over now. */
  #recipients(): string[] {
    const found = [...this.directory].map(([name, { group }]) =>
      group === undefined ? `listener ${name}` : `group ${group}`,
    );
    return [...new Set(found)].sort();
  }

  #channelOfCopy({ topic }: Enqueued, copyFor: string, turn: number): string {
    const [kind, name] = copyFor.split(" ") as [string, string];
    if (kind === "listener") {
      const channel = `C ${name}`;
      if (!this.#owners.has(channel)) this.#owners.set(channel, name);
      return channel;
    }
    const place = placeOf(topic, name);
    const waiting = this.#waiting.get(place) ?? `W ${topic} ${turn} ${name}`;
    this.#waiting.set(place, waiting);
    return waiting;
  }

  /** Channel with the unhandled messages of a key. */
  #channelOfKey({ topic, key }: Enqueued): string | undefined {
    if (this.#faults.forgetsKeys === true) return undefined;
    const row = this.rows.find(
      ({ message, copyFor }) =>
        message.topic === topic &&
        message.key === key &&
        (copyFor === undefined || (this.#faults.followsCopies === true && copyFor.startsWith("group"))),
    );
    if (row === undefined) return undefined;
    return isClaimed(row.channel) && this.#faults.writesToMembers !== true ? this.#waiting.get(topic) : row.channel;
  }

  #channelFor({ topic, key, id }: Enqueued, listeners: readonly string[], turn: number): string {
    const [name] = listeners.slice((key === undefined ? id : key.length + key.charCodeAt(1)) % (listeners.length || 1));
    if (name !== undefined) {
      const channel = `C ${name}`;
      if (!this.#owners.has(channel)) this.#owners.set(channel, name);
      return channel;
    }
    const waiting = this.#waiting.get(topic) ?? `W ${topic} ${turn}`;
    this.#waiting.set(topic, waiting);
    return waiting;
  }

  /** The topics whose waiting messages one listener gets: none is a member. They stay locked. */
  #adopt(tx: Transaction): string[] {
    const listed = [...this.directory.values()];
    if (listed.length === 0 || listed.some(({ group }) => group !== undefined)) return [];
    const all = this.#faults.adoptsCopies === true ? [...this.#waiting.keys()] : topics;
    return all.filter(
      (place) =>
        this.#waiting.has(place) &&
        (this.#faults.adoptsBehindClaims === true || !this.#isClaimed(place)) &&
        this.#postgres.tryLock(tx, place),
    );
  }

  /** True if a member has claimed messages of the place's topic. */
  #isClaimed(place: string): boolean {
    const [topic] = place.split(" ");
    return this.rows.some(({ channel, message }) => isClaimed(channel) && message.topic === topic);
  }

  // ---- claims ----

  /** Moves waiting messages into the member's channel. */
  claim(request: ClaimRequest, done: (claim: Claim | "fenced") => void): void {
    if (this.epochs.get(request.name) !== request.epoch && this.#faults.noFence !== true) {
      done("fenced");
      return;
    }
    const tx = new Transaction();
    this.#postgres.run(tx, this.#claiming(tx, request), (claim) => done(claim!));
  }

  *#claiming(tx: Transaction, { name, epoch, topic, ofGroup, most }: ClaimRequest): Steps<Claim> {
    const { random, counts } = this.#world;
    const { noFence, claimsSideBySide, claimsOfOthers } = this.#faults;
    const waits = "transition: waited for another claim";
    const channel = `K ${name}`;
    if (noFence !== true) yield this.#postgres.lock(tx, `fence ${name}`, { isShared: true });
    if (!this.#owners.has(channel)) this.#owners.set(channel, name);
    if (this.#owners.get(channel) !== name && noFence !== true) {
      counts.add("transition: claimed channel is away");
      return { channel, isAway: true, claimed: 0, hasMore: false };
    }
    const group = this.#groups.get(name);
    const any = claimsOfOthers === true ? random.pick(groups) : group;
    const place = placeOf(topic, ofGroup ? any : undefined);
    yield this.#postgres.lock(tx, claimsSideBySide === true ? `${channel} ${topic}` : channel, { waits });
    yield this.#postgres.sleep(random.delay(1));
    yield this.#postgres.lock(tx, place, { waits });
    const moved = this.#choose(channel, epoch, place, most);
    for (const { row } of moved.rows) this.#world.claimed(row, group);
    yield this.#postgres.sleep(random.delay(random.chance(0.1) ? 30 : 1));
    // A number that is there already: the transaction fails.
    const isTaken = moved.rows.some(({ position }) =>
      this.rows.some((row) => row.channel === channel && comparePositions(row.position, position) === 0),
    );
    if (moved.rows.length > 0) counts.add("transition: messages claimed");
    if (isTaken) return { channel, isAway: false, claimed: 0, hasMore: true };
    this.#postgres.commit(tx, () => {
      for (const { row, position } of moved.rows) Object.assign(row, { channel, position });
      if (ofGroup && moved.rows.length > 0) this.#copied.add(channel);
    });
    return { channel, isAway: false, claimed: moved.rows.length, hasMore: moved.hasMore };
  }

  #choose(channel: string, epoch: number, place: string, most: number) {
    const { counts } = this.#world;
    const waiting = this.#waiting.get(place);
    const first = waiting === undefined ? [] : this.rowsOf(waiting);
    const others = new Set<string>();
    for (const row of first.length === 0 ? [] : this.rows) {
      const lane = isClaimed(row.channel) && row.channel !== channel ? laneOf(row) : undefined;
      if (lane !== undefined) others.add(lane);
    }
    const isFree = (row: Row): boolean => {
      const lane = laneOf(row);
      return lane === undefined || this.#faults.sharesKeys === true || !others.has(lane);
    };
    const free = first.filter(isFree);
    if (free.length < first.length) counts.add("transition: another member has the key");
    this.#claims += page;
    const before = this.#faults.numbersByRows === true ? this.#lastOf(channel, epoch) : this.#claims;
    const rows = free.slice(0, most).map((row, nth) => ({ row, position: { epoch, number: before + 1 + nth } }));
    return { rows, hasMore: rows.length > 0 && free.length > rows.length };
  }

  #lastOf(channel: string, epoch: number): number {
    const positions = [this.cursorOf(channel), ...this.rowsOf(channel).map(({ position }) => position)];
    return Math.max(0, ...positions.filter((position) => position.epoch === epoch).map(({ number }) => number));
  }
}

/** Name of a channel's messages: of a topic for any listener, or a group's copies. */
function placeOf(topic: string, group: string | undefined): string {
  return group === undefined ? topic : `${topic} ${group}`;
}

/** Lane of a message; undefined: it has no order. Copies have keys of their own. */
function laneOf({ message: { topic, key }, copyFor = "" }: Row): string | undefined {
  return key && `${topic} ${key} ${copyFor}`;
}

function isWaiting(channel: string): boolean {
  return channel.startsWith("W ");
}

function isClaimed(channel: string): boolean {
  return channel.startsWith("K ");
}
