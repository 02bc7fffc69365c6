/**
 * The code that is mutated, and the tests of the fast tier that are to notice.
 */

/** A part of the code. */
export interface Part {
  /** A folder, relative to the root. */
  readonly folder: string;
  /**
   * How the paths of tests begin. Those of the first ring run first, and the second ring only where the first has
   * noticed nothing. The rest of the fast tier may notice more: the share that is counted is a lower bound.
   */
  readonly rings: readonly (readonly string[])[];
}

const below = (folder: string, ...names: readonly string[]): string[] => names.map((name) => `${folder}/${name}`);

export const parts: readonly Part[] = [
  {
    folder: "src/channel",
    rings: [
      ["test/channel/", "test/simulator/"],
      below("test/peer", "outbox", "handler", "messages", "replies", "status", "stop", "transactional"),
    ],
  },
  {
    folder: "src/wire",
    rings: [["test/wire/"], ["test/transport/", ...below("test/peer", "compression", "limits", "send")]],
  },
  {
    folder: "src/bridge/queue",
    rings: [
      ["test/bridge/queue/"],
      below("test/bridge", "failing-functions", "innocent", "run-as", "signatures", "transaction"),
    ],
  },
  {
    folder: "src/bridge/leadership",
    rings: [["test/bridge/leadership/"], below("test/bridge", "beside", "endings", "live")],
  },
  {
    folder: "src/gateway/protocol",
    rings: [
      ["test/gateway/protocol/"],
      below("test/gateway", "client", "functions/refused", "functions/round", "functions/unreadable", "serve"),
    ],
  },
  { folder: "codegen", rings: [["test/codegen/", "test/nats-options/"]] },
];
