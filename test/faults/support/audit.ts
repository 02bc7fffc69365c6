/**
 * Invariants that hold after the faults have ended and everything has drained.
 */
import type { Member, Stalled } from "./member.js";
import type { Mesh } from "./mesh.js";

/** Outcomes of all messages of a mesh. */
export interface Audit {
  readonly confirmed: number;
  readonly delivered: number;
  readonly stored: number;
  /** Rejected with an unknown outcome. */
  readonly unknown: number;
  /** Handlers started. */
  readonly begun: number;
  /** Handlers started for a message for which one was started before. */
  readonly repeated: number;
  /** Messages whose handler was never started although they were confirmed. */
  readonly missing: string[];
  /** First starts that are not in the order of sending, or leave a hole. */
  readonly outOfOrder: string[];
  /** Starts for messages at or below the cursor that was committed then. */
  readonly begunAlthoughDone: string[];
  /** Messages begun although their send was refused. */
  readonly refusedAndBegun: string[];
  /** Names that were lost, and messages that were nowhere. */
  readonly alarms: string[];
}

/**
 * Looks at everything. `stalled` are processes that lost their name, by their id, and since when: what their handlers began
 * from then on counts for nothing, since their successors begin it again.
 */
export function audit(mesh: Mesh, stalled: Stalled = new Map()): Audit {
  const all = { confirmed: 0, delivered: 0, stored: 0, unknown: 0, begun: 0, repeated: 0 };
  const outOfOrder: string[] = [];
  const begunAlthoughDone: string[] = [];
  const refusedAndBegun: string[] = [];
  for (const { sender, listener } of mesh.channels) {
    const refused = refusedNumbers(sender, listener);
    for (const { outcome } of mesh.confirmed(sender, listener)) {
      all.confirmed += 1;
      if (outcome === "delivered") all.delivered += 1;
      else if (outcome === "stored") all.stored += 1;
    }
    const seen = new Set<string>();
    let last = { run: 0, place: 0 };
    for (const { sender: from, run, number, at, pid } of mesh.begun(listener)) {
      if (from !== sender.name || at >= (stalled.get(pid) ?? Infinity)) continue;
      all.begun += 1;
      const key = `${from} ${run} ${number} at ${listener.name}`;
      const unnumbered = refused.get(run) ?? [];
      if (unnumbered.includes(number)) refusedAndBegun.push(key);
      // A refused send was given no number, so that those behind it are one place further ahead.
      const place = number - unnumbered.filter((each) => each < number).length;
      const epoch = sender.epochs.get(run);
      if (epoch === undefined) throw new Error(`the epoch of run ${run} of "${sender.name}" is not known`);
      const channel = `${from}:${from}:${listener.name}`;
      if (mesh.cursors.wasDone(channel, epoch, place, at)) begunAlthoughDone.push(key);
      if (seen.has(key)) {
        all.repeated += 1;
        continue;
      }
      seen.add(key);
      const follows = run === last.run ? place === last.place + 1 : run > last.run && place === 1;
      if (!follows) outOfOrder.push(`${key} after ${last.run} ${last.place}`);
      last = { run, place };
    }
  }
  const alarms: string[] = [];
  for (const { processes } of mesh.members) {
    for (const process of processes) {
      const { journal, options } = process;
      for (const { failure } of journal.refresh().rejected) if (failure.outcome === "unknown") all.unknown += 1;
      for (const { status } of journal.statuses) {
        const isAlarming = status.kind === "gap" || status.kind === "name_lost" || status.kind === "dead_letter";
        if (isAlarming && !stalled.has(process.pid))
          alarms.push(`${options.peer.name}: ${status.kind} ${status.message}`);
      }
    }
  }
  return { ...all, missing: mesh.missing(stalled), outOfOrder, begunAlthoughDone, refusedAndBegun, alarms };
}

/** Says in a line what was seen. */
export function summaryOf({ confirmed, delivered, stored, unknown, begun, repeated, missing }: Audit): string {
  return (
    `${confirmed} confirmed (${delivered} delivered, ${stored} stored, ${unknown} unknown), ${missing.length} missing; ` +
    `${begun} handlers started, ${repeated} of them again`
  );
}

/** The parts of an audit that must be empty. */
export function faultsOf({ missing, outOfOrder, begunAlthoughDone, refusedAndBegun, alarms }: Audit) {
  return { missing, outOfOrder, begunAlthoughDone, refusedAndBegun, alarms };
}

/** Result of `faultsOf` without faults. */
export const noFaults = { missing: [], outOfOrder: [], begunAlthoughDone: [], refusedAndBegun: [], alarms: [] };

/** Numbers by run whose sends were refused before they were accepted. */
function refusedNumbers(sender: Member, listener: Member): Map<number, number[]> {
  return new Map(
    sender.processes.map(({ journal, options: { run } }) => [
      run,
      journal
        .refresh()
        .rejected.filter(({ topic, failure }) => topic === listener.name && failure.outcome !== "unknown")
        .map(({ number }) => number),
    ]),
  );
}
