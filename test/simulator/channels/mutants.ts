/**
 * Departures from the delivery rules, each of which the simulator must catch: they show that it can fail. Those of a
 * state machine stand between it and the world, or in its place: they change its effects, its limits, what it is told, or one
 * of its rules. Those inside the store are switches of the model.
 */

import {
  comparePositions,
  type HandlerResult,
  type IncomingMessage,
  type LinkState,
  ListenerChannel,
  type ListenerEffects,
  type ListenerLimits,
  type ParkedMessage,
  type Position,
  type SenderEffects,
  type SenderLimits,
  type StartedMessage,
} from "../../../src/jobs-and-peers/channel/index.js";
import type { Question } from "../../../src/jobs-and-peers/channel/listener-channel.js";
import { type Ack, Delivery } from "../../../src/jobs-and-peers/wire/index.js";
import type { MutantOptions } from "../simulation.js";
import type { SimulatedMessage } from "./records.js";
import type { StoreFaults } from "./store.js";
import type { FaultKind } from "./world.js";

type Effects = SenderEffects<SimulatedMessage>;
type MakeListener = NonNullable<Mutant["listener"]>;

/** Parts of a run that a mutant replaces. */
export interface Mutant extends MutantOptions {
  /** The effects of a sender's channel, changed. */
  readonly senderEffects?: (effects: Effects) => Effects;
  readonly senderLimits?: Partial<SenderLimits>;
  /** An Ack as the sender takes it. */
  readonly ack?: (ack: Ack) => Ack;
  /** A listener's channel, made otherwise. */
  readonly listener?: (
    cursor: Position,
    done: readonly Position[],
    limits: ListenerLimits,
    effects: ListenerEffects,
  ) => ListenerChannel;
  /** The cursor that a listener tells in Welcome. */
  readonly welcome?: (channel: ListenerChannel) => Position;
  /** The end of a handler as the channel hears of it. */
  readonly handlerResult?: (result: HandlerResult) => HandlerResult;
  readonly store?: StoreFaults;
  readonly resolvesOnUnknown?: boolean;
  /** At-most-once messages are written at once, whatever waits. */
  readonly atMostOnceOvertakes?: boolean;
  readonly cursorBeforeLease?: boolean;
  readonly sameEpochAfterFailover?: boolean;
  readonly ignoresTokens?: boolean;
  readonly writesToAnyServer?: boolean;
  readonly neverSuspects?: boolean;
  /** A message that fails counts as passed. */
  readonly passesWhatFails?: boolean;
  readonly countsBesideOthers?: boolean;
  /** Handlers are transactional, or messages that kill their process occur, in every run. */
  readonly transactional?: boolean;
  readonly poison?: boolean;
  /** Listeners get their channels back in every run in which channels are handed over. */
  readonly givesBack?: boolean;
  /** A channel may be opened while it is being given back. */
  readonly opensWhileLeaving?: boolean;
  /** Messages have a second topic in every run in which channels are handed over. */
  readonly secondTopic?: boolean;
  /** A listener gives messages up that it does not serve, whoever else does. */
  readonly keepsWhatItDoesNotServe?: boolean;
  /** A listener gives such messages up also when another one has the channel by now. */
  readonly keepsWhatItDoesNotOwn?: boolean;
  /** Messages have keys in every run. */
  readonly keys?: boolean;
  /** Much is parked, and listeners stop several times in a row, in every run or in none. */
  readonly restless?: boolean;
  /** Who waits, itself or others, for the limit that a running message has left is not woken. */
  readonly movesSilently?: boolean;
  /** Handlers of some topics have limits, in every run. */
  readonly limits?: boolean;
  /** … and end their session instead, where handlers are transactional. */
  readonly poisonEndsSessions?: boolean;
  /** A warm start for a rare one: these rates, only these faults, so often. */
  readonly warmStart?: Partial<
    Record<"callFaultRate" | "dialFaultRate" | "notifyLossRate" | "slowRate" | "handlerFaultRate", number>
  >;
  readonly faults?: readonly FaultKind[];
  readonly faultTimes?: number;
}

