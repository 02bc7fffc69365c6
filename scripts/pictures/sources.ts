/**
 * The pictures of the docs as text. `npm run pictures` draws them into `docs/pictures/`, and writes `inWords` as the
 * alternative text where a page shows one. Delays are those of the spec.
 */
import { handlerSettingsRanges, retrySettingsDefaults } from "../../generated/ts/settings/peer.js";
import { policyOf } from "../../src/jobs-and-peers/handlers/handling-settings.js";

/** A picture's heading, and its alternative text. */
interface Described {
  readonly title: string;
  readonly inWords: string;
}

/**
 * The steps of one path between three parts. A part is `kind:name`. A step is a line: `0>2 text` is an arrow from the first
 * part to the third, `@1 text` happens in the second. Those between `[0-1 text` and `]` are one transaction or statement.
 */
export interface Steps extends Described {
  /** Number of the path in the overview, which has its colour. */
  readonly path: number;
  readonly parts: readonly [string, string, string];
  readonly steps: string;
}

export const steps: Readonly<Record<string, Steps>> = {
  "path-live": {
    path: 1,
    title: "From peer to peer, live",
    inWords: "A message goes over TCP. After its handler Postgres commits the cursor, and the sender gets delivered",
    parts: ["you:Peer shop-1", "store:Postgres", "you:Peer billing-1"],
    steps: `
      0>2 message 7, over TCP
      @2 your handler
      2>1 cursor = 7
      2>0 delivered`,
  },
  "path-stored": {
    path: 2,
    title: "To a peer that is away",
    inWords: "The sender writes the message to Postgres, and gets stored. The listener reads it when it is back",
    parts: ["you:Peer shop-1", "store:Postgres", "you:Peer billing-1"],
    steps: `
      @2 is away
      0>1 message 7
      1>0 stored
      @2 is back
      1>2 message 7
      @2 your handler
      2>1 cursor = 7, row deleted`,
  },
  "path-from-sql": {
    path: 3,
    title: "From SQL to NATS",
    inWords:
      "A call in your statement goes through hawser serve to NATS, and the answer comes back in the same statement. A rollback does not undo it",
    parts: ["store:Your session", "hawser:hawser serve", "nats:NATS"],
    steps: `
      [0-2 one statement
      0>1 nats_request_text(…)
      1>2 request
      2>1 reply
      1>0 a value, or an error
      ]
      @0 rollback: it stays`,
  },
  "path-to-sql": {
    path: 4,
    title: "From NATS to SQL",
    inWords:
      "hawser serve gathers messages, and runs your function for a batch of them in one transaction. A message that keeps failing becomes a dead letter",
    parts: ["nats:NATS", "hawser:hawser serve", "store:Postgres"],
    steps: `
      0>1 messages
      @1 a batch of them
      [1-2 one transaction
      1>2 your function for each
      ]
      1>2 or a dead letter`,
  },
  "path-to-peer": {
    path: 5,
    title: "From your transaction to a worker",
    inWords:
      "Your row and the job commit together. A worker takes the job, and its handler's writes commit together with the end of the job",
    parts: ["you:Your process", "store:Postgres", "you:Worker"],
    steps: `
      [0-1 your transaction
      0>1 INSERT INTO orders
      0>1 enqueue
      ]
      1>2 job 17
      [1-2 the handler's transaction
      @2 your handler
      2>1 its writes
      2>1 row of the job deleted
      ]`,
  },
  "path-to-nats": {
    path: 5,
    title: "From your transaction to NATS",
    inWords:
      "Your row and the message commit together. After the commit the relay of hawser serve publishes it, and when the stream has acknowledged it, saves its position",
    parts: ["store:Postgres", "hawser:hawser serve: relay", "nats:NATS"],
    steps: `
      [0-0 your transaction
      @0 INSERT, enqueue
      ]
      0>1 after the commit
      1>2 publish, with its id
      2>1 acknowledged
      1>0 position saved`,
  },
  "path-stream": {
    path: 6,
    title: "From a stream to SQL",
    inWords:
      "hawser serve reads the stream from the saved position. Your function and the new position are one transaction, so effects happen once",
    parts: ["nats:Stream ORDERS", "hawser:hawser serve", "store:Postgres"],
    steps: `
      1>0 from 18 on
      0>1 messages 18, 19
      [1-2 one transaction
      1>2 your function for both
      1>2 position = 19
      ]`,
  },
};

/** Bars over time. The kinds are styles; `try` is a numbered attempt that failed. */
export interface Timeline extends Described {
  readonly lanes: readonly (readonly [name: string, ...Bar[]])[];
  readonly end: number;
  readonly ticks: readonly (readonly [at: number, label: string])[];
}

