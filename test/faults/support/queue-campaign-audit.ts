/**
 * What the journals of the workers say of the campaign of the queue: which handlers ran when, by their own clock, and what that
 * breaks. A handler without an end ran until its process was killed. Nothing here depends on how fast the machine is but the
 * spread of delays, which is only told.
 */
import { existsSync, readFileSync } from "node:fs";
import { type WorkerLine, workerConcurrency } from "./queue-campaign-protocol.js";

/** A process of a worker. */
export interface WorkerRun {
  readonly name: string;
  readonly journal: string;
  /** When it was killed, or had ended. Infinity: it runs. */
  endedAt: number;
}

/** A call of a handler. */
export interface Call {
  readonly worker: string;
  readonly topic: string;
  readonly id: string;
  readonly number: string;
  readonly alone: string | undefined;
  readonly from: number;
  readonly to: number;
  /** `cut`: its process was killed. */
  readonly end: "done" | "failed" | "cut";
}

/** Time from which, and until which, something is so. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** Time in which Postgres is away from a worker, or from all. */
export interface WorkerFault extends Span {
  readonly worker?: string | undefined;
}

/** A limit that was in force: surely not before `from`, and not after `to`. */
export interface LimitSpan extends Span {
  readonly most: number;
}

/** What Postgres has given: a row for each start of a topic with limits. */
export interface Grant {
  readonly id: string;
  readonly at: number;
}

/** A pause that all have heard of at `from`, and that was going to end at `to`. */
export interface Pause extends Span {
  readonly topic: string;
}

/** What a run did. */
export interface RunHistory {
  readonly run: WorkerRun;
  readonly calls: readonly Call[];
  /** When it had what it needs. */
  readonly ready: readonly Span[];
}

export function readRun(run: WorkerRun): RunHistory {
  // A killed process may have begun a line.
  const lines = existsSync(run.journal) ? readFileSync(run.journal, "utf8").split("\n").slice(0, -1) : [];
  const open = new Map<number, Extract<WorkerLine, { kind: "begun" }>>();
  const calls: Call[] = [];
  const ready: Span[] = [];
  let readyFrom: number | undefined;
  let { endedAt } = run;
  const add = (begun: Extract<WorkerLine, { kind: "begun" }>, to: number, end: Call["end"]): void => {
    const { topic, id, number, alone, at: from } = begun;
    calls.push({ worker: run.name, topic, id, number, alone, from, to, end });
  };
  const unready = (at: number): void => {
    if (readyFrom !== undefined) ready.push({ from: readyFrom, to: at });
    readyFrom = undefined;
  };
  for (const text of lines) {
    const line = JSON.parse(text) as WorkerLine;
    if (line.kind === "suicide" || line.kind === "down") endedAt = Math.min(endedAt, line.at);
    else if (line.kind === "health") {
      unready(line.at);
      if (line.ready) readyFrom = line.at;
    } else if (line.kind === "begun") open.set(line.call, line);
    else if (line.kind === "ended") {
      add(open.get(line.call)!, line.at, line.isDone ? "done" : "failed");
      open.delete(line.call);
    }
  }
  unready(endedAt);
  for (const begun of open.values()) add(begun, Math.max(begun.at, endedAt), "cut");
  return { run, calls, ready };
}

/** Calls that ran at a time, though they must not. */
export function notAlone(calls: readonly Call[]): string[] {
  const found: string[] = [];
  const last = new Map<string, Call>();
  for (const call of byStart(calls)) {
    if (call.alone === undefined) continue;
    const before = last.get(call.alone);
    if (before !== undefined && before.to > call.from) {
      found.push(
        `${call.alone}: ${words(call)} beside ${words(before)}, for ${Math.min(before.to, call.to) - call.from} µs`,
      );
    }
    if (before === undefined || before.to < call.to) last.set(call.alone, call);
  }
  return found;
}

/** Starts that were more at a time than the limit when the last of those that ran was given. */
export function tooMany(calls: readonly Call[], limits: readonly LimitSpan[], grants: readonly Grant[]): string[] {
  const givenAt = new Map<string, number[]>();
  for (const { id, at } of grants) givenAt.set(id, [...(givenAt.get(id) ?? []), at]);
  const found: string[] = [];
  let running: Call[] = [];
  for (const call of byStart(calls)) {
    running = [...running.filter(({ to }) => to > call.from), call];
    // What each was given by: the last time before it began.
    const given = running.map(({ id, from }) => Math.max(...(givenAt.get(id) ?? []).filter((at) => at <= from)));
    const last = Math.max(...given);
    const inForce = limits.filter(({ from, to }) => from <= last && last <= to);
    const most = Math.max(...inForce.map((limit) => limit.most));
    if (running.length > most) {
      found.push(
        `${running.length} of ${most}: ${running.map((each, nth) => `${words(each)} given at ${given[nth]}`).join(", ")}`,
      );
    }
  }
  return found;
}

