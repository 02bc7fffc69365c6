/**
 * Postgres as the lead sees it: the row of leadership, the row of the fence, which batches lock, and sessions that get lost while
 * their statements land.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import type {
  FenceHolders,
  LeadershipRow,
  LeadershipTable,
  Progress,
  Raised,
} from "../../../src/nats/bridge/leadership/table.js";
import { Postgres, type Steps, Table, Transaction } from "../postgres.js";
import type { LeadershipProcess } from "./process.js";
import type { LeadershipWorld } from "./world.js";

/** Departures from what the statements do. */
export interface StoreFaults {
  readonly batchAsksLeadOnly?: boolean;
  readonly batchWithoutLock?: boolean;
  readonly takeIgnoresBeat?: boolean;
  readonly equalEpochSteps?: boolean;
  readonly beatIgnoresOwner?: boolean;
  readonly beatIgnoresFence?: boolean;
  readonly endsNobody?: boolean;
}

/** Transaction of a batch. */
class Batch extends Transaction {
  readonly process: LeadershipProcess;
  /** True between two statements of its client. */
  isIdle = true;

  constructor(process: LeadershipProcess) {
    super();
    this.process = process;
  }
}

type BatchOutcome = "committed" | "refused" | "failed";

/** A committed batch. */
interface Entry {
  readonly epoch: bigint;
  readonly process: number;
  readonly ids: readonly number[];
}

interface Session {
  isAlive: boolean;
  readonly pending: Set<() => void>;
}

const notTaken: LeadershipRow = {
  epoch: 0n,
  owner: undefined,
  beat: 0n,
  progressAt: undefined,
  behind: new Map(),
  completeSince: undefined,
  completeUntil: undefined,
};

/** As the table has it. */
function rounded({ progressAt, behind, completeSince, completeUntil }: Progress): Progress {
  return {
    progressAt: progressAt && Math.floor(progressAt),
    behind: new Map([...behind].map(([id, at]) => [id, Math.floor(at)])),
    completeSince: completeSince && Math.ceil(completeSince),
    completeUntil: completeUntil && Math.floor(completeUntil),
  };
}

export class LeadershipStore {
  /** Committed batches, in the order of their commits. */
  readonly ledger: Entry[] = [];
  readonly #postgres: Postgres;
  readonly #rows: Table<"leadership", LeadershipRow>;
  readonly #fences: Table<"fence", bigint>;
  #clockOffsetMs: number;
  #changedAt = 0;
  readonly #batches = new Set<Batch>();
  readonly #sessions = new Map<LeadershipProcess, Session>();

  readonly #world: LeadershipWorld;
  readonly #faults: StoreFaults;

  constructor(world: LeadershipWorld, faults: StoreFaults) {
    this.#world = world;
    this.#faults = faults;
    this.#clockOffsetMs = world.random.between(0, 2_000_000);
    this.#postgres = new Postgres(world);
    this.#rows = new Table(this.#postgres);
    this.#fences = new Table(this.#postgres);
  }

  get epoch(): bigint {
    return this.#row.epoch;
  }

