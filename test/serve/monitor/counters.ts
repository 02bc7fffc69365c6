/**
 * Counters for tests, as an owner has them: live objects.
 */
import type { BridgeStats, ResponderStats, SubscriptionCounts } from "../../../src/nats/bridge/index.js";
import type { ServeCounters } from "../../../src/nats/serve/monitor/index.js";

type Mutable<T> = { -readonly [Name in keyof T]: T[Name] };

/** A name that has all that the text format has to escape; identifiers of Postgres may. */
export const awkwardName = 'public."two\nlines \\ and \\n "" quotes"(bytea)';

export const capture: SubscriptionCounts = {
  id: 1n,
  subject: "orders.>",
  functionName: "public.capture(bytea)",
  received: 100,
  committed: 90,
  deadLettered: 1,
  repeated: 4,
  lostConnections: 2,
  queuedMessages: 6,
  queuedBytes: 6_000,
  savedMessages: 11,
  savedBytes: 11_000,
  oldestReceivedAt: 10_000,
  transactions: 20,
  bisections: 2,
};

export const awkward: SubscriptionCounts = {
  ...capture,
  id: 2n,
  subject: "returns.*",
  functionName: awkwardName,
  received: 7,
  oldestReceivedAt: undefined,
};

export const answer: ResponderStats = {
  id: 9_007_199_254_740_993n,
  subject: "prices",
  functionName: "public.answer(bytea)",
  requests: 56,
  errors: 6,
  timedOut: 2,
  busy: 1,
  ignored: 4,
  dropped: 5,
  isRefused: false,
  waiting: 9,
  waitingBytes: 9_000,
  running: 8,
};

/** Nothing in them is zero. */
function bridgeStats(): Mutable<BridgeStats> {
  return {
    role: "primary",
    epoch: 1_763_654_400_123n,
    lastEpoch: 1_763_654_400_123n,
    keptBytes: 512,
    discarded: 3,
    missing: 4,
    subscriptions: [capture, awkward],
    responders: { responders: [answer], running: 8 },
    streams: [
      {
        name: "billing",
        stream: "ORDERS",
        functionName: "public.take(bytea)",
        lag: 21,
        position: 22,
        missing: 23,
        isReading: true,
        committed: 24,
        deadLettered: 25,
      },
    ],
    outbox: {
      waiting: 11,
      oldestAt: new Date("2025-11-20T16:00:00Z"),
      positionAt: 1,
      relayed: 12,
      refused: 13,
      replayed: 14,
      dropped: 1,
    },
  };
}

export function serveCounters(): Mutable<Omit<ServeCounters, "bridge">> & { bridge: Mutable<BridgeStats> } {
  return {
    gateway: { sessions: 3, certificateEndsAt: 1_800_000_000_000, unreachedAt: 1_763_654_400 },
    postgres: { isUp: true, reconnects: 1 },
    nats: {
      gateway: { isUp: true, reconnects: 0 },
      subscriptions: { isUp: false, reconnects: 2 },
      responders: { isUp: true, reconnects: 4 },
    },
    bridge: bridgeStats(),
    stored: {
      waiting: { messages: 15, oldestAt: 20_000 },
      deadLetters: [
        { origin: "subscription", messages: 18 },
        { origin: "outbox", messages: 19 },
        { origin: "queue", messages: 17 },
      ],
      notifyQueue: { used: 0.25, holder: { pid: 17, role: "someone", application: "", seconds: 1 } },
      backlog: [
        {
          topic: "bills",
          group: "billing",
          listener: "bills-1",
          hasMore: false,
          state: "stopped",
          messages: 20,
          oldestAt: 2_500,
        },
        {
          topic: 'a "topic" \\',
          group: "",
          listener: "",
          hasMore: true,
          state: "unserved",
          messages: 21,
          oldestAt: 500,
        },
      ],
      schedules: [
        { name: "nightly", role: "shop", problem: null, lateSeconds: 20 },
        { name: "odd", role: "shop", problem: "the time zone is not known", lateSeconds: null },
      ],
    },
  };
}