export type Bar = readonly [kind: "a" | "b" | "c" | "fail" | "wait" | "try", from: number, to: number, label: string];

const retry = policyOf(retrySettingsDefaults);
const delays = Array.from({ length: retry.attempts - 1 }, (_, index) => retry.delayMs(index + 1));
const attempts = [0, ...delays.map((_, index) => delays.slice(0, index + 1).reduce((sum, each) => sum + each))];
const givenUpMs = attempts.at(-1)!;
/** A share of the time until the last attempt. */
const share = (part: number): number => Math.round(givenUpMs * part);
const listed = (values: readonly number[]): string =>
  `${values
    .slice(0, -1)
    .map((value) => value.toLocaleString("en-US"))
    .join(", ")} and ${values.at(-1)!.toLocaleString("en-US")}`;

/** The default is in the words of the setting, as it counts for groups and enqueued messages alone. */
const takeoverS = Number(/Default: (\d+) ms/.exec(handlerSettingsRanges.takeoverMs.about)![1]) / 1_000;
const killedS = takeoverS * 0.3;
const takenS = killedS + takeoverS;
const handlerS = takeoverS * 0.3;

export const timelines: Readonly<Record<string, Timeline>> = {
  "order-by-key": {
    title: "Order by key",
    inWords:
      "Messages with the key A, and those with the key B, are handled in the order of their commits. While B1 waits for its retry, B2 waits, and all others go on. Messages without a key are handled side by side",
    lanes: [
      ["commits", ...["a:A1", "b:B1", "c:C", "b:B2", "a:A2", "c:D"].map(committed)],
      ["key A", ["a", 1, 4, "A1"], ["a", 5, 8, "A2"]],
      ["key B", ["fail", 2, 3.8, "B1"], ["wait", 3.8, 7, "retry, B2 waits"], ["b", 7, 9, "B1"], ["b", 9, 11, "B2"]],
      ["no key", ["c", 3, 7, "C"]],
      ["no key", ["c", 6, 10, "D"]],
    ],
    end: 12,
    ticks: [],
  },
  retries: {
    title: "Retries, then a dead letter",
    inWords: `A message whose handler fails at once is tried at ${listed(attempts)} ms, after delays of ${listed(delays)} ms, and then becomes a dead letter. Messages with its key wait; others go on`,
    lanes: [
      [
        "key A",
        ...attempts.map((at, index): Bar => ["try", at, at, `${index + 1}`]),
        ["fail", share(1.06), share(1.36), "dead letter"],
      ],
      ["key A, next", ["wait", 0, share(1.06), "waits"], ["a", share(1.06), share(1.36), "is handled"]],
      ["other keys", ["b", 0, share(1.36), "go on"]],
    ],
    end: share(1.36),
    ticks: attempts.map((at) => [at, at === givenUpMs ? `${at.toLocaleString("en-US")} ms` : `${at}`]),
  },
  takeover: {
    title: "A worker is killed",
    inWords: `Worker 1 is killed while it handles job 17. If it starts again under its name, it has the job at once; otherwise worker 2 takes it, ${takeoverS} s after the last heartbeat of worker 1`,
    lanes: [
      ["worker 1", ["a", 0, killedS, "job 17"], ["fail", killedS, killedS * 1.9, "killed"]],
      ["restarted", ["a", killedS + takeoverS / 2, killedS + takeoverS / 2 + handlerS, "job 17"]],
      [
        "or worker 2",
        ["wait", killedS, takenS, `silent for ${takeoverS} s`],
        ["a", takenS, takenS + handlerS, "job 17"],
      ],
    ],
    end: takenS + handlerS,
    ticks: [
      [killedS, "last heartbeat"],
      [takenS, `${takeoverS} s: takeoverMs`],
    ],
  },
};

function committed(message: string, index: number): Bar {
  const [kind, label] = message.split(":") as [Bar[0], string];
  return [kind, index, index + 0.9, label];
}

