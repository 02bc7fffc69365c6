/**
 * Departures from the delivery rules, each of which the simulator must catch: they show that it can fail. Those inside
 * a state machine are subclasses; those inside the store are switches of the model.
 */
import {
  comparePositions,
  type DeadMessage,
  type HandlerResult,
  ListenerChannel,
  type Position,
  SenderChannel,
} from "../../src/channel/index.js";
import type { StoreFaults } from "./postgres.js";
import type { SimulatedMessage } from "./records.js";

/** What a run is made of. */
export interface Mutant {
  readonly Sender: typeof SenderChannel<SimulatedMessage>;
  readonly Listener: typeof ListenerChannel;
  readonly store?: StoreFaults;
  readonly resolvesOnUnknown?: boolean;
  readonly cursorBeforeLease?: boolean;
  readonly sameEpochAfterFailover?: boolean;
  readonly writesToAnyServer?: boolean;
  readonly neverCareful?: boolean;
  readonly countsBesideOthers?: boolean;
  /** Handlers are transactional, or messages that kill their process occur, in every run. */
  readonly transactional?: boolean;
  readonly poison?: boolean;
  /** A warm start for a rare one: these rates, only these faults, so often. */
  readonly warmStart?: Partial<Record<"callFaultRate" | "dialFaultRate" | "notifyLossRate" | "slowRate", number>>;
  readonly faults?: readonly (
    | "kill"
    | "stall"
    | "cut"
    | "session"
    | "failover"
    | "twin"
    | "delete"
    | "outage"
    | "stop"
    | "reassign"
  )[];
  readonly faultTimes?: number;
}

/** The rules as they are. */
export const unchanged: Mutant = { Sender: SenderChannel<SimulatedMessage>, Listener: ListenerChannel };

class NewerBeforeOlder extends SenderChannel<SimulatedMessage> {
  protected override beginInsert(firstNumber: number, messages: SimulatedMessage[]): void {
    if (messages.length > 1) super.beginInsert(firstNumber + 1, messages.slice(1));
    else super.beginInsert(firstNumber, messages);
  }
}

class NoAckTimeout extends SenderChannel<SimulatedMessage> {
  protected override overdueThrough(): number {
    return 0;
  }
  override onAck(...[connection, ack, now]: Parameters<SenderChannel<SimulatedMessage>["onAck"]>): void {
    super.onAck(connection, { ...ack, busy: false }, now);
  }
}

class TwoInserts extends SenderChannel<SimulatedMessage> {
  private through = 0;
  protected override beginInsert(firstNumber: number, messages: SimulatedMessage[]): void {
    super.beginInsert(firstNumber, messages);
    this.through = Math.max(this.through, firstNumber + messages.length - 1);
    const next = this.queue.at(this.through + 1);
    if (messages.length > 0 && next !== undefined) super.beginInsert(this.through + 1, [next]);
  }
}

class ResolvesOnWrite extends SenderChannel<SimulatedMessage> {
  protected override wrote(messages: SimulatedMessage[]): void {
    const before = this.written - messages.length;
    for (const [index, message] of messages.entries()) {
      if (before + index < this.settledThrough) continue;
      this.effects.settle(message, "delivered");
      this.settledThrough = before + index + 1;
    }
  }
}

class AckTimeoutStoresSubset extends SenderChannel<SimulatedMessage> {
  protected override beginInsert(firstNumber: number, messages: SimulatedMessage[]): void {
    const isLive = this.state === "live" || this.state === "going-live";
    const left = isLive && messages.length > 1 ? messages.length - 1 : 0;
    super.beginInsert(firstNumber + left, messages.slice(left));
  }
}

class AckBeforeCommit extends ListenerChannel {
  protected override ackCursor(): Position {
    return this.handling.handled;
  }
  protected override commitHandled(dead: DeadMessage | undefined): void {
    this.ack();
    super.commitHandled(dead);
  }
}

class WelcomeWithWatermark extends ListenerChannel {
  protected override welcomeCursor(): Position {
    return this.intake.watermark;
  }
}

class OlderQueryAnswers extends ListenerChannel {
  protected override concluded(question: "epoch" | "gap" | "live", query: number, begunBefore: number): boolean {
    return question === "live" ? true : super.concluded(question, query, begunBefore);
  }
}

class GapByOlderQuery extends ListenerChannel {
  protected override concluded(question: "epoch" | "gap" | "live", query: number, begunBefore: number): boolean {
    return question === "gap" ? true : super.concluded(question, query, begunBefore);
  }
}

class NewEpochByOlderQuery extends ListenerChannel {
  protected override concluded(question: "epoch" | "gap" | "live", query: number, begunBefore: number): boolean {
    return question === "epoch" ? true : super.concluded(question, query, begunBefore);
  }
}

class CursorMovesBack extends ListenerChannel {
  override onCommitted(cursor: Position): void {
    super.onCommitted(cursor);
    if (comparePositions(cursor, this.intake.watermark) < 0) this.intake.watermark = cursor;
  }
}