/** Leaves the oldest message of each insert out. */
function newerBeforeOlder(effects: Effects): Effects {
  return {
    ...effects,
    store: (first, messages) =>
      messages.length > 1 ? effects.store(first + 1, messages.slice(1)) : effects.store(first, messages),
  };
}

/** Splits each insert into two that are under way at once: the first answer is taken for both. */
function twoInserts(effects: Effects): Effects {
  return {
    ...effects,
    store: (first, messages) => {
      const half = Math.ceil(messages.length / 2);
      effects.store(first, messages.slice(0, half));
      if (half < messages.length) effects.store(first + half, messages.slice(half));
    },
  };
}

/** Confirms numbered messages as soon as they are written. */
function resolvesOnWrite(effects: Effects): Effects {
  const settled = new Set<SimulatedMessage>();
  const sendEnded: Effects["sendEnded"] = (message, outcome) => {
    if (settled.has(message)) return;
    settled.add(message);
    effects.sendEnded(message, outcome);
  };
  return {
    ...effects,
    sendEnded,
    writeBatch: (delivery, topicId, first, messages) => {
      effects.writeBatch(delivery, topicId, first, messages);
      if (delivery === Delivery.AT_LEAST_ONCE) for (const message of messages) sendEnded(message, "delivered");
    },
  };
}

/** Stores only the newest message of an insert while the channel is live. */
function storesSubset(effects: Effects): Effects {
  let state: LinkState = "connecting";
  return {
    ...effects,
    linkChanged: (changed) => {
      state = changed;
      effects.linkChanged(changed);
    },
    store: (first, messages) => {
      const left = state === "live" || state === "going-live" ? messages.length - 1 : 0;
      effects.store(first + left, messages.slice(left));
    },
  };
}

/** Acknowledges what is handled before its cursor is committed. */
const ackBeforeCommit: MakeListener = (cursor, done, limits, effects) => {
  let handled = cursor;
  let latest: { readonly connection: unknown; readonly ack: Ack } | undefined;
  return new ListenerChannel(cursor, done, limits, {
    ...effects,
    writeAck: (connection, ack) => {
      latest = { connection, ack };
      effects.writeAck(connection, comparePositions(handled, ack) > 0 ? { ...ack, ...handled } : ack);
    },
    commit: (committing) => {
      handled = committing;
      if (latest !== undefined) effects.writeAck(latest.connection, { ...latest.ack, ...handled });
      effects.commit(committing);
    },
  });
};

/** A listener that takes an older query for the answer to one of its questions. */
function believing(believed: Question): MakeListener {
  return (cursor, done, limits, effects) =>
    new (class extends ListenerChannel {
      protected override concludes(question: Question, startedBefore: number): boolean {
        return question === believed || super.concludes(question, startedBefore);
      }
    })(cursor, done, limits, effects);
}

/** Moves the watermark back to the committed cursor whenever that is told. */
const watermarkMovesBack: MakeListener = (cursor, done, limits, effects) => {
  const writeAck: ListenerEffects["writeAck"] = (connection, ack) => {
    const { epoch, number } = ack;
    if (comparePositions(ack, channel.accepted) < 0) channel.accepted = { epoch, number };
    effects.writeAck(connection, ack);
  };
  const channel = new ListenerChannel(cursor, done, limits, { ...effects, writeAck });
  return channel;
};

/** Commits each message when its handler has ended, whatever is unfinished before it. */
const commitsBeyond: MakeListener = (cursor, done, limits, effects) => {
  return new (class extends ListenerChannel {
    override finish(turn: StartedMessage, result: HandlerResult, now: number): void {
      const { position } = turn.running;
      super.finish(turn, result, now);
      if (position !== undefined && result.kind === "done") effects.commit(position);
    }
  })(cursor, done, limits, effects);
};

