/**
 * The audit of a mesh after the faults have ended and everything has drained: the ledger that its journals are.
 */
import { audit, type Done, type Sent } from "./ledger.js";
import type { Channel, Stalled } from "./member.js";
import type { Mesh } from "./mesh.js";

/** Outcomes of all messages of a mesh. */
export interface MeshAudit {
  /** All of them must be empty. */
  readonly findings: {
    readonly lost: readonly string[];
    readonly stray: readonly string[];
    readonly late: readonly string[];
    /** Starts for messages that were done then. */
    readonly begunAlthoughDone: readonly string[];
    /** Names that were lost, and messages that were nowhere. */
    readonly alarms: readonly string[];
  };
  readonly delivered: number;
  readonly stored: number;
  /** Rejected with an unknown outcome. */
  readonly unknown: number;
  /** Handlers started for a message for which one was started before. */
  readonly repeated: number;
  /** Says in a line what was seen. */
  readonly summary: string;
}

/**
 * Looks at everything. `stalled` are processes that lost their name, by their id, and since when: what their handlers began
 * from then on counts for nothing, since their successors begin it again.
 */
export function auditMesh(mesh: Mesh, stalled: Stalled = new Map()): MeshAudit {
  const sent: Sent[] = [];
  const done: Done[] = [];
  const begunAlthoughDone: string[] = [];
  const outcomes = { delivered: 0, stored: 0 };
  for (const channel of mesh.channels) {
    const { sender, listener } = channel;
    for (const { outcome } of mesh.confirmed(sender, listener)) {
      if (outcome === "delivered" || outcome === "stored") outcomes[outcome] += 1;
    }
    const begun = mesh
      .begun(listener)
      .filter(({ sender: from, pid, at }) => from === sender.name && at < (stalled.get(pid) ?? Infinity));
    const runs = sentBy(mesh, channel, begun);
    sent.push(...runs.flatMap(({ messages }) => messages));
    for (const { run, number, at } of begun) {
      const id = `${sender.name} ${run} ${number} ${listener.name}`;
      done.push({ consumer: listener.name, id });
      const epoch = sender.epochs.get(run);
      if (epoch === undefined) throw new Error(`the epoch of run ${run} of "${sender.name}" is not known`);
      const withdrawn = runs.find((each) => each.run === run)?.withdrawn ?? new Set<number>();
      // A refused send was given no number, so that those behind it are one place further ahead.
      const place = number - [...withdrawn].filter((each) => each < number).length;
      const name = `${sender.name}:${sender.name}:${listener.name}`;
      if (mesh.cursors.wasDone(name, epoch, place, at)) begunAlthoughDone.push(id);
    }
  }
  const { twice, ...findings } = audit(sent, done);
  const alarms: string[] = [];
  let unknown = 0;
  for (const process of mesh.members.flatMap(({ processes }) => processes)) {
    const { rejected, statuses } = process.journal.refresh();
    unknown += rejected.filter(({ failure }) => failure.outcome === "unknown").length;
    for (const { status } of statuses) {
      const isAlarming = status.kind === "gap" || status.kind === "name_lost" || status.kind === "dead_letter";
      if (isAlarming && !stalled.has(process.pid))
        alarms.push(`${process.options.peer.name}: ${status.kind} ${status.message}`);
    }
  }
  const { delivered, stored } = outcomes;
  return {
    findings: { ...findings, begunAlthoughDone, alarms },
    ...{ delivered, stored, unknown },
    repeated: twice.length,
    summary:
      `${delivered} delivered, ${stored} stored, ${unknown} unknown, ${findings.lost.length} lost; ` +
      `${done.length} handlers started, ${twice.length} of them again`,
  };
}

/**
 * What the processes of a sender have sent to a listener. All numbers of a process are one lane without a hole: those before one
 * that was begun must have been begun, too, whatever the sender knows of them.
 */
function sentBy(
  mesh: Mesh,
  { sender, listener }: Channel,
  begun: readonly { readonly run: number; readonly number: number }[],
) {
  const confirmed = mesh.confirmed(sender, listener);
  return sender.processes.map(({ journal, options: { run } }) => {
    const withdrawn = new Set(
      journal
        .refresh()
        .rejected.filter(({ topic, failure }) => topic === listener.name && failure.outcome !== "unknown")
        .map(({ number }) => number),
    );
    const sure = new Set(confirmed.filter((line) => line.run === run).map(({ number }) => number));
    const reached = begun.reduce((most, line) => (line.run === run ? Math.max(most, line.number) : most), 0);
    const last = [...sure].reduce((most, number) => Math.max(most, number), reached);
    const messages = Array.from({ length: last }, (_, index): Sent => {
      const number = index + 1;
      const isSure = number <= reached || sure.has(number);
      return {
        id: `${sender.name} ${run} ${number} ${listener.name}`,
        consumers: [listener.name],
        lane: `${sender.name} to ${listener.name}`,
        outcome: withdrawn.has(number) ? "withdrawn" : isSure ? "confirmed" : "unknown",
      };
    });
    return { run, withdrawn, messages };
  });
}
