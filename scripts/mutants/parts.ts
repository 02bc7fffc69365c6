/**
 * The code that is mutated, and the tests of the fast tier that are to notice.
 */

/** A part of the code. */
export interface Part {
  /** A folder, relative to the root. */
  readonly folder: string;
  /**
   * Folders of tests: those of the first ring run first, and the next ring only where the ones before noticed nothing.
   * Tests of the rest of the fast tier hardly notice what these do not.
   */
  readonly rings: readonly (readonly string[])[];
}

export const parts: readonly Part[] = [
  { folder: "src/channel", rings: [["test/channel", "test/simulator"], ["test/peer"]] },
  { folder: "src/wire", rings: [["test/wire"], ["test/transport", "test/conformance"], ["test/peer"]] },
  { folder: "src/bridge/lanes", rings: [["test/bridge/lanes"], ["test/bridge"]] },
  { folder: "src/bridge/lead", rings: [["test/bridge/lead"], ["test/bridge"]] },
  { folder: "src/gateway/protocol", rings: [["test/gateway/protocol"], ["test/gateway"]] },
  { folder: "codegen", rings: [["test/codegen", "test/nats-options"]] },
];