/** Takes a channel for quiet as soon as it is to be given back. */
const isQuietAtOnce: MakeListener = (cursor, done, limits, effects) => {
  return new (class extends ListenerChannel {
    override giveBack(): void {
      super.giveBack();
      effects.drained();
    }
  })(cursor, done, limits, effects);
};

/** Takes a channel for quiet as soon as no handler runs. */
const isQuietUncommitted: MakeListener = (cursor, done, limits, effects) => {
  let isLeaving = false;
  return new (class extends ListenerChannel {
    override giveBack(): void {
      isLeaving = true;
      super.giveBack();
    }
    override finish(turn: StartedMessage, result: HandlerResult, now: number): void {
      super.finish(turn, result, now);
      if (isLeaving && !this.isHandling) effects.drained();
    }
  })(cursor, done, limits, effects);
};

/** Writes no marks for what is finished beyond an unfinished message. */
const leavesNoMarks: MakeListener = (cursor, done, limits, effects) => {
  return new (class extends ListenerChannel {
    override mark(): void {}
  })(cursor, done, limits, effects);
};

/** Writes marks for what is finished beyond an unfinished message at a stop only. */
const marksAtStops: MakeListener = (cursor, done, limits, effects) =>
  new ListenerChannel(cursor, done, { ...limits, markEveryMs: Number.POSITIVE_INFINITY }, effects);

/** Takes a parked message for one that is done when it comes with its mark. */
const marksParked: MakeListener = (cursor, done, limits, effects) => {
  const parkedBefore: Position[] = [];
  return new (class extends ListenerChannel {
    override restore(parked: readonly ParkedMessage[]): void {
      parkedBefore.push(...parked.map(({ message }) => message.position));
      super.restore(parked);
    }
    override mark(): void {
      super.mark();
      const { handled } = this.handling;
      const beyond = parkedBefore.filter((position) => comparePositions(position, handled) > 0);
      if (beyond.length > 0) effects.mark(beyond);
    }
  })(cursor, done, limits, effects);
};

/** Lets what comes pass a message of its key that waits to be tried again. */
const letsKeyPass: MakeListener = (cursor, done, limits, effects) => {
  const failing = new Set<string>();
  return new (class extends ListenerChannel {
    constructor() {
      super(cursor, done, limits, effects);
      const push = this.handling.push.bind(this.handling);
      this.handling.push = (message) =>
        push(failing.has(message.key ?? "") ? { ...message, key: `${message.key} again` } : message);
    }
    override finish(turn: StartedMessage, result: HandlerResult, now: number): void {
      if (result.kind === "failed") failing.add(turn.key ?? "");
      else failing.delete(turn.key ?? "");
      super.finish(turn, result, now);
    }
  })();
};

/** Lets what comes pass the messages of its key that were parked before the channel was opened. */
const releasesParkedKeys: MakeListener = (cursor, done, limits, effects) => {
  return new (class extends ListenerChannel {
    override restore(parked: readonly ParkedMessage[]): void {
      super.restore(parked.map((one) => ({ ...one, message: { ...one.message, key: `${one.message.key} parked` } })));
    }
  })(cursor, done, limits, effects);
};

/** Takes a message for parked before the store has it. */
const parksInMemory: MakeListener = (cursor, done, limits, effects) => {
  const park = (parked: ParkedMessage) => {
    effects.park(parked);
    channel.onParked([parked.message.position]);
  };
  const channel = new ListenerChannel(cursor, done, limits, { ...effects, park });
  return channel;
};

/** Handles messages of one key side by side. */
const forgetsKeys: MakeListener = (cursor, done, limits, effects) => {
  let nth = 0;
  return new (class extends ListenerChannel {
    override onMessages(connection: unknown, messages: readonly IncomingMessage[], now: number): void {
      const others = messages.map((message) => ({ ...message, key: message.key && `${message.key} ${nth++}` }));
      super.onMessages(connection, others, now);
    }
  })(cursor, done, limits, effects);
};

