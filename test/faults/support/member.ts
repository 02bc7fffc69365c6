/**
 * The members of a mesh and the channels between them, and what their journals say.
 */
import type { MeshProcess } from "./mesh-process.js";

/** A name of the mesh, with its processes, the present one last. */
export interface Member {
  readonly name: string;
  readonly isSender: boolean;
  readonly processes: MeshProcess[];
  /** Epoch of the name in each process of the member, by run. */
  readonly epochs: Map<number, number>;
}

/** A channel from a sender to a listener. */
export interface Channel {
  readonly sender: Member;
  readonly listener: Member;
}

/** Processes whose starts of handlers do not count: their id, and since when. */
export type Stalled = ReadonlyMap<number, number>;

/** The present process of a member. */
export function currentProcess(member: Member): MeshProcess {
  const last = member.processes.at(-1);
  if (last === undefined) throw new Error(`"${member.name}" was not started`);
  return last;
}

/** All starts of handlers of a listener, in the order of time. */
export function begunBy(listener: Member) {
  const all = listener.processes.flatMap((process) => {
    const { pid } = process;
    return process.journal.refresh().begun.map((line) => ({ ...line, pid }));
  });
  return all.sort((one, other) => one.at - other.at);
}

/** All confirmed messages of a channel. */
export function confirmedOn({ sender, listener }: Channel) {
  return sender.processes.flatMap(({ journal, options: { run } }) =>
    journal
      .refresh()
      .confirmed.filter(({ topic }) => topic === listener.name)
      .map((line) => ({ ...line, run })),
  );
}

/** Confirmed messages of a channel whose handler was never started, as 'sender run number listener'. */
export function missingOn(channel: Channel): string[] {
  const { sender, listener } = channel;
  const taken = new Set(begunBy(listener).map(({ sender: from, run, number }) => `${from} ${run} ${number}`));
  return confirmedOn(channel)
    .map(({ run, number }) => `${sender.name} ${run} ${number}`)
    .filter((key) => !taken.has(key))
    .map((key) => `${key} ${listener.name}`);
}

/** When the present processes of a channel had begun and confirmed a message that was sent after `since`; Infinity: not yet. */
export function backAt({ sender, listener }: Channel, since: number): number {
  const { begun } = currentProcess(listener).journal.refresh();
  const { confirmed } = currentProcess(sender).journal.refresh();
  return Math.max(
    firstAfter(begun, since, ({ sender: from, sentAt }) => from === sender.name && sentAt >= since),
    firstAfter(confirmed, since, ({ topic, sentAt }) => topic === listener.name && sentAt >= since),
  );
}

/** State of a channel in words, for error messages. */
export function stateOf(channel: Channel): string {
  const { sender, listener } = channel;
  const begun = begunBy(listener).findLast(({ sender: from }) => from === sender.name);
  const confirmed = confirmedOn(channel).at(-1);
  const statuses = [sender, listener].map((member) => {
    const last = currentProcess(member).journal.statuses.at(-1);
    return `${member.name} said: ${last === undefined ? "nothing" : `${last.status.message} (at ${last.at})`}`;
  });
  const begunAt = `begun ${begun?.run} ${begun?.number} at ${begun?.at}`;
  const confirmedAt = `confirmed ${confirmed?.run} ${confirmed?.number} at ${confirmed?.at}`;
  return `${sender.name} to ${listener.name}: ${begunAt}, ${confirmedAt}; ${statuses.join("; ")}`;
}

/** Time of the first wanted line since then; Infinity if there is none. */
function firstAfter<Line extends { readonly at: number }>(
  lines: readonly Line[],
  since: number,
  isWanted: (line: Line) => boolean,
): number {
  let first = Infinity;
  for (let index = lines.length - 1; index >= 0; index--) {
    const line = lines[index] as Line;
    if (line.at < since) break;
    if (isWanted(line)) first = line.at;
  }
  return first;
}