/** Windows in which more was given than the rate allows, and the burst. `perSecond` and `burst` are those of the limits, by their order. */
export function tooFast(
  grants: readonly Grant[],
  limits: readonly (Span & { readonly perSecond: number; readonly burst: number })[],
): string[] {
  const found: string[] = [];
  const starts = grants.map(({ at }) => at).sort((one, other) => one - other);
  for (let first = 0; first < starts.length; first += 1) {
    const from = starts[first]!;
    for (let last = first; last < starts.length; last += 1) {
      const to = starts[last]!;
      const inForce = limits.filter((limit) => limit.from <= to && from <= limit.to);
      const perSecond = Math.max(...inForce.map((limit) => limit.perSecond));
      const burst = Math.max(...inForce.map((limit) => limit.burst));
      const most = Math.floor((perSecond * (to - from)) / 1_000_000 + burst + 1e-6);
      if (last - first + 1 > most) {
        found.push(
          `${last - first + 1} of ${most} (${perSecond}/s, burst ${burst}) within ${to - from} µs from ${from}`,
        );
        break;
      }
      // Nothing later can exceed what this is so far below: a limit is not changed more often.
      if (to - from > 20_000_000) break;
    }
  }
  return found;
}

/** Starts of a topic while it was paused, and all had heard. */
export function inPauses(calls: readonly Call[], pauses: readonly Pause[]): string[] {
  return pauses.flatMap(({ topic, from, to }) =>
    calls
      .filter((call) => call.topic === topic && call.from > from && call.from < to)
      .map((call) => `${words(call)}, in the pause of ${topic} from ${from} to ${to}`),
  );
}

/**
 * How late each began, in milliseconds: for how long at a stretch, since it was due, one worker was ready, had a free place for all of its
 * topics, and was hit by no fault.
 */
export function lateness(
  jobs: readonly { readonly id: string; readonly due: number }[],
  histories: readonly RunHistory[],
  faults: readonly WorkerFault[],
): { readonly id: string; readonly lateMs: number; readonly afterDueMs: number }[] {
  const begun = new Map<string, number>();
  for (const { calls } of histories) {
    for (const { id, from } of calls) begun.set(id, Math.min(begun.get(id) ?? Infinity, from));
  }
  const free = histories.map((history) => freeSpans(history, faults));
  return jobs.flatMap(({ id, due }) => {
    const at = begun.get(id);
    if (at === undefined) return [];
    const longest = Math.max(0, ...free.flat().map(({ from, to }) => Math.min(to, at) - Math.max(from, due)));
    return { id, lateMs: longest / 1_000, afterDueMs: (at - due) / 1_000 };
  });
}

/** When a run was ready, had a free place, and no fault went on. */
function freeSpans({ run, calls, ready }: RunHistory, faults: readonly WorkerFault[]): Span[] {
  const hits = faults.filter(({ worker }) => worker === undefined || worker === run.name);
  const events = [
    ...calls.flatMap(({ from, to }) => [
      { at: from, full: 1, out: 0 },
      { at: to, full: -1, out: 0 },
    ]),
    ...hits.flatMap(({ from, to }) => [
      { at: from, full: 0, out: 1 },
      { at: to, full: 0, out: -1 },
    ]),
    ...ready.flatMap(({ from, to }) => [
      { at: from, full: 0, out: -1 },
      { at: to, full: 0, out: 1 },
    ]),
  ].sort((one, other) => one.at - other.at);
  const spans: Span[] = [];
  let [full, out] = [0, 1];
  let from: number | undefined;
  for (const event of events) {
    full += event.full;
    out += event.out;
    const isFree = full < workerConcurrency && out === 0;
    if (isFree && from === undefined) from = event.at;
    if (!isFree && from !== undefined) {
      spans.push({ from, to: event.at });
      from = undefined;
    }
  }
  return spans;
}

function byStart(calls: readonly Call[]): Call[] {
  return [...calls].sort((one, other) => one.from - other.from);
}

function words({ worker, topic, id, from, to, end }: Call): string {
  return `${topic} ${id} at ${worker} from ${from} to ${to} (${end})`;
}