/** Passes messages of a batch whatever is missing before them. */
const passesGaps: MakeListener = (cursor, done, limits, effects) => {
  return new (class extends ListenerChannel {
    override canPassThrough(connection: unknown, epoch: number, firstNumber: number): boolean {
      const { accepted } = this;
      const isLater = epoch === accepted.epoch && firstNumber > accepted.number;
      return super.canPassThrough(connection, epoch, isLater ? accepted.number + 1 : firstNumber);
    }
  })(cursor, done, limits, effects);
};

/** Passes messages of which one may have ended the process before. */
const passesWhileSerial: MakeListener = (cursor, done, limits, effects) =>
  new (class extends ListenerChannel {
    constructor() {
      super(cursor, done, limits, effects);
      const isIdle = () => this.handling.first === undefined && this.handling.running + this.handling.parked === 0;
      Object.defineProperty(this.handling, "isIdle", { get: isIdle });
    }
  })();

/** Does not wake who waits for a limit that is full no more. */
const forgetsWaiters: MakeListener = (cursor, done, limits, effects) =>
  new ListenerChannel(cursor, done, limits, { ...effects, limitFreed: () => undefined });

/** Starts a message whatever its limit is. */
const forgetsLimits: MakeListener = (cursor, done, limits, effects) =>
  new ListenerChannel(cursor, done, { ...limits, limitOf: () => undefined }, effects);

/** Keeps the place of a message that is to be tried again. */
const keepsPlaces: MakeListener = (cursor, done, limits, effects) =>
  new (class extends ListenerChannel {
    override finish(turn: StartedMessage, result: HandlerResult, now: number): void {
      const { running, limit } = turn;
      super.finish(turn, result, now);
      if (turn.running === running) limit?.take();
    }
  })(cursor, done, limits, effects);

/** Hears of one kind of end as if the handler had not been started. */
function postponing(kind: HandlerResult["kind"]): NonNullable<Mutant["handlerResult"]> {
  return (result) => (result.kind === kind ? { kind: "postponed" } : result);
}

/** Hears of a message that its handler wants later as of one that has failed. */
const countsDeferrals: NonNullable<Mutant["handlerResult"]> = (result) =>
  result.kind === "deferred" ? { ...result, kind: "failed" } : result;

