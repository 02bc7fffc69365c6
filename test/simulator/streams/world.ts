/**
 * Run of a subscription to a stream: NATS, Postgres, processes that read, faults, and the rules that must hold.
 * Everything follows from the seed.
 */
import type { StreamPlace } from "../../../src/nats/bridge/message.js";
import { advanced, includes, type Ranges, union } from "../../../src/nats/bridge/ranges.js";
import {
  type Missing,
  type ReaderOutcome,
  type ReaderStep,
  StreamReader,
  type StreamState,
} from "../../../src/nats/bridge/streams/reader.js";
import { Violation } from "../records.js";
import { SimulatedWorld } from "../world.js";
import type { StreamMutant } from "./mutants.js";
import { SimulatedStream, type Stored } from "./nats.js";

export const streamFaults = [
  "kill",
  "twin",
  "failover",
  "outage",
  "cut",
  "purge",
  "recreate",
  "setback",
  "consumer",
  "delete",
] as const;
type Fault = (typeof streamFaults)[number];

const faultsUntilMs = 4_000;
const settleWithinMs = 60_000;

/** Committed state in Postgres. */
interface Row {
  epoch: number;
  state: StreamState;
  /** The stream that was seen first, and what it had lost by then: that, and what was before it, is promised to nobody. */
  begunBehind: { readonly created: number; readonly position: number } | undefined;
  /** By stream and number. */
  effects: readonly string[];
  missing: readonly string[];
  recreated: boolean;
}

interface Batch {
  readonly stored: readonly Stored[];
  readonly places: readonly StreamPlace[];
}

