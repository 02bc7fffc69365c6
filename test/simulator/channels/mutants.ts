/**
 * Departures from the delivery rules, each of which the simulator must catch: they show that it can fail. Those of a
 * state machine stand between it and the world, or in its place: they change its effects, its limits, what it is told, or one
 * of its rules. Those inside the store are switches of the model.
 */

import {
  type ChannelWelcome,
  comparePositions,
  type HandlerResult,
  type IncomingMessage,
  type LeavingMessage,
  type LinkState,
  ListenerChannel,
  type ListenerEffects,
  type ListenerLimits,
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
  readonly listener?: (cursor: Position, limits: ListenerLimits, effects: ListenerEffects) => ListenerChannel;
  readonly listenerLimits?: Partial<ListenerLimits>;
  /** The cursor that a listener tells in Welcome. */
  readonly welcome?: (channel: ListenerChannel) => Position;
  /** A Welcome as the sender takes it. */
  readonly welcomed?: (welcome: ChannelWelcome) => ChannelWelcome;
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
  /** A message that fails counts as passed. */
  readonly passesWhatFails?: boolean;
  /** A stop leaves what is unfinished to nobody. */
  readonly keepsUnfinished?: boolean;
  /** Handlers are transactional, or messages that kill their process occur, in every run. */
  readonly transactional?: boolean;
  readonly poison?: boolean;
  /** There is another listener, and messages for a topic that it alone serves, in every run. */
  readonly secondTopic?: boolean;
  /** Messages have keys in every run. */
  readonly keys?: boolean;
  /** Many rows wait, and listeners stop several times in a row, in every run or in none. */
  readonly restless?: boolean;
  /** Who waits, itself or others, for the limit that a running message has left is not woken. */
  readonly movesSilently?: boolean;
  /** Handlers of some topics have limits, in every run. */
  readonly limits?: boolean;
  /** A warm start for a rare one: these rates, only these faults, so often. */
  readonly warmStart?: Partial<
    Record<"callFaultRate" | "dialFaultRate" | "notifyLossRate" | "slowRate" | "handlerFaultRate", number>
  >;
  readonly faults?: readonly FaultKind[];
  readonly faultTimes?: number;
}

/** Hears of handlers that change only while it does not ask, or never. */
const deafToHandlers =
  (isDeaf: (isAsking: boolean) => boolean): MakeListener =>
  (cursor, limits, effects) => {
    let isAsking = false;
    return new (class extends ListenerChannel {
      override onLanes(...given: Parameters<ListenerChannel["onLanes"]>): void {
        isAsking = false;
        super.onLanes(...given);
      }
      override handlersChanged(): void {
        if (!isDeaf(isAsking)) super.handlersChanged();
      }
    })(cursor, limits, {
      ...effects,
      askLanes: (keys) => {
        isAsking = true;
        effects.askLanes(keys);
      },
    });
  };

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
const ackBeforeCommit: MakeListener = (cursor, limits, effects) => {
  let handled = cursor;
  let latest: { readonly connection: unknown; readonly ack: Ack } | undefined;
  return new ListenerChannel(cursor, limits, {
    ...effects,
    writeAck: (connection, ack) => {
      latest = { connection, ack };
      effects.writeAck(connection, comparePositions(handled, ack) > 0 ? { ...ack, ...handled } : ack);
    },
    commit: (committing, leaving) => {
      handled = committing;
      if (latest !== undefined) effects.writeAck(latest.connection, { ...latest.ack, ...handled });
      effects.commit(committing, leaving);
    },
  });
};

/** A listener that takes an older query for the answer to one of its questions. */
function believing(believed: Question): MakeListener {
  return (cursor, limits, effects) =>
    new (class extends ListenerChannel {
      protected override concludes(question: Question, startedBefore: number): boolean {
        return question === believed || super.concludes(question, startedBefore);
      }
    })(cursor, limits, effects);
}

/** Moves the watermark back to the committed cursor whenever that is told. */
const watermarkMovesBack: MakeListener = (cursor, limits, effects) => {
  const writeAck: ListenerEffects["writeAck"] = (connection, ack) => {
    const { epoch, number } = ack;
    if (comparePositions(ack, channel.accepted) < 0) channel.accepted = { epoch, number };
    effects.writeAck(connection, ack);
  };
  const channel = new ListenerChannel(cursor, limits, { ...effects, writeAck });
  return channel;
};