/** The overview: boxes (kind, x, y, width, height, name, remark), and the arrows of the paths through their points. */
export const overview = {
  title: "The parts of Hawser, and the six paths of a message",
  inWords:
    "1: live, from peer to peer over TCP. 2: from a peer through stored messages in Postgres to a peer. 3: from Hawser's SQL functions through the gateway of hawser serve to NATS. 4: from NATS through its bridge to your SQL functions. 5: from Hawser's SQL functions into the queue for peers, or into the outbox, and through its relay to NATS. 6: from a stream through the bridge to your SQL functions",
  height: 590,
  boxes: [
    ["you", 20, 48, 190, 50, "Peer shop-1", "your process"],
    ["you", 310, 48, 190, 50, "Peer billing-1", "your process, your handler"],
    ["frame", 20, 148, 480, 186, "Postgres", ""],
    ["store", 60, 180, 180, 50, "stored messages", "until the listener is back"],
    ["store", 340, 180, 140, 50, "queue", "for peers"],
    ["store", 30, 272, 160, 50, "Hawser's functions", "enqueue, nats_publish…"],
    ["store", 210, 272, 110, 50, "outbox", "for NATS"],
    ["you", 340, 272, 150, 50, "your functions", "that you subscribe"],
    ["frame", 20, 378, 480, 74, "hawser serve", ""],
    ["hawser", 30, 408, 160, 34, "gateway", ""],
    ["hawser", 210, 408, 110, 34, "relay", ""],
    ["hawser", 340, 408, 150, 34, "bridge", ""],
    ["nats", 20, 488, 480, 30, "NATS", ""],
  ],
  arrows: [
    [1, "210,73 310,73"],
    [2, "120,98 120,180"],
    [2, "240,190 340,98"],
    [3, "90,322 90,408"],
    [3, "90,442 90,488"],
    [4, "380,488 380,442"],
    [4, "380,408 380,322"],
    [5, "150,272 150,251 410,251 410,230"],
    [5, "410,180 410,98"],
    [5, "190,297 210,297"],
    [5, "265,322 265,408"],
    [5, "265,442 265,488"],
    [6, "450,488 450,442"],
    [6, "450,408 450,322"],
  ],
  /** Places of the paths' numbers. */
  numbers: [
    [1, 258, 73],
    [2, 120, 124],
    [2, 300, 135],
    [3, 90, 356],
    [4, 380, 356],
    [5, 410, 124],
    [5, 265, 356],
    [6, 450, 356],
  ],
  legend: [
    "live, over one TCP connection",
    "while the listener is away",
    "a call in your statement",
    "your function for messages",
    "after your commit",
    "a stream, effects once",
  ],
} as const;

/** A ratio of `docs/benchmarks/results.md`: in a section, of a result, in a row, to a baseline. */
export type Ratio = readonly [label: string, section: string, result: string, row: string, baseline: string];

const asked = "One message at a time, and requests";
const rpc = ["RPC", "over peers, p50", "1 in flight"] as const;
const jobs = ["Handlers in transactions", "handled", "20,000 jobs, 1 process"] as const;
const drain = ["Store and drain 100,000 messages", "total", "100 B"] as const;

export const glance: { readonly title: string; readonly ratios: readonly Ratio[] } = {
  title: "Ahead and behind at a glance",
  ratios: [
    ["graphile-worker: transactional jobs", ...jobs, "graphile-worker by hand"],
    ["pg-boss: transactional jobs", ...jobs, "pg-boss by hand"],
    ["graphile-worker: store and drain", ...drain, "graphile-worker"],
    ["River: store and drain", ...drain, "river"],
    ["pg-boss: store and drain", ...drain, "pg-boss"],
    ["pgmq: store and drain by SQL", ...drain, "pgmq"],
    [
      "JetStream: fast ingest to disk",
      "At least once: what it costs, and JetStream",
      "at-least-once",
      "100 B",
      "jetstream fast ingest",
    ],
    ["nats.js: publish", "Messages from one process to another", "at-most-once", "100 B", "nats-core"],
    ["tRPC: a call over HTTP", ...rpc, "tRPC HTTP"],
    ["connect-es: a call over HTTP/2", ...rpc, "connect-es"],
    ["grpc-js: a call", ...rpc, "grpc-js"],
    ["nats.js: a request", asked, "request, p50", "1 in flight", "nats.js"],
    ["nats.js: p99 of 64 requests", asked, "request, p99", "64 in flight", "nats.js"],
    ["zeromq.js: p99 of 64 requests", asked, "request, p99", "64 in flight", "zeromq.js"],
    ["liner: bursts, at least once", "liner's own workload", "at-least-once, one process", "100 B", "liner"],
    ["bare INSERT: an enqueue", "Outbox", "enqueue", "1 session", "INSERT"],
    ["bare dblink: publish from SQL", "Publishing from SQL", "nats_publish_text", "1 session", "dblink"],
    ["untyped bytes: send", "Typed messages", "typed send, at-most-once", "100 B", "raw"],
    ["own client: a NATS message to a row", "From NATS to SQL", "ping to row, p50", "100 B", "prepared transaction"],
    ["SQL loop: a backlog of 10,000", "A great backlog", "drain", "10,000 messages", "sql"],
    ["plain TCP: short messages", "Messages from one process to another", "at-most-once", "100 B", "tcp"],
  ],
};