export class StreamWorld extends SimulatedWorld {
  readonly mutant: StreamMutant;
  readonly lanes: number;
  readonly faultRate: number;
  stream: SimulatedStream;
  row: Row;
  natsIsUp = true;
  readonly #kinds: readonly Fault[];
  readonly #history: { readonly at: number; readonly row: Row }[] = [];
  readonly #copies: SimulatedStream[] = [];
  #processes: StreamProcess[] = [];
  #uids = 0;
  #streams = 1;
  /** Messages that the stream of a name has taken. */
  readonly #published: {
    readonly key: string;
    readonly token: number;
    readonly stream: number;
    readonly number: number;
  }[] = [];
  wasSetBack = false;
  /** Counts the servers that were the primary: sessions with another one have ended. */
  incarnation = 0;

  /** As the start time of the present server. A mutant takes all for the same. */
  get server(): string {
    return this.mutant.noRestart === true ? "" : String(this.incarnation);
  }

  constructor(seed: number, mutant: StreamMutant = {}) {
    super(seed);
    this.mutant = mutant;
    const calm = mutant.faults === undefined && this.random.chance(0.15);
    const rate = mutant.faults === undefined ? 0.3 : 1;
    this.#kinds = streamFaults.filter(
      (kind) => (mutant.faults?.includes(kind) ?? true) && !calm && this.random.chance(rate),
    );
    this.faultRate = calm ? 0 : this.random.pick([0, 0.02, 0.08]);
    this.lanes = mutant.lanes ?? this.random.pick([1, 4]);
    this.stream = new SimulatedStream(mutant.retention ?? this.random.pick(["limits", "limits", "interest"]), 1);
    this.row = {
      epoch: 0,
      begunBehind: undefined,
      state: {
        ...{ generation: 0n, server: "0", start: { all: true }, created: undefined, position: undefined, done: [] },
        ...{ lastDone: undefined, nothingUntil: 0, paused: false, problem: undefined },
      },
      effects: [],
      missing: [],
      recreated: false,
    };
  }

  run(): void {
    this.start();
    this.#publishing();
    const faultAt = () => this.random.between(50, faultsUntilMs - 500);
    this.planFaults(this.#kinds, this.mutant.faultTimes, faultAt, (kind) => this.#fault(kind));
    this.#steps(faultsUntilMs, () => false);
    this.natsIsUp = true;
    if (this.#processes.every(({ isDead }) => isDead)) this.start();
    this.#steps(faultsUntilMs + settleWithinMs, () => this.#isAtRest());
    this.#check();
  }

  /** Another process leads from now on. */
  start(): void {
    const process = new StreamProcess(this, this.row.epoch + 1 + this.random.between(0, 999));
    this.row = { ...this.row, epoch: process.epoch };
    this.#processes.push(process);
  }

  commit(given: Row): void {
    this.#history.push({ at: this.schedule.now, row: this.row });
    this.row = given;
  }

  #steps(until: number, isOver: () => boolean): void {
    for (let steps = 0; steps < 60_000 && !isOver(); steps += 1) if (!this.schedule.step(until)) return;
  }

  #publishing(): void {
    const publish = (): void => {
      if (this.schedule.now > faultsUntilMs - 300) return;
      const count = this.random.between(1, 4);
      for (let n = 0; n < count; n += 1) {
        const token = this.random.between(1, 6);
        const uid = (this.#uids += 1);
        const { stream } = this;
        if (!stream.publish(uid, token, BigInt(uid) * 1_000n)) continue;
        const number = stream.last;
        this.#published.push({ key: `${stream.created}:${number}:${uid}`, token, stream: stream.created, number });
      }
      if (this.random.chance(0.1)) this.#copies.push(this.#copy());
      this.schedule.after(this.random.delay(60), publish);
    };
    this.schedule.after(5, publish);
  }

  #copy(): SimulatedStream {
    const { retention, created, last, messages, consumers } = this.stream;
    const copy = new SimulatedStream(retention, created);
    copy.last = last;
    copy.messages = [...messages];
    copy.consumers = consumers.map((one) => one && { ...one });
    return copy;
  }

  #fault(kind: Fault): void {
    this.counts.add(`fault: ${kind}`);
    const { stream, random } = this;
    switch (kind) {
      case "kill":
        for (const process of this.#processes) process.isDead = true;
        this.schedule.after(random.delay(20), () => this.start());
        return;
      case "twin":
        this.start();
        return;
      case "outage":
        this.natsIsUp = false;
        this.schedule.after(random.between(50, 800), () => {
          this.natsIsUp = true;
        });
        return;
      case "failover": {
        // What was committed in the last moment is lost; epochs are of random size, so that none is given twice.
        const lostFrom = this.schedule.now - random.between(1, 60);
        const kept = this.#history.find(({ at }) => at > lostFrom);
        if (kept === undefined || kept.row.epoch !== this.row.epoch) return;
        this.row = kept.row;
        this.incarnation += 1;
        this.#history.length = 0;
        return;
      }
      case "cut":
        stream.messages = stream.messages.slice(random.between(1, 12));
        return;
      case "purge":
        stream.messages = [];
        return;
      case "delete":
        if (stream.messages.length > 1) stream.messages.splice(random.between(0, stream.messages.length - 1), 1);
        return;
      case "consumer":
        if (stream.retention === "limits") for (const nth of [0, 1]) stream.delete(nth);
        return;
      case "recreate":
        this.stream = new SimulatedStream(stream.retention, (this.#streams += 1));
        this.#copies.length = 0;
        return;
      case "setback": {
        const copy = random.pick(this.#copies);
        if (copy === undefined || copy.last === stream.last) return;
        this.stream = copy;
        this.#copies.length = 0;
        this.wasSetBack = true;
        // All connections end with it.
        for (const process of this.#processes) process.disconnected();
        return;
      }
    }
  }

  #isAtRest(): boolean {
    const { state } = this.row;
    if (state.paused) return true;
    const isBehind = this.stream.messages.some(
      ({ number, uid }) => !this.row.effects.includes(this.keyOf(number, uid)),
    );
    return (
      !isBehind && state.created === String(this.stream.created) && (state.position ?? -1) >= this.stream.last - 40
    );
  }

  keyOf(number: number, uid: number): string {
    return `${this.stream.created}:${number}:${uid}`;
  }

  #check(): void {
    const { row, stream } = this;
    if (new Set(row.effects).size < row.effects.length) throw new Violation("a message has had its effect twice");
    const losing = ["failover", "cut", "purge", "recreate", "setback", "delete"];
    // Before it has a consumer, a stream with interest retention keeps nothing.
    const kept = new Set(this.#published.map(({ stream: of, number }) => `${of}:${number}`));
    const taken = row.missing.find((key) => kept.has(key));
    if (taken !== undefined && !losing.some((kind) => this.counts.values.has(`fault: ${kind}`))) {
      throw new Violation(`message ${taken} is missing, though nothing has taken it away`);
    }
    if (row.state.paused) {
      if (!this.wasSetBack) throw new Violation("it has paused, and the stream was not set back");
      return;
    }
    // It is recognized by its last message alone, as long as the stream has that.
    const hasForgotten = ["cut", "purge", "delete"].some((kind) => this.counts.values.has(`fault: ${kind}`));
    if (this.wasSetBack && (stream.retention === "interest" || hasForgotten)) return;
    const done = new Set(row.effects);
    for (const { key, stream: of, number } of this.#published) {
      if (done.has(key) || row.missing.includes(`${of}:${number}`)) continue;
      const { created, position } = row.begunBehind ?? { created: 1, position: 0 };
      if (of < created || (of === created && number <= position)) continue;
      if (of !== stream.created) {
        if (row.recreated) continue;
        throw new Violation(`message ${key} of a former stream is missing, and nobody says so`);
      }
      const isThere = stream.messages.some((one) => this.keyOf(one.number, one.uid) === key);
      if (isThere) throw new Violation(`message ${key} is in the stream, and has no effect`);
      // Gone with the store, before anything was taken.
      if (this.wasSetBack) continue;
      // Nothing has come since, by which it would be noticed.
      if (number > (row.state.position ?? 0)) continue;
      throw new Violation(`message ${key} is missing, and nobody says so`);
    }
    for (const key of row.effects) {
      const [of, number] = key.split(":");
      if (row.missing.includes(`${of}:${number}`) && !this.wasSetBack)
        throw new Violation(`message ${key} is said to be missing, and is done`);
    }
    this.#checkOrder();
  }

  #checkOrder(): void {
    const tokens = new Map(this.#published.map(({ key, token }) => [key, token]));
    const last = new Map<string, number>();
    for (const key of this.row.effects) {
      const [of, number] = key.split(":").map(Number);
      const lane = `${of} ${this.lanes === 1 ? 0 : tokens.get(key)}`;
      if ((last.get(lane) ?? 0) > number!) throw new Violation(`message ${key} was run out of order`);
      last.set(lane, number!);
    }
  }
}

/** The rules with a departure. */
class MutatedReader extends StreamReader {
  readonly #mutant: StreamMutant;

  constructor(settings: ConstructorParameters<typeof StreamReader>[0], mutant: StreamMutant) {
    super(settings);
    this.#mutant = mutant;
  }

  protected override acknowledgedTo(read: Parameters<StreamReader["acknowledgedTo"]>[0]): number {
    return this.#mutant.acknowledgesEarly === true ? read.received : super.acknowledgedTo(read);
  }

  protected override isUsable(one: Parameters<StreamReader["isUsable"]>[0]): boolean {
    return this.#mutant.trustsConsumer === true ? one.fits : super.isUsable(one);
  }

  protected override isBeyond(one: Parameters<StreamReader["isBeyond"]>[0]): boolean {
    const { trustsConsumer, trustsLook } = this.#mutant;
    return trustsConsumer !== true && trustsLook !== true && super.isBeyond(one);
  }

  protected override plan(...[state, look]: Parameters<StreamReader["plan"]>): ReturnType<StreamReader["plan"]> {
    const { keepsPosition, goesOnWhenSetBack } = this.#mutant;
    if (keepsPosition === true) {
      const last = Math.max(look.last, state.position ?? 0);
      return super.plan({ ...state, created: undefined }, { ...look, last, lastDoneAt: undefined });
    }
    if (goesOnWhenSetBack === true) {
      return super.plan(state, { ...look, last: Math.max(look.last, state.position ?? 0), lastDoneAt: undefined });
    }
    return super.plan(state, look);
  }

  protected override prepareStep(
    info: Parameters<StreamReader["prepareStep"]>[0],
  ): ReturnType<StreamReader["prepareStep"]> {
    const step = super.prepareStep(info);
    if (this.#mutant.deletesFirst !== true) return step;
    return { ...step, deleteBefore: [...step.deleteBefore, ...step.deleteAfter], deleteAfter: [] };
  }
}

class StreamProcess {
  readonly epoch: number;
  isDead = false;
  readonly #world: StreamWorld;
  readonly #reader: StreamReader;
  #lanes: Batch[][] = [];
  readonly #busy = new Set<number>();
  #reading: StreamReader["reading"];
  #session = 0;

  constructor(world: StreamWorld, epoch: number) {
    this.#world = world;
    this.epoch = epoch;
    this.#reader = new MutatedReader(
      {
        ...{
          hasFilter: false,
          streamMessages: 20,
          streamBytes: 10_000,
          streamSpan: 60,
          streamSilenceMs: 400,
          streamCheckMs: 150,
        },
        ...{ streamRetryMinMs: 5, streamRetryMaxMs: 200, streamSkipMessages: 30 },
      },
      world.mutant,
    );
    world.schedule.after(0, () => this.#tick());
  }

  disconnected(): void {
    this.#session += 1;
    this.#reader.restart(this.#world.schedule.now);
  }

  #tick(): void {
    if (this.isDead || this.#world.row.epoch !== this.epoch) return;
    this.#pump();
    // As the watch of the bindings does.
    const { row, server, schedule } = this.#world;
    if (this.#reader.isOutdated({ ...row.state, server })) this.#reader.restart(schedule.now);
    this.#world.schedule.after(4, () => this.#tick());
  }

  #pump(): void {
    const { schedule, counts } = this.#world;
    const step = this.#reader.next(schedule.now);
    if (this.#reading !== this.#reader.reading) {
      this.#reading = this.#reader.reading;
      this.#lanes = Array.from({ length: this.#world.lanes }, () => []);
      this.#busy.clear();
      if (this.#reading !== undefined) {
        counts.add("transition: reading");
        this.#deliver(this.#reading, (this.#session += 1));
      }
    }
    if (step !== undefined) this.#carryOut(step);
  }

  #carryOut(step: ReaderStep): void {
    const { schedule, random, faultRate } = this.#world;
    schedule.after(random.delay(2), () => {
      const isLost = random.chance(faultRate);
      const outcome = isLost && random.chance(0.5) ? undefined : this.#outcomeOf(step);
      schedule.after(random.delay(1), () => {
        if (this.isDead) return;
        const told: ReaderOutcome = isLost || outcome === undefined ? { kind: "unavailable" } : outcome;
        this.#reader.onOutcome(step, told, schedule.now);
        this.#pump();
      });
    });
  }

  #outcomeOf(step: ReaderStep): ReaderOutcome {
    const world = this.#world;
    const { row, counts, stream } = world;
    const holds = row.epoch === this.epoch || world.mutant.noGeneration === true;
    switch (step.kind) {
      case "take": {
        if (!holds) return { kind: "moved" };
        counts.add("transition: taken");
        const generation = row.state.generation + 1n + BigInt(world.random.between(0, 999));
        const state = { ...row.state, generation, server: world.server };
        world.commit({ ...row, state });
        return { kind: "taken", state };
      }
      case "record":
        if (!holds || row.state.generation !== step.state.generation) return { kind: "moved" };
        if (world.server !== step.state.server) return { kind: "moved" };
        if (step.state.paused) counts.add("transition: paused");
        this.#record(step.state, step.missing);
        return { kind: "written" };
      case "note":
        if (!holds || row.state.generation !== step.generation || world.server !== step.server)
          return { kind: "moved" };
        return { kind: "written" };
      case "prepare":
        if (!world.natsIsUp) return { kind: "unavailable" };
        counts.add(step.exists ? "transition: consumer kept" : "transition: consumer made anew");
        if (step.exists && stream.consumers[step.nth] === undefined) return { kind: "problem", problem: "gone" };
        return { kind: "prepared", ...stream.prepare(step) };
      default:
        if (!world.natsIsUp) return { kind: "unavailable" };
        return {
          kind: "inspected",
          info: stream.look(step.kind === "inspect" ? step.state.lastDone?.number : undefined),
        };
    }
  }

  #record(state: StreamState, missing: Missing | undefined): void {
    const world = this.#world;
    const { row, counts, mutant } = world;
    let said = row.missing;
    if (missing !== undefined && mutant.skipsInSilence !== true) {
      counts.add(`transition: missing ${missing.reason}`);
      if (missing.from !== undefined) {
        const numbers = Array.from({ length: missing.to! - missing.from + 1 }, (_, n) => missing.from! + n);
        const isSame = state.created === row.state.created;
        const left = numbers.filter((number) => !isSame || !includes(row.state.done, number));
        said = [...said, ...left.map((number) => `${state.created}:${number}`)];
      }
    }
    const { position, created } = state;
    const begins = row.state.position === undefined && position !== undefined;
    world.commit({
      ...{ ...row, state, missing: said, recreated: row.recreated || missing?.reason === "recreated" },
      begunBehind: begins ? { created: Number(created), position } : row.begunBehind,
    });
  }

  #deliver(reading: NonNullable<StreamReader["reading"]>, session: number): void {
    const { schedule, random, faultRate, counts } = this.#world;
    const world = this.#world;
    schedule.after(random.delay(3), () => {
      if (this.isDead || this.#reader.reading !== reading || this.#session !== session) return;
      if (world.natsIsUp) {
        this.#reader.onRequest(schedule.now);
        for (let n = random.between(1, 5); n > 0 && this.#reader.hasRoom && this.#reader.reading === reading; n -= 1) {
          const delivered = world.stream.deliver(reading.nth);
          if (delivered === undefined) break;
          if (random.chance(faultRate / 4)) {
            counts.add("fault: delivery lost");
            continue;
          }
          const { stored, nth, pending } = delivered;
          const delivery = { number: stored.number, nth, at: stored.at, bytes: 10, reply: String(stored.number) };
          const place = this.#reader.receive(delivery, pending, schedule.now);
          if (this.#world.mutant.acknowledgesEarly === true) this.#acknowledge(reading);
          if (place === undefined) continue;
          const lane = this.#lanes[world.lanes === 1 ? 0 : stored.token % world.lanes]!;
          lane.push({ stored: [stored], places: [place] });
        }
      }
      this.#run(reading);
      this.#deliver(reading, session);
    });
  }

  #run(reading: NonNullable<StreamReader["reading"]>): void {
    for (const [nth, lane] of this.#lanes.entries()) {
      if (lane.length === 0 || this.#busy.has(nth)) continue;
      const batch = lane.slice(0, this.#world.random.between(1, 4));
      this.#busy.add(nth);
      this.#transaction(
        reading,
        { stored: batch.flatMap(({ stored }) => stored), places: batch.flatMap(({ places }) => places) },
        (outcome) => {
          if (this.isDead || this.#reader.reading !== reading) return;
          this.#busy.delete(nth);
          if (outcome === "moved") this.#reader.restart(this.#world.schedule.now);
          if (outcome !== "committed") return;
          lane.splice(0, batch.length);
          const places = batch.flatMap((each) => each.places);
          this.#reader.markDone(places);
          this.#acknowledge(reading);
        },
      );
    }
  }

  #acknowledge(reading: NonNullable<StreamReader["reading"]>): void {
    const last = this.#reader.takeAcknowledged().at(-1);
    if (last === undefined) return;
    const { schedule, random, stream, faultRate } = this.#world;
    if (random.chance(faultRate)) return;
    schedule.after(random.delay(1), () => {
      if (this.#world.stream === stream) stream.acknowledge(reading.nth, Number(last));
    });
  }

  /** As the transaction of a batch: reads the row, runs what is not done, and writes the position at its end. */
  #transaction(
    { generation, server }: NonNullable<StreamReader["reading"]>,
    { stored, places }: Batch,
    settle: (outcome: "committed" | "moved" | "unknown") => void,
  ): void {
    const { schedule, random, faultRate, counts, mutant } = this.#world;
    const world = this.#world;
    const created = world.row.state.created;
    const answer = (outcome: "committed" | "moved" | "unknown"): void => {
      const isLost = random.chance(faultRate);
      if (isLost) counts.add("fault: answer to a commit lost");
      schedule.after(random.delay(1), () => {
        settle(isLost ? "unknown" : outcome);
      });
    };
    const refused = (row: Row): boolean =>
      mutant.noGeneration !== true &&
      (row.state.generation !== generation || row.state.paused || row.state.position === undefined);
    schedule.after(random.delay(1), () => {
      const { row: begun, incarnation } = world;
      if (refused(begun) || world.server !== server) return answer("moved");
      const isDone = (number: number): boolean =>
        number <= (begun.state.position ?? 0) || includes(begun.state.done, number);
      const left = stored.flatMap((one, n) => (isDone(one.number) ? [] : [{ one, place: places[n]! }]));
      if (left.length < stored.length) counts.add("transition: done before");
      if (left.length === 0) return answer("committed");
      schedule.after(random.delay(2), () => {
        const { row } = world;
        if (world.incarnation !== incarnation) return answer("unknown");
        let covers: Ranges = [];
        for (const { place } of left) covers = union(covers, place.covers);
        const present = union(row.state.done, [[0, row.state.position ?? 0]]);
        const overlaps = covers.some(([a, b]) => present.some(([c, d]) => a <= d && c <= b));
        if (refused(row) || (overlaps && mutant.noGeneration !== true)) {
          counts.add("transition: batch moved");
          return answer("moved");
        }
        counts.add("transition: batch committed");
        const effects = [...row.effects, ...left.map(({ one }) => `${created}:${one.number}:${one.uid}`)];
        if (mutant.positionApart === true) {
          world.commit({ ...row, effects });
          schedule.after(random.delay(2), () => {
            if (!this.isDead) world.commit(this.#advanced(world.row, left, covers));
            answer("committed");
          });
          return;
        }
        world.commit({ ...this.#advanced(row, left, covers), effects });
        answer("committed");
      });
    });
  }

  #advanced(row: Row, left: readonly { one: Stored; place: StreamPlace }[], covers: Ranges): Row {
    const { mutant, counts } = this.#world;
    const { state } = row;
    const reached = advanced(state.position ?? 0, union(state.done, covers));
    const last = left.at(-1)!.one;
    const own = new Set(left.map(({ one }) => one.number));
    const gone = covers
      .flatMap(([a, b]) => Array.from({ length: b - a + 1 }, (_, n) => a + n))
      .filter((n) => !own.has(n));
    if (gone.length > 0) counts.add("transition: missing between");
    const isLater = state.lastDone === undefined || state.lastDone.number < last.number;
    const next = {
      ...state,
      position: mutant.highestDone === true ? Math.max(state.position ?? 0, last.number) : reached.position,
      done: mutant.highestDone === true ? [] : reached.done,
      lastDone: isLater ? { number: last.number, at: last.at } : state.lastDone,
    };
    const said = mutant.skipsInSilence === true ? [] : gone.map((number) => `${state.created}:${number}`);
    return { ...row, state: next, missing: [...row.missing, ...said] };
  }
}
