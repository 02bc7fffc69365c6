/**
 * A model of what the lead needs of Postgres: two rows, the locks on one of them, sessions that get lost, statements that
 * land although their session is gone, restarts, and a standby that takes over without the last commits.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import type {
  ClockSample,
  FenceHolders,
  LeadershipRow,
  LeadershipTable,
  Progress,
  Raised,
} from "../../../src/bridge/leadership/table.js";
import type { SimulatedProcess } from "./process.js";
import type { World } from "./world.js";

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

/** A batch's transaction. */
interface Batch {
  readonly process: SimulatedProcess;
  /** `idle`: between two statements of its client. */
  state: "idle" | "running" | "committing" | "over";
  holdsFence: boolean;
  readonly fail: () => void;
}

interface Waiter {
  granted(): void;
}

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

/** As the table has it. */
function rounded({ progressAt, behind, completeSince, completeUntil }: Progress): Progress {
  return {
    progressAt: progressAt && Math.floor(progressAt),
    behind: new Map([...behind].map(([id, at]) => [id, Math.floor(at)])),
    completeSince: completeSince && Math.ceil(completeSince),
    completeUntil: completeUntil && Math.floor(completeUntil),
  };
}

export class SimulatedPostgres {
  isAvailable = true;
  /** Everybody was cut off so often. */
  generation = 0;
  clockOffsetMs: number;
  #leadership: LeadershipRow = {
    epoch: 0n,
    owner: undefined,
    beat: 0n,
    progressAt: undefined,
    behind: new Map(),
    completeSince: undefined,
    completeUntil: undefined,
  };
  #changedAt = 0;
  #fencedEpoch = 0n;
  ledger: Entry[] = [];
  #history: { lead: LeadershipRow; fencedEpoch: bigint; entries: number }[] = [];
  readonly #batches = new Set<Batch>();
  #waiters: Waiter[] = [];
  readonly #sessions = new Map<SimulatedProcess, Session>();

  readonly #world: World;
  readonly #faults: StoreFaults;

  constructor(world: World, faults: StoreFaults) {
    this.#world = world;
    this.#faults = faults;
    this.clockOffsetMs = world.random.between(0, 2_000_000);
  }

  get epoch(): bigint {
    return this.#leadership.epoch;
  }

  tableFor(process: SimulatedProcess): LeadershipTable {
    const taker = `process ${process.id}`;
    const owns = (epoch: bigint) => this.#leadership.owner === taker && this.#leadership.epoch === epoch;
    const update = (change: Partial<LeadershipRow>) => {
      this.#remember();
      this.#leadership = { ...this.#leadership, ...change };
      this.#changedAt = this.#world.schedule.now;
    };
    const heartbeat = async (epoch: bigint, change: Partial<LeadershipRow>): Promise<ClockSample | undefined> => {
      const { value, sentAt, heardAt } = await this.#call(process, () => {
        if (!this.#faults.beatIgnoresOwner && !owns(epoch)) return undefined;
        if (!this.#faults.beatIgnoresFence && this.#fencedEpoch !== epoch) return undefined;
        const { beat } = this.#leadership;
        update({ beat: beat > 0n ? beat + 1n : 1n, ...change });
        return this.#serverTime();
      });
      return value === undefined ? undefined : { serverTime: value, sentAt, heardAt };
    };
    return {
      read: async () => {
        const { value, sentAt, heardAt } = await this.#call(process, () => ({
          row: this.#leadership,
          at: this.#serverTime(),
        }));
        return { row: value.row, clock: { serverTime: value.at, sentAt, heardAt } };
      },
      heartbeat: (epoch, progress) => heartbeat(epoch, rounded(progress)),
      take: async (seen) => {
        const { value } = await this.#call(process, () => {
          const { epoch, beat, owner: before } = this.#leadership;
          if (epoch !== seen.epoch || (beat !== seen.beat && !this.#faults.takeIgnoresBeat)) return undefined;
          if (before !== undefined && before !== taker) this.#checkSilence();
          const step = this.#faults.equalEpochSteps ? 1 : this.#world.random.between(1, 2 ** 20);
          update({ epoch: epoch + BigInt(step), owner: taker, beat: 0n });
          this.#world.counts.add(
            before === undefined ? "taken: free" : before === taker ? "taken: own" : "taken: silent",
          );
          this.#world.taken();
          return this.#leadership.epoch;
        });
        return value;
      },
      raise: (epoch) => this.#raise(process, () => owns(epoch), epoch, update),
      endHolders: async (epoch) => {
        const { value } = await this.#call(process, () => (owns(epoch) ? this.#endBatches() : 0));
        return { isRefused: false, ended: value, foreign: [] } satisfies FenceHolders;
      },
      release: async (epoch, progress) => {
        await this.#call(process, () => {
          if (!owns(epoch)) return;
          this.#world.counts.add("released");
          const { beat } = this.#leadership;
          if (progress.progressAt === undefined) update({ owner: undefined, beat: beat > 0n ? beat + 1n : beat - 1n });
          else update({ owner: undefined, beat: beat > 0n ? beat + 1n : 1n, ...rounded(progress) });
          for (const other of this.#world.processes) this.#world.after(other, 5, () => other.protocol.poke());
        });
      },
    };
  }

  /** A batch: asks the fence, calls the functions, commits. */
  batch(process: SimulatedProcess, epoch: bigint, ids: readonly number[], runMs: number) {
    const { random, schedule } = this.#world;
    const { generation } = this;
    return new Promise<"committed" | "refused" | "failed">((resolve) => {
      const settle = (outcome: "committed" | "refused" | "failed") => {
        if (batch.state === "over") return;
        batch.state = "over";
        this.#forget(batch);
        this.#world.after(process, random.delay(1), () => resolve(outcome));
      };
      const batch: Batch = { process, state: "idle", holdsFence: false, fail: () => settle("failed") };
      this.#batches.add(batch);
      const isGone = () => batch.state === "over" || generation !== this.generation || !this.isAvailable;
      const step = (delayMs: number, next: () => void) =>
        schedule.after(delayMs, () => (isGone() ? settle("failed") : next()));
      step(this.#latency(), () => {
        // Two statements of a function, each with a snapshot of its own.
        if (this.#leadership.epoch !== epoch) return settle("refused");
        step(random.chance(0.05) ? random.between(0, 1_500) : random.delay(0.2), () => {
          if (this.#fencedEpoch !== epoch && !this.#faults.batchAsksLeadOnly) return settle("refused");
          batch.holdsFence = !this.#faults.batchWithoutLock;
          batch.state = "running";
          step(runMs, () => {
            batch.state = "idle";
            this.#world.counts.add("batch run");
            // The client hears of it, and sends COMMIT: a dead one does not, one that stands still does it late.
            if (process.isDead && !process.diedSilently) return settle("failed");
            this.#world.after(process, this.#latency(), () => {
              if (isGone()) return settle("failed");
              batch.state = "committing";
              step(this.#latency(), () => {
                this.#commit({ epoch, process: process.id, ids });
                settle("committed");
              });
            });
          });
        });
      });
    });
  }

  /** A process has died: its sessions end when the server hears of it, but not in the middle of a function. */
  died(process: SimulatedProcess, silently: boolean): void {
    this.#sessions.delete(process);
    if (silently) return;
    for (const batch of [...this.#batches]) if (batch.process === process && batch.state === "idle") batch.fail();
  }

  /** The session of a process's lead is lost. */
  loseSession(process: SimulatedProcess): void {
    const session = this.#sessions.get(process);
    if (session === undefined) return;
    this.#sessions.delete(process);
    session.isAlive = false;
    this.#world.after(process, 0, () => process.protocol.sessionLost());
    for (const reject of session.pending) reject();
  }

  /** All sessions end, and all transactions. */
  crash(): void {
    this.isAvailable = false;
    this.#cutOff();
  }

  /** A standby takes over which has not seen the last commits, and whose clock is its own. */
  failover(): void {
    const { random } = this.#world;
    const lost = this.#history.splice(Math.max(0, this.#history.length - random.between(0, 5)));
    if (lost[0] !== undefined) {
      this.#world.excuse(this.ledger.slice(lost[0].entries).flatMap(({ ids }) => [...ids]));
      this.#leadership = lost[0].lead;
      this.#fencedEpoch = lost[0].fencedEpoch;
      this.ledger.length = lost[0].entries;
    }
    this.#changedAt = this.#world.schedule.now;
    this.clockOffsetMs += random.between(-60_000, 60_000);
    this.#cutOff();
  }

  #cutOff(): void {
    this.generation += 1;
    this.#waiters = [];
    for (const batch of [...this.#batches]) batch.fail();
    for (const process of [...this.#sessions.keys()]) this.loseSession(process);
  }

  #serverTime(): number {
    return this.#world.schedule.now + this.clockOffsetMs;
  }

  #latency(): number {
    const { random, profile } = this.#world;
    return random.chance(profile.slowRate) ? random.between(0, profile.slowMs) : random.delay(0.5);
  }

  /** A statement; it may land although its session is lost before the answer. */
  #call<T>(process: SimulatedProcess, apply: () => T) {
    const { schedule, counts } = this.#world;
    return this.#exchange<T>(process, (answer, isAlive) => {
      const { generation } = this;
      schedule.after(this.#latency(), () => {
        if (generation !== this.generation || !this.isAvailable) return;
        if (!isAlive()) {
          if (this.#world.random.chance(0.5)) return;
          counts.add("statement that lands late");
        }
        answer(apply());
      });
    });
  }

  async #raise(
    process: SimulatedProcess,
    isOwned: () => boolean,
    epoch: bigint,
    update: (change: Partial<LeadershipRow>) => void,
  ): Promise<Raised | undefined> {
    const { schedule } = this.#world;
    const { value, sentAt, heardAt } = await this.#exchange<{ isRaised: boolean; at: number } | undefined>(
      process,
      (answer) => {
        const { generation } = this;
        // The last statement of the function.
        const confirm = (isRaised: boolean) => {
          if (!isOwned()) return answer(undefined);
          update({ beat: this.#leadership.beat - 1n });
          answer({ isRaised, at: this.#serverTime() });
        };
        schedule.after(this.#latency(), () => {
          if (generation !== this.generation || !this.isAvailable) return;
          const waiter: Waiter = {
            granted: () => {
              if (this.#leadership.epoch === epoch) {
                this.#remember();
                this.#fencedEpoch = epoch;
              }
              confirm(true);
            },
          };
          this.#waiters.push(waiter);
          this.#grant();
          if (!this.#waiters.includes(waiter)) return;
          this.#world.counts.add("fence waited for");
          schedule.after(bridgeConstants.fenceWaitMs, () => {
            if (!this.#waiters.includes(waiter)) return;
            this.#waiters = this.#waiters.filter((other) => other !== waiter);
            confirm(false);
          });
        });
      },
    );
    return value && { isRaised: value.isRaised, clock: { serverTime: value.at, sentAt, heardAt } };
  }

  #exchange<T>(
    process: SimulatedProcess,
    send: (answer: (value: T) => void, isAlive: () => boolean) => void,
  ): Promise<{ value: T; sentAt: number; heardAt: number }> {
    const sentAt = process.clock.now();
    return new Promise((resolve, rejectPromise) => {
      const reject = () =>
        this.#world.after(process, this.#latency(), () => rejectPromise(new Error("the session was lost")));
      if (!this.isAvailable) return reject();
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
          this.#world.after(process, this.#latency(), () => {
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
    const holders = [...this.#batches].filter(({ holdsFence }) => holdsFence);
    for (const batch of holders) batch.fail();
    this.#world.counts.add("batch ended by the next leader", holders.length);
    return holders.length;
  }

  #forget(batch: Batch): void {
    this.#batches.delete(batch);
    this.#grant();
  }

  #grant(): void {
    for (const { holdsFence } of this.#batches) if (holdsFence) return;
    for (const waiter of this.#waiters.splice(0)) waiter.granted();
  }

  #commit(entry: Entry): void {
    this.#remember();
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
  }

  #checkSilence(): void {
    const silentMs = this.#world.schedule.now - this.#changedAt;
    if (silentMs < bridgeConstants.leaderExpiryMs * 0.998)
      this.#world.fail(`taken from a leader that beat ${silentMs} ms ago`);
  }

  #remember(): void {
    this.#history.push({ lead: this.#leadership, fencedEpoch: this.#fencedEpoch, entries: this.ledger.length });
    if (this.#history.length > 8) this.#history.shift();
  }
}