class TransactionNotNoted extends ListenerChannel {
  override finish(result: HandlerResult, now: number): void {
    super.finish(result.kind === "committed" ? { kind: "postponed" } : result, now);
  }
}

class TransactionBeforeDeadLetter extends ListenerChannel {
  constructor(...[cursor, limits, effects]: ConstructorParameters<typeof ListenerChannel>) {
    super(cursor, { ...limits, transactional: false }, effects);
  }
}

/** Every mutant with the seeds within which it must be caught. */
export const mutants: Record<string, { mutant: Mutant; seeds: number }> = {
  "resolves on an unknown commit": { mutant: { ...unchanged, resolvesOnUnknown: true }, seeds: 1_000 },
  "newer stored before older": { mutant: { ...unchanged, Sender: NewerBeforeOlder }, seeds: 1_000 },
  "insert without the epoch check": {
    mutant: {
      ...unchanged,
      store: { insertWithoutEpochCheck: true },
      faults: ["stall", "session", "twin", "cut"],
      faultTimes: 5,
    },
    seeds: 1_000,
  },
  "no ackTimeout": { mutant: { ...unchanged, Sender: NoAckTimeout }, seeds: 1_000 },
  "epoch + 1 without the clock": { mutant: { ...unchanged, store: { epochWithoutClock: true } }, seeds: 1_000 },
  "epoch check without the lock": {
    mutant: {
      ...unchanged,
      store: { checkWithoutLock: true },
      warmStart: { slowRate: 0.6 },
      faults: ["kill", "session", "twin"],
      faultTimes: 6,
    },
    seeds: 1_000,
  },
  "two inserts in flight": { mutant: { ...unchanged, Sender: TwoInserts }, seeds: 1_000 },
  "Ack before the cursor commit": { mutant: { ...unchanged, Listener: AckBeforeCommit }, seeds: 1_000 },
  "resolves on the socket write": { mutant: { ...unchanged, Sender: ResolvesOnWrite }, seeds: 1_000 },
  "ackTimeout stores a subset": { mutant: { ...unchanged, Sender: AckTimeoutStoresSubset }, seeds: 1_000 },
  "no advisory lock": { mutant: { ...unchanged, store: { noLease: true } }, seeds: 1_000 },
  "no ON CONFLICT": { mutant: { ...unchanged, store: { noOnConflict: true } }, seeds: 1_000 },
  "Welcome with the accepted watermark": { mutant: { ...unchanged, Listener: WelcomeWithWatermark }, seeds: 2_000 },
  "cursor read before the lease": { mutant: { ...unchanged, cursorBeforeLease: true }, seeds: 2_000 },
  "GoLive answered by an older query": { mutant: { ...unchanged, Listener: OlderQueryAnswers }, seeds: 2_000 },
  "gap declared by an older query": { mutant: { ...unchanged, Listener: GapByOlderQuery }, seeds: 2_000 },
  "new epoch begun by an older query": {
    mutant: {
      ...unchanged,
      Listener: NewEpochByOlderQuery,
      warmStart: { callFaultRate: 0, dialFaultRate: 0, notifyLossRate: 0.3, slowRate: 0.6 },
      faults: ["kill", "cut", "stop"],
      faultTimes: 8,
    },
    seeds: 4_000,
  },
  "same epoch after a failover": { mutant: { ...unchanged, sameEpochAfterFailover: true }, seeds: 4_000 },
  "writes to a server on which it has no lease": {
    mutant: { ...unchanged, writesToAnyServer: true, faults: ["session", "twin", "failover"], faultTimes: 8 },
    seeds: 8_000,
  },
  "watermark moves back": { mutant: { ...unchanged, Listener: CursorMovesBack }, seeds: 1_000 },
  "transaction without the lock on the cursor": {
    mutant: { ...unchanged, store: { noCursorLock: true }, transactional: true },
    seeds: 1_000,
  },
  "transaction that moves no cursor of the machine": {
    mutant: { ...unchanged, Listener: TransactionNotNoted, transactional: true },
    seeds: 1_000,
  },
  "next transaction before a dead letter's commit": {
    mutant: { ...unchanged, Listener: TransactionBeforeDeadLetter, transactional: true, poison: true },
    seeds: 4_000,
  },
  "dead letter written again": {
    mutant: {
      ...unchanged,
      store: { deadLetterAlways: true },
      poison: true,
      warmStart: { callFaultRate: 0.3 },
      faults: ["kill", "session"],
    },
    seeds: 2_000,
  },
  "attempts not counted": { mutant: { ...unchanged, store: { countsNoAttempts: true }, poison: true }, seeds: 1_000 },
  "last start beside others": { mutant: { ...unchanged, countsBesideOthers: true, poison: true }, seeds: 4_000 },
  "no care after an unclean exit": { mutant: { ...unchanged, neverCareful: true, poison: true }, seeds: 1_000 },
  "channel committed by another than its owner": {
    mutant: {
      ...unchanged,
      store: { commitsForAnybody: true, reassignsWithoutEpoch: true },
      faults: ["reassign", "cut", "stall"],
      faultTimes: 4,
    },
    seeds: 1_000,
  },
};
