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
  readonly ignoresTokens?: boolean;
  readonly writesToAnyServer?: boolean;
  readonly neverCareful?: boolean;
  readonly countsBesideOthers?: boolean;
  /** Handlers are transactional, or messages that kill their process occur, in every run. */
  readonly transactional?: boolean;
  readonly poison?: boolean;
  /** … and end their session instead, where handlers are transactional. */
  readonly poisonEndsSessions?: boolean;
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
  #through = 0;
  protected override beginInsert(firstNumber: number, messages: SimulatedMessage[]): void {
    super.beginInsert(firstNumber, messages);
    this.#through = Math.max(this.#through, firstNumber + messages.length - 1);
    const next = this.queue.at(this.#through + 1);
    if (messages.length > 0 && next !== undefined) super.beginInsert(this.#through + 1, [next]);
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

/** A listener that takes an older query for the answer to one of its questions. */
function believing(believed: "epoch" | "gap" | "live"): typeof ListenerChannel {
  return class extends ListenerChannel {
    protected override concluded(question: "epoch" | "gap" | "live", query: number, begunBefore: number): boolean {
      return question === believed || super.concluded(question, query, begunBefore);
    }
  };
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

class SessionEndNotCounted extends ListenerChannel {
  override finish(result: HandlerResult, now: number): void {
    super.finish(result.kind === "sessionEnded" ? { kind: "postponed" } : result, now);
  }
}

class TransactionBeforeDeadLetter extends ListenerChannel {
  constructor(...[cursor, limits, effects]: ConstructorParameters<typeof ListenerChannel>) {
    super(cursor, { ...limits, transactional: false }, effects);
  }
}

const departures: Record<string, Partial<Mutant> & { readonly seeds?: number }> = {
  "resolves on an unknown commit": { resolvesOnUnknown: true },
  "newer stored before older": { Sender: NewerBeforeOlder },
  "insert without the epoch check": {
    store: { insertWithoutEpochCheck: true },
    faults: ["stall", "session", "twin", "cut"],
    faultTimes: 5,
  },
  "no ackTimeout": { Sender: NoAckTimeout },
  "epoch + 1 without the clock": { store: { epochWithoutClock: true } },
  "epoch check without the lock": {
    store: { checkWithoutLock: true },
    warmStart: { slowRate: 0.6 },
    faults: ["kill", "session", "twin"],
    faultTimes: 6,
  },
  "two inserts in flight": { Sender: TwoInserts },
  "Ack before the cursor commit": { Listener: AckBeforeCommit },
  "resolves on the socket write": { Sender: ResolvesOnWrite },
  "ackTimeout stores a subset": { Sender: AckTimeoutStoresSubset },
  "no advisory lock": { store: { noLease: true } },
  "no ON CONFLICT": { store: { noOnConflict: true } },
  "Welcome with the accepted watermark": { Listener: WelcomeWithWatermark, seeds: 2_000 },
  "cursor read before the lease": { cursorBeforeLease: true, seeds: 2_000 },
  "GoLive answered by an older query": { Listener: believing("live"), seeds: 2_000 },
  "gap declared by an older query": { Listener: believing("gap"), seeds: 2_000 },
  "new epoch begun by an older query": {
    Listener: believing("epoch"),
    warmStart: { callFaultRate: 0, dialFaultRate: 0, notifyLossRate: 0.3, slowRate: 0.6 },
    faults: ["kill", "cut", "stop"],
    faultTimes: 8,
    seeds: 4_000,
  },
  "same epoch after a failover": { sameEpochAfterFailover: true, seeds: 4_000 },
  "writes to a server on which it has no lease": {
    writesToAnyServer: true,
    faults: ["session", "twin", "failover"],
    faultTimes: 8,
    seeds: 8_000,
  },
  "a lost answer of taking the name": {
    ignoresTokens: true,
    warmStart: { callFaultRate: 0.3 },
    faults: ["session", "failover"],
    faultTimes: 6,
  },
  "token left by a hand-over": {
    store: { reassignsWithToken: true },
    warmStart: { callFaultRate: 0.5 },
    faults: ["session", "failover", "reassign"],
    faultTimes: 8,
    seeds: 8_000,
  },
  "token left by the next taker": {
    store: { takesWithoutToken: true },
    warmStart: { callFaultRate: 0.5 },
    faults: ["session", "failover", "stall", "twin"],
    faultTimes: 8,
    seeds: 8_000,
  },
  "watermark moves back": { Listener: CursorMovesBack },
  "transaction without the lock on the cursor": { store: { noCursorLock: true }, transactional: true },
  "transaction that moves no cursor of the machine": { Listener: TransactionNotNoted, transactional: true },
  "next transaction before a dead letter's commit": {
    Listener: TransactionBeforeDeadLetter,
    transactional: true,
    poison: true,
    seeds: 4_000,
  },
  "dead letter written again": {
    store: { deadLetterAlways: true },
    poison: true,
    warmStart: { callFaultRate: 0.3 },
    faults: ["kill", "session"],
    seeds: 2_000,
  },
  "attempts not counted": { store: { countsNoAttempts: true }, poison: true },
  "end of a session not counted": {
    Listener: SessionEndNotCounted,
    transactional: true,
    poison: true,
    poisonEndsSessions: true,
  },
  "last start beside others": {
    countsBesideOthers: true,
    poison: true,
    poisonEndsSessions: false,
    seeds: 8_000,
  },
  "no care after an unclean exit": { neverCareful: true, poison: true },
  "channel committed by another than its owner": {
    store: { commitsForAnybody: true, reassignsWithoutEpoch: true },
    faults: ["reassign", "cut", "stall"],
    faultTimes: 4,
  },
};

/** Every mutant with the seeds within which it must be caught. */
export const mutants = Object.entries(departures).map(([name, { seeds = 1_000, ...departure }]) => {
  return { name, mutant: { ...unchanged, ...departure }, seeds };
});