export const mutants: Readonly<Record<string, Mutant>> = {
  "resolves on an unknown commit": { resolvesOnUnknown: true },
  "newer stored before older": { senderEffects: newerBeforeOlder },
  "insert without the epoch check": {
    store: { insertWithoutEpochCheck: true },
    faults: ["stall", "session", "twin", "cut"],
    faultTimes: 5,
  },
  "no ackTimeout": {
    // Without a time limit for the send either, which ends the wait of handlers that wait for each other.
    senderLimits: { ackTimeoutMs: Number.POSITIVE_INFINITY, sendTimeoutMs: Number.POSITIVE_INFINITY },
    ack: (ack) => ({ ...ack, busy: false }),
  },
  "epoch + 1 without the clock": { firstSeed: 81, store: { epochWithoutClock: true } },
  "epoch check without the lock": {
    store: { checkWithoutLock: true },
    warmStart: { slowRate: 0.6 },
    faults: ["kill", "session", "twin"],
    faultTimes: 6,
  },
  "no wait at the fence": {
    store: { noWaitAtFence: true },
    warmStart: { slowRate: 0.6 },
    faults: ["kill", "session", "twin"],
    faultTimes: 6,
  },
  "two inserts in flight": { senderEffects: twoInserts },
  "at-most-once messages that overtake": { atMostOnceOvertakes: true },
  "Ack before the cursor commit": { listener: ackBeforeCommit },
  "resolves on the socket write": { senderEffects: resolvesOnWrite },
  "ackTimeout stores a subset": { senderEffects: storesSubset },
  "life by nothing": { store: { noLease: true } },
  "no ON CONFLICT": { store: { noOnConflict: true } },
  "Welcome with the accepted watermark": { welcome: (channel) => channel.accepted, seeds: 2_000 },
  "cursor read before the lease": { cursorBeforeLease: true, seeds: 2_000 },
  "GoLive answered by an older query": { listener: believing("live"), seeds: 2_000 },
  "gap declared by an older query": { firstSeed: 95, listener: believing("gap"), seeds: 2_000 },
  "new epoch begun by an older query": {
    listener: believing("epoch"),
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
  "cursor over an unfinished message": { listener: commitsBeyond, keys: true, transactional: false, seeds: 2_000 },
  "cursor over an unfinished transaction": { listener: commitsBeyond, keys: true, transactional: true, seeds: 2_000 },
  "messages of one key side by side": {
    listener: forgetsKeys,
    keys: true,
    transactional: false,
    seeds: 2_000,
  },
  "batch passed over a gap": { listener: passesGaps, transactional: false, seeds: 2_000 },
  "batch passed while messages are serial": {
    listener: passesWhileSerial,
    transactional: false,
    poison: true,
    faults: ["kill"],
    faultTimes: 2,
    seeds: 2_000,
  },
  "cursor over a passed message that fails": {
    passesWhatFails: true,
    transactional: false,
    warmStart: { handlerFaultRate: 0.4 },
    seeds: 2_000,
  },
  "retry that lets its key pass": { listener: letsKeyPass, keys: true, seeds: 4_000 },
  "limit without a wake-up": { listener: forgetsWaiters, limits: true },
  "change of limit without a wake-up": { movesSilently: true, limits: true },
  "limit that is not looked at": { listener: forgetsLimits, limits: true },
  "retry that keeps its place": { listener: keepsPlaces, limits: true, warmStart: { handlerFaultRate: 0.4 } },
  "watermark moves back": { listener: watermarkMovesBack },
  "mark without a look at cursor, name and channel": {
    store: { marksWithoutFence: true },
    transactional: true,
    warmStart: { callFaultRate: 0.3 },
    faults: ["session", "twin", "kill", "reassign"],
    faultTimes: 6,
    seeds: 4_000,
  },
  "cursor read before the mark is inserted": {
    store: { readsBeforeMark: true },
    transactional: true,
    warmStart: { callFaultRate: 0.3, slowRate: 0.3 },
    faults: ["session", "twin", "kill", "reassign"],
    faultTimes: 6,
    seeds: 8_000,
  },
  "mark by the owner's epoch": {
    store: { marksByOwnersEpoch: true },
    transactional: true,
    warmStart: { callFaultRate: 0.3, slowRate: 0.3 },
    faults: ["session", "twin", "kill"],
    faultTimes: 6,
    seeds: 4_000,
  },
  "marks removed before the cursor moves": {
    store: { removesMarksFirst: true },
    transactional: true,
    keys: true,
    warmStart: { callFaultRate: 0.3 },
    faults: ["kill", "session"],
    faultTimes: 4,
    seeds: 4_000,
  },
  "dead letter without a mark": {
    store: { deadLettersWithoutMark: true },
    transactional: true,
    poison: true,
    warmStart: { callFaultRate: 0.3, slowRate: 0.3 },
    faults: ["session", "kill", "reassign", "twin"],
    faultTimes: 4,
    seeds: 8_000,
  },
  "listener that reads no marks": {
    store: { readsNoMarks: true },
    transactional: false,
    keys: true,
    faults: ["stop", "kill"],
    faultTimes: 4,
    seeds: 4_000,
  },
  "stop that leaves no marks": {
    listener: leavesNoMarks,
    transactional: false,
    keys: true,
    faults: ["stop"],
    faultTimes: 4,
    seeds: 4_000,
  },
  "marks at stops only": {
    listener: marksAtStops,
    transactional: false,
    keys: true,
    warmStart: { callFaultRate: 0, slowRate: 0 },
    faults: ["kill"],
    faultTimes: 4,
    seeds: 4_000,
  },
  "parked message whose key is released": {
    listener: releasesParkedKeys,
    keys: true,
    warmStart: { handlerFaultRate: 0.4 },
    faults: ["kill", "stop"],
    faultTimes: 4,
    seeds: 4_000,
  },
  "cursor over a message that is not parked yet": {
    listener: parksInMemory,
    keys: true,
    warmStart: { handlerFaultRate: 0.4, slowRate: 0.3 },
    faults: ["kill"],
    faultTimes: 6,
    seeds: 4_000,
  },
  "parked message without a mark": {
    store: { parksWithoutMark: true },
    transactional: true,
    keys: true,
    warmStart: { handlerFaultRate: 0.4, slowRate: 0.3 },
    faults: ["kill", "stop"],
    faultTimes: 6,
    seeds: 4_000,
  },
  "parked message marked as done": { listener: marksParked, restless: true, seeds: 4_000 },
  "mark that deletes a parked message": {
    listener: marksParked,
    store: { doneUnparks: true },
    restless: true,
    seeds: 4_000,
  },
  "transaction that leaves its parked message": {
    store: { leavesParked: true },
    transactional: true,
    keys: true,
    warmStart: { handlerFaultRate: 0.4 },
    faults: ["kill"],
    faultTimes: 6,
    seeds: 4_000,
  },
  "starts of parked messages not counted": {
    store: { countsNoParked: true },
    poison: true,
    poisonEndsSessions: false,
    keys: true,
    warmStart: { handlerFaultRate: 0.4 },
    faults: ["kill", "stop"],
    faultTimes: 4,
    seeds: 4_000,
  },
  "transaction that the machine does not hear of": { handlerResult: postponing("done"), transactional: true },
  "dead letter written again": {
    store: { deadLetterAlways: true },
    poison: true,
    warmStart: { callFaultRate: 0.3 },
    faults: ["kill", "session"],
    seeds: 2_000,
  },
  "attempts not counted": { store: { countsNoAttempts: true }, poison: true },
  "delay that a handler wants counted as an attempt": { handlerResult: countsDeferrals },
  "delay that a handler wants forgotten": { handlerResult: postponing("deferred") },
  "end of a session not counted": {
    handlerResult: postponing("sessionEnded"),
    transactional: true,
    poison: true,
    poisonEndsSessions: true,
  },
  "last start beside others": {
    firstSeed: 6556,
    countsBesideOthers: true,
    poison: true,
    poisonEndsSessions: false,
    seeds: 20_000,
  },
  "no care after an unclean exit": { neverSuspects: true, poison: true },
  "channel given back while a handler runs": {
    listener: isQuietAtOnce,
    givesBack: true,
    faults: ["reassign", "kill", "stop"],
    faultTimes: 4,
    seeds: 4_000,
  },
  "channel given back before the cursor's commit": {
    listener: isQuietUncommitted,
    givesBack: true,
    transactional: false,
    faults: ["reassign", "kill", "stop"],
    faultTimes: 4,
    seeds: 4_000,
  },
  "channel opened while it is given back": {
    opensWhileLeaving: true,
    givesBack: true,
    faults: ["reassign", "kill", "stop"],
    faultTimes: 4,
    seeds: 4_000,
  },
  "cursors, names and stored messages that a crash of Postgres loses": {
    store: { commitsInMemory: true },
    faults: ["crash"],
    faultTimes: 4,
  },
  "dead letter of a topic that another serves": {
    keepsWhatItDoesNotServe: true,
    secondTopic: true,
    faults: ["reassign", "kill", "stop"],
    faultTimes: 4,
  },
  "dead letter of a channel that another has": {
    firstSeed: 56,
    keepsWhatItDoesNotOwn: true,
    secondTopic: true,
    faults: ["reassign", "stall", "failover"],
    faultTimes: 4,
    seeds: 4_000,
  },
  "channel passed on while a handler runs": {
    listener: isQuietAtOnce,
    secondTopic: true,
    givesBack: false,
    keys: true,
    faults: ["reassign", "kill", "stop"],
    faultTimes: 4,
    seeds: 4_000,
  },
  "channel committed by another than its owner": {
    store: { commitsForAnybody: true, reassignsWithoutEpoch: true },
    faults: ["reassign", "cut", "stall"],
    faultTimes: 4,
  },
};