/** Commits each message when its handler has ended, whatever is unfinished before it. */
const commitsBeyond: MakeListener = (cursor, limits, effects) => {
  return new (class extends ListenerChannel {
    override finish(turn: StartedMessage, result: HandlerResult, now: number): void {
      const { position } = turn.running;
      super.finish(turn, result, now);
      if (position !== undefined && result.kind === "done") effects.commit(position, []);
    }
  })(cursor, limits, effects);
};

/** Changes what leaves a channel. */
function leavingAs(change: (leaving: LeavingMessage) => Partial<LeavingMessage>): MakeListener {
  return (cursor, limits, effects) =>
    new ListenerChannel(cursor, limits, {
      ...effects,
      commit: (committing, leaving) =>
        effects.commit(
          committing,
          leaving.map((each) => ({ ...each, ...change(each) })),
        ),
    });
}

/** Lets what comes pass a message of its lane that has failed. */
const letsLanePass: MakeListener = (cursor, limits, effects) => {
  return new (class extends ListenerChannel {
    override finish(turn: StartedMessage, result: HandlerResult, now: number): void {
      super.finish(turn, result, now);
      if (result.kind === "failed") Object.assign(turn, { state: "here" });
    }
  })(cursor, limits, effects);
};

/** Handles messages of one key side by side. */
const forgetsKeys: MakeListener = (cursor, limits, effects) => {
  let nth = 0;
  return new (class extends ListenerChannel {
    override onMessages(connection: unknown, messages: readonly IncomingMessage[], now: number): void {
      const others = messages.map((message) => ({ ...message, key: message.key && `${message.key} ${nth++}` }));
      super.onMessages(connection, others, now);
    }
  })(cursor, limits, effects);
};

/** Passes messages of a batch whatever is missing before them. */
const passesGaps: MakeListener = (cursor, limits, effects) => {
  return new (class extends ListenerChannel {
    override canPassThrough(connection: unknown, epoch: number, firstNumber: number): boolean {
      const { accepted } = this;
      const isLater = epoch === accepted.epoch && firstNumber > accepted.number;
      return super.canPassThrough(connection, epoch, isLater ? accepted.number + 1 : firstNumber);
    }
  })(cursor, limits, effects);
};

/** Passes messages while others of their lane are in the queue. */
const passesBesideRows: MakeListener = (cursor, limits, effects) =>
  new (class extends ListenerChannel {
    constructor() {
      super(cursor, limits, effects);
      const isIdle = () => this.handling.queued + this.handling.running === 0;
      Object.defineProperty(this.handling, "isIdle", { get: isIdle });
    }
  })();

/** Does not wake who waits for a limit that is full no more. */
const forgetsWaiters: MakeListener = (cursor, limits, effects) =>
  new ListenerChannel(cursor, limits, { ...effects, limitFreed: () => undefined });

/** Starts a message whatever its limit is. */
const forgetsLimits: MakeListener = (cursor, limits, effects) =>
  new ListenerChannel(cursor, { ...limits, limitOf: () => undefined }, effects);