  get #row(): LeadershipRow {
    return this.#rows.get("leadership") ?? notTaken;
  }

  get #fencedEpoch(): bigint {
    return this.#fences.get("fence") ?? 0n;
  }

  tableFor(process: LeadershipProcess): LeadershipTable {
    const taker = `process ${process.id}`;
    const owns = (epoch: bigint) => this.#row.owner === taker && this.epoch === epoch;
    const update = (change: Partial<LeadershipRow>) => this.#postgres.write(() => this.#update(change));
    return {
      read: async () => {
        const { value, sentAt, heardAt } = await this.#call(process, () => ({
          row: this.#row,
          at: this.#serverTime(),
        }));
        return { row: value.row, clock: { serverTime: value.at, sentAt, heardAt } };
      },
      heartbeat: async (epoch, progress) => {
        const { value, sentAt, heardAt } = await this.#call(process, () => {
          if (!this.#faults.beatIgnoresOwner && !owns(epoch)) return undefined;
          if (!this.#faults.beatIgnoresFence && this.#fencedEpoch !== epoch) return undefined;
          const { beat } = this.#row;
          update({ beat: beat > 0n ? beat + 1n : 1n, ...rounded(progress) });
          return this.#serverTime();
        });
        return value === undefined ? undefined : { serverTime: value, sentAt, heardAt };
      },
      take: async (seen) => {
        const { value } = await this.#call(process, () => {
          const { epoch, beat, owner: before } = this.#row;
          if (epoch !== seen.epoch || (beat !== seen.beat && !this.#faults.takeIgnoresBeat)) return undefined;
          if (before !== undefined && before !== taker) this.#checkSilence();
          const step = this.#faults.equalEpochSteps ? 1 : this.#world.random.between(1, 2 ** 20);
          update({ epoch: epoch + BigInt(step), owner: taker, beat: 0n });
          this.#world.counts.add(
            before === undefined ? "taken: free" : before === taker ? "taken: own" : "taken: silent",
          );
          this.#world.taken();
          return this.epoch;
        });
        return value;
      },
      raise: (epoch) => this.#raise(process, epoch, () => owns(epoch)),
      endHolders: async (epoch) => {
        const { value } = await this.#call(process, () => (owns(epoch) ? this.#endBatches() : 0));
        return { isRefused: false, ended: value, foreign: [] } satisfies FenceHolders;
      },
      release: async (epoch, progress) => {
        await this.#call(process, () => {
          if (!owns(epoch)) return;
          this.#world.counts.add("released");
          const { beat } = this.#row;
          if (progress.progressAt === undefined) update({ owner: undefined, beat: beat > 0n ? beat + 1n : beat - 1n });
          else update({ owner: undefined, beat: beat > 0n ? beat + 1n : 1n, ...rounded(progress) });
          for (const other of this.#world.processes) other.after(5, () => other.protocol.poke());
        });
      },
    };
  }

  /** A batch: asks the fence, calls the functions, commits. */
  batch(process: LeadershipProcess, epoch: bigint, ids: readonly number[], runMs: number): Promise<BatchOutcome> {
    return new Promise((resolve) => {
      const batch = new Batch(process);
      this.#batches.add(batch);
      this.#postgres.run(batch, this.#running(batch, epoch, ids, runMs), (outcome = "failed") => {
        this.#batches.delete(batch);
        process.after(this.#world.random.delay(1), () => resolve(outcome));
      });
    });
  }

  *#running(batch: Batch, epoch: bigint, ids: readonly number[], runMs: number): Steps<BatchOutcome> {
    const { random, counts } = this.#world;
    const { process } = batch;
    yield this.#postgres.sleep(this.#latency());
    if (!this.#postgres.isAvailable) return "failed";
    // Two statements of a function, each with a snapshot of its own.
    if (this.epoch !== epoch) return "refused";
    yield this.#postgres.sleep(random.chance(0.05) ? random.between(0, 1_500) : random.delay(0.2));
    if (this.#fencedEpoch !== epoch && !this.#faults.batchAsksLeadOnly) return "refused";
    if (!this.#faults.batchWithoutLock) this.#postgres.tryLock(batch, "fence", true);
    batch.isIdle = false;
    yield this.#postgres.sleep(runMs);
    batch.isIdle = true;
    counts.add("batch run");
    // The client hears of it, and sends COMMIT: a dead one does not, one that stands still does it late.
    if (process.isDead && !process.diedSilently) return "failed";
    yield (resume) => process.after(this.#latency(), resume);
    batch.isIdle = false;
    yield this.#postgres.sleep(this.#latency());
    this.#postgres.commit(batch, () => this.#append({ epoch, process: process.id, ids }));
    return "committed";
  }

  /** A process has died: its sessions end when the server hears of it, but not in the middle of a function. */
  died(process: LeadershipProcess, silently: boolean): void {
    this.#sessions.delete(process);
    if (silently) return;
    for (const batch of [...this.#batches]) if (batch.process === process && batch.isIdle) this.#postgres.abort(batch);
  }

  /** The session of a process's lead is lost. */
  loseSession(process: LeadershipProcess): void {
    const session = this.#sessions.get(process);
    if (session === undefined) return;
    this.#sessions.delete(process);
    session.isAlive = false;
    process.after(0, () => process.protocol.sessionLost());
    for (const reject of session.pending) reject();
  }

  /** All sessions end, and all transactions. Nobody gets in for a while. */
  crash(downMs: number): void {
    this.#postgres.isAvailable = false;
    this.#postgres.crash();
    this.#cutOff();
    this.#world.schedule.after(downMs, () => {
      this.#postgres.isAvailable = true;
    });
  }

  /** A standby takes over which has not seen the last commits, and whose clock is its own. */
  failover(): void {
    const { random, schedule } = this.#world;
    this.#postgres.failover(random.between(0, 5));
    this.#changedAt = schedule.now;
    this.#clockOffsetMs += random.between(-60_000, 60_000);
    this.#cutOff();
  }

  #cutOff(): void {
    for (const batch of [...this.#batches]) batch.onAbort();
    for (const process of [...this.#sessions.keys()]) this.loseSession(process);
  }

  #serverTime(): number {
    return this.#world.schedule.now + this.#clockOffsetMs;
  }

  #latency(): number {
    const { random, profile } = this.#world;
    return random.chance(profile.slowRate) ? random.between(0, profile.slowMs) : random.delay(0.5);
  }

  /** A statement; it may land although its session is lost before the answer. */
  #call<T>(process: LeadershipProcess, apply: () => T) {
    const { schedule, counts, random } = this.#world;
    return this.#exchange<T>(process, (answer, isAlive) => {
      const { starts } = this.#postgres;
      schedule.after(this.#latency(), () => {
        if (starts !== this.#postgres.starts || !this.#postgres.isAvailable) return;
        if (!isAlive()) {
          if (random.chance(0.5)) return;
          counts.add("statement that lands late");
        }
        answer(apply());
      });
    });
  }

  async #raise(process: LeadershipProcess, epoch: bigint, isOwned: () => boolean): Promise<Raised | undefined> {
    const { value, sentAt, heardAt } = await this.#exchange<{ isRaised: boolean; at: number } | undefined>(
      process,
      (answer) => {
        const tx = new Transaction();
        this.#postgres.run(tx, this.#raising(tx, epoch, isOwned), (end) => end !== undefined && answer(end.answer));
      },
    );
    return value && { isRaised: value.isRaised, clock: { serverTime: value.at, sentAt, heardAt } };
  }

  /** @returns undefined: the server is not there */
  *#raising(
    tx: Transaction,
    epoch: bigint,
    isOwned: () => boolean,
  ): Steps<{ readonly answer: { isRaised: boolean; at: number } | undefined } | undefined> {
    yield this.#postgres.sleep(this.#latency());
    if (!this.#postgres.isAvailable) return undefined;
    const timeoutMs = bridgeConstants.fenceWaitMs;
    const isRaised = yield this.#postgres.lock(tx, "fence", { waits: "fence waited for", timeoutMs });
    const isConfirmed = isOwned();
    this.#postgres.commit(tx, () => {
      if (isRaised && this.epoch === epoch) this.#fences.set("fence", epoch);
      // The last statement of the function.
      if (isConfirmed) this.#update({ beat: this.#row.beat - 1n });
    });
    return { answer: isConfirmed ? { isRaised, at: this.#serverTime() } : undefined };
  }

  #exchange<T>(
    process: LeadershipProcess,
    send: (answer: (value: T) => void, isAlive: () => boolean) => void,
  ): Promise<{ value: T; sentAt: number; heardAt: number }> {
    const sentAt = process.clock.now();
    return new Promise((resolve, rejectPromise) => {
      const reject = () => process.after(this.#latency(), () => rejectPromise(new Error("the session was lost")));
      if (!this.#postgres.isAvailable) return reject();
      let session = this.#sessions.get(process);
      if (session === undefined) {
        session = { isAlive: true, pending: new Set() };
        this.#sessions.set(process, session);
      }
      const own = session;
      own.pending.add(reject);
      this.#world.sent(process);
      send(
        (value) => {
          process.after(this.#latency(), () => {
            if (!own.isAlive) return;
            own.pending.delete(reject);
            resolve({ value, sentAt, heardAt: process.clock.now() });
          });
        },
        () => own.isAlive,
      );
    });
  }

  #endBatches(): number {
    if (this.#faults.endsNobody) return 0;
    const holders = [...this.#batches].filter(({ locks }) => locks.has("fence"));
    for (const batch of holders) this.#postgres.abort(batch);
    this.#world.counts.add("batch ended by the next leader", holders.length);
    return holders.length;
  }

  #update(change: Partial<LeadershipRow>): void {
    this.#rows.set("leadership", { ...this.#row, ...change });
    this.#changedAt = this.#world.schedule.now;
  }

  #append(entry: Entry): void {
    const last = this.ledger.at(-1);
    if (
      last !== undefined &&
      (last.epoch > entry.epoch || (last.epoch === entry.epoch && last.process !== entry.process))
    ) {
      this.#world.fail(
        `process ${entry.process} commits in epoch ${entry.epoch} after ${last.process} in ${last.epoch}`,
      );
    }
    this.ledger.push(entry);
    this.#postgres.whenTakenBack(() => {
      this.ledger.pop();
      this.#world.excuse(entry.ids);
    });
  }

  #checkSilence(): void {
    const silentMs = this.#world.schedule.now - this.#changedAt;
    if (silentMs < bridgeConstants.leaderExpiryMs * 0.998)
      this.#world.fail(`taken from a leader that beat ${silentMs} ms ago`);
  }
}
