/**
 * The test's handle of a mesh process.
 */
import { RemoteProcess } from "../../scenarios/support/remote-process.js";
import { Journal } from "./journal.js";
import type { MeshCalls, MeshPeerOptions } from "./mesh-protocol.js";

/** A peer in a process of its own. Disposing kills it. */
export class MeshProcess extends RemoteProcess<MeshCalls> {
  readonly journal: Journal;

  constructor(
    readonly options: MeshPeerOptions,
    execArgv?: readonly string[],
    launcher?: readonly [string, ...string[]],
  ) {
    super("test/faults/programs/mesh-peer.ts", options, execArgv, launcher);
    this.journal = new Journal(options.journal);
  }
}