/** Keeps the place of a message that leaves. */
const keepsPlaces: MakeListener = (cursor, limits, effects) =>
  new (class extends ListenerChannel {
    override finish(turn: StartedMessage, result: HandlerResult, now: number): void {
      const { limit } = turn;
      super.finish(turn, result, now);
      if (result.kind === "failed") limit?.take();
    }
  })(cursor, limits, effects);

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
  "token left by a release": {
    store: { releasesWithToken: true },
    warmStart: { callFaultRate: 0.5 },
    faults: ["session", "failover", "release"],
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
  "messages of one key side by side": {
    listener: forgetsKeys,
    keys: true,
    transactional: false,
    seeds: 2_000,
  },
  "batch passed over a gap": { listener: passesGaps, transactional: false, seeds: 2_000 },
  "batch passed beside rows of its lane": {
    listener: passesBesideRows,
    transactional: false,
    warmStart: { handlerFaultRate: 0.4 },
    seeds: 2_000,
  },
  "cursor over a passed message that fails": {
    passesWhatFails: true,
    transactional: false,
    warmStart: { handlerFaultRate: 0.4 },
    seeds: 2_000,
  },
  "limit without a wake-up": { listener: forgetsWaiters, limits: true },
  "change of limit without a wake-up": { movesSilently: true, limits: true },
  "limit that is not looked at": { listener: forgetsLimits, limits: true },
  "message that leaves and keeps its place": {
    listener: keepsPlaces,
    limits: true,
    warmStart: { handlerFaultRate: 0.4 },
  },
  "watermark moves back": { listener: watermarkMovesBack },
  "row without its cursor": { store: { rowsFirst: true }, warmStart: { handlerFaultRate: 0.4 } },
  "cursor without its row": { store: { cursorFirst: true }, warmStart: { handlerFaultRate: 0.4 } },
  "rows inserted again by a repeated commit": { store: { insertsAgain: true }, warmStart: { callFaultRate: 0.3 } },
  "commit of a listener that has lost its name": {
    store: { commitsWithoutFence: true },
    warmStart: { slowRate: 0.6 },
    faults: ["kill", "session", "twin"],
    faultTimes: 6,
  },
  "what is behind a failed message passes it": { listener: letsLanePass, warmStart: { handlerFaultRate: 0.4 } },
  "lane that comes back by an older answer": {
    store: { answersOldLanes: true },
    warmStart: { handlerFaultRate: 0.4 },
  },
  "handlers that change unnoticed": {
    listener: deafToHandlers(() => true),
    secondTopic: true,
    faults: ["subscribe"],
    faultTimes: 12,
  },
  "answer about the topics of before": {
    listener: deafToHandlers((isAsking) => isAsking),
    secondTopic: true,
    warmStart: { slowRate: 0.3 },
    faults: ["subscribe"],
    faultTimes: 12,
    seeds: 4_000,
  },
  "lane opened without a question": {
    listenerLimits: { hasRows: false },
    warmStart: { handlerFaultRate: 0.4 },
    faults: ["kill", "stop"],
    faultTimes: 4,
  },
  "rows of a commit that has not ended are overlooked": {
    store: { clearsUnlocked: true },
    firstSeed: 2_200,
    warmStart: { handlerFaultRate: 0.1, slowRate: 0.5, callFaultRate: 0 },
    restless: true,
    keys: true,
    faults: ["stop"],
    faultTimes: 10,
    seeds: 8_000,
  },
  "row for another recipient than what waits of its lane": {
    store: { lanesByRecipient: true },
    warmStart: { handlerFaultRate: 0.4 },
    secondTopic: true,
    faults: ["release"],
    faultTimes: 4,
  },
  "release without a new epoch": { store: { releasesWithoutEpoch: true }, faults: ["release"], faultTimes: 4 },
  "release that leaves the cursor": { store: { releasesWithoutCursor: true }, faults: ["release"], faultTimes: 4 },
  "release of what a listener has handled meanwhile": {
    store: { releasesAgain: true },
    faults: ["release"],
    faultTimes: 4,
  },
  "release of what was found before a failover": {
    store: { releasesAcross: true },
    faults: ["release", "failover"],
    faultTimes: 4,
    seeds: 8_000,
  },
  "release that does not say that there are rows": {
    store: { releasesWithoutFlag: true },
    faults: ["release"],
    faultTimes: 4,
  },
  "suspects that stay": { listenerLimits: { suspects: 0 }, poison: true },
  "suspect whose starts are not counted": { store: { freesWithoutCount: true }, poison: true },
  "message that leaves as if its handler did not run": { listener: leavingAs(() => ({ turn: undefined })) },
  "messages that wait for ever behind an unfinished one": {
    listenerLimits: { leaveAfterMs: Number.POSITIVE_INFINITY },
    transactional: false,
    keys: true,
    warmStart: { callFaultRate: 0, slowRate: 0 },
    faults: ["kill"],
    faultTimes: 4,
    seeds: 4_000,
  },
  "stop that keeps what is unfinished": {
    keepsUnfinished: true,
    transactional: false,
    keys: true,
    faults: ["stop"],
    faultTimes: 4,
    seeds: 4_000,
  },
  "queued not told": { ack: (ack) => ({ ...ack, queued: 0 }), warmStart: { handlerFaultRate: 0.4 } },
  "queued not told in Welcome": {
    welcomed: (welcome) => ({ ...welcome, queued: 0 }),
    warmStart: { handlerFaultRate: 0.4 },
  },
  "delay that a handler wants counted as an attempt": { handlerResult: countsDeferrals },
  "delay that a handler wants forgotten": { handlerResult: postponing("deferred") },
  "cursors, names and stored messages that a crash of Postgres loses": {
    store: { commitsInMemory: true },
    faults: ["crash"],
    faultTimes: 4,
  },
};
