/** Code to mutate, and the tests of the fast tier that should detect the mutants. */

/** Folder to mutate, with its tests. */
export interface Part {
  /** Folder, relative to the root. */
  readonly folder: string;
  /**
   * Groups of tests, as prefixes of their paths. A ring runs only if the previous one has not detected the mutant. The
   * rest of the fast tier might detect more mutants, so the reported share is a lower bound.
   */
  readonly rings: readonly (readonly string[])[];
}

const below = (folder: string, ...names: readonly string[]): string[] => names.map((name) => `${folder}/${name}`);

export const parts: readonly Part[] = [
  {
    folder: "src/jobs-and-peers/channel",
    rings: [
      ["test/channel/", "test/simulator/channels"],
      below("test/peer", "outbox", "handler", "messages", "replies", "status", "stop", "transactional"),
    ],
  },
  {
    folder: "src/nats/outbox",
    rings: [
      below("test/outbox", "poll-pace", "publish-window", "relay", "roles"),
      [...below("test/outbox", "nats", "replay"), "test/simulator/"],
    ],
  },
  {
    folder: "src/jobs-and-peers/store",
    rings: [
      below(
        "test/store",
        ...[
          "batched",
          "batches",
          "channels",
          "cursor",
          "dead-letter",
          "directory",
          "encoding",
          "fence",
          "forget-peer",
          "leases",
        ],
        ...["mesh-secrets", "messages", "queue", "reassign", "subscription-dead-letters"],
      ),
      [
        "test/handlers/transactions/",
        ...below("test/store", "migrate", "preparation", "refused-databases", "table-state"),
        ...below("test/peer", "claims", "dead-letters", "directory", "pending", "status"),
        "test/queue/schedules",
      ],
    ],
  },
  {
    folder: "src/jobs-and-peers/queue",
    rings: [
      ["test/enqueue/", ...below("test/queue", "due", "enqueue", "later", "occurrences", "schedules")],
      below("test/peer", "arguments", "messages", "replies", "send", "topics"),
    ],
  },
  {
    folder: "src/jobs-and-peers/peer-store",
    rings: [["test/peer-store/", "test/migrations/sequences", "test/store/"]],
  },
  {
    folder: "src/jobs-and-peers/handlers",
    rings: [
      ["test/handlers/", ...below("test/peer", "concurrency", "handle", "messages", "stop", "transactional")],
      below("test/peer", "cancel", "pause", "replies", "requests", "retry-after", "tracing"),
    ],
  },
  {
    folder: "src/jobs-and-peers/worker",
    rings: [
      [
        "test/worker/",
        ...below("test/peer", "arguments", "handle", "lifecycle", "monitor", "serving", "stop", "typed"),
      ],
      below("test/peer", "dead-letters", "loading", "pause", "pool", "programs", "running-peer", "topics"),
    ],
  },
  {
    folder: "src/jobs-and-peers/peer",
    rings: [
      below(
        "test/peer",
        ...["announced-channels", "arguments", "groups", "handle", "limits", "messages"],
        ...["pending", "replies", "requests", "send", "stop", "topics", "typed"],
      ),
      below(
        "test/peer",
        ...["claims", "concurrency", "dead-letters", "directory", "fan-out", "floods", "group-takeover", "lifecycle"],
        ...["monitor", "orphan-watch", "outbox", "pool", "reassign", "secrets", "status", "tracing"],
        ...["transactional"],
      ),
    ],
  },
  {
    folder: "src/jobs-and-peers/wire",
    rings: [["test/wire/"], ["test/transport/", ...below("test/peer", "compression", "limits", "send")]],
  },
  {
    folder: "src/nats/bridge/queue",
    rings: [
      ["test/bridge/queue/", "test/simulator/queues", "test/simulator/successions"],
      below("test/bridge", "failing-functions", "innocent", "run-as", "signatures", "transaction"),
    ],
  },
  {
    folder: "src/nats/bridge/leadership",
    rings: [
      ["test/bridge/leadership/", "test/simulator/leadership"],
      below("test/bridge", "beside", "endings", "live"),
    ],
  },
  {
    folder: "src/nats/gateway/protocol",
    rings: [
      ["test/gateway/protocol/"],
      below("test/gateway", "client", "functions/refused", "functions/round", "functions/unreadable", "serve"),
    ],
  },
  // The other generators have one input, the spec: `npm run verify` detects whatever changes their output.
  { folder: "codegen/message-sql", rings: [["test/message-sql/"]] },
];
