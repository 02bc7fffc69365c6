/**
 * The rules of a queue: which kind of step is next, what follows from the outcome of a step, and how a spill treats
 * messages that were tried. Pure functions of their arguments: `SubscriptionQueue` has the state and applies them.
 */
import type { Part } from "./message-list.js";
import type { BatchStep, DeadLetterStep, FunctionError, Outcome, QueueSettings, Step } from "./steps.js";

/** Rules of a {@link SubscriptionQueue}. The simulator replaces one at a time by a wrong one, which it must notice. */
export interface QueueRules {
  readonly nextKind: typeof nextKind;
  readonly afterBatch: typeof afterBatch;
  readonly afterDeadLetter: typeof afterDeadLetter;
  readonly batchLimit: typeof batchLimit;
  readonly firstToSpill: typeof firstToSpill;
  readonly dividedIds: typeof dividedIds;
}

/** State of a queue on which its next step depends. */
export interface QueueState {
  readonly isRunning: boolean;
  /** True if a dead letter has to be written. */
  readonly hasDeadLetter: boolean;
  /** Number of messages in the page, which precede the saved messages. */
  readonly pageLength: number;
  /** True if the table may have messages, which precede the offered ones. */
  readonly hasSaved: boolean;
  /** Number of offered messages that may run. */
  readonly offered: number;
  /** True if nothing may run that was not in memory when the queue was told to hold. */
  readonly isHeld: boolean;
  /** Messages that are being written to the table. */
  readonly spilling: "page" | "offered" | undefined;
}

/** Kind of the next step; undefined if an event must come first. */
function nextKind(state: QueueState): Step["kind"] | undefined {
  if (state.isRunning) return undefined;
  // No message overtakes one that becomes a dead letter.
  if (state.hasDeadLetter) return "dead_letter";
  const hasBatch = state.pageLength > 0 || (!state.hasSaved && state.spilling === undefined && state.offered > 0);
  // While the page is being written, a fetch could read messages of it that are already done.
  const mayFetch = state.hasSaved && !state.isHeld && state.spilling !== "page";
  return hasBatch ? "batch" : mayFetch ? "fetch" : undefined;
}

/** What a queue does after a batch, or after an attempt to write a dead letter. */
export interface Consequence {
  /** Number of messages at the front that are done. */
  readonly done: number;
  /** Parts in which messages behind those run again, in order. Messages in no part count as never tried. */
  readonly again: readonly Part[];
  /** Dead letter that has to be written: of the first message that is not done. */
  readonly deadLetter: Omit<DeadLetterStep, "savedId"> | undefined;
  /** True if the messages were divided into two parts to find the one that fails. */
  readonly isBisected: boolean;
  /** True if the next pause is short: messages were committed, or failed because of one of them. */
  readonly hasProgressed: boolean;
  /** True if the queue pauses before its next step. */
  readonly pauses: boolean;
}

/** A batch that has ended. */
export interface BatchRun {
  readonly step: BatchStep;
  readonly part: Part;
  readonly settings: QueueSettings;
}

/** Outcomes of a step that may run again. After the others, the queue stops, or has fetched messages. */
export type RunOutcome = Exclude<Outcome, { readonly kind: "deposed" | "fetched" | "gone" }>;

const nothing: Consequence = {
  done: 0,
  again: [],
  deadLetter: undefined,
  isBisected: false,
  hasProgressed: false,
  pauses: false,
};

/**
 * What follows from the outcome of a batch. Only a message that ran alone becomes a dead letter. A batch that fails for
 * a reason that no message causes is halved, too, so that in the end only the message that has to wait, such as for a
 * lock, delays those behind it.
 */
export function afterBatch(run: BatchRun, outcome: RunOutcome): Consequence {
  const { part, settings } = run;
  const tried = { ...part, attempts: part.attempts + 1 };
  const isAlone = part.count === 1;
  const progress = { ...nothing, hasProgressed: true };
  switch (outcome.kind) {
    case "committed":
      return { ...progress, done: part.count };
    case "partly":
      return afterPart(run, outcome);
    case "unavailable":
      return { ...nothing, again: [part], pauses: true };
    case "transient":
      return isAlone ? { ...nothing, again: [tried], pauses: true } : { ...nothing, ...halved(tried) };
    case "failed":
      return { ...progress, ...(isAlone ? { deadLetter: deadLetterOf(run, outcome.error) } : halved(tried)) };
    case "timed_out":
      if (isAlone) return { ...progress, deadLetter: deadLetterOf(run, outcome.error) };
      // In halves, a message that hangs would cost one timeout for each halving.
      return { ...progress, again: [{ ...tried, isOneByOne: true }] };
    case "session_lost":
      if (!isAlone) return { ...progress, ...halved(tried) };
      // An operator may have ended the first session, or it may have been lost after the commit.
      if (part.losses === 0) return { ...progress, again: [{ ...tried, losses: 1 }] };
      return { ...progress, deadLetter: deadLetterOf(run, sessionLostTwice(settings, outcome.message)) };
  }
}

/** The committed messages are done, the failed ones are treated like a batch of their own, and the rest follows them. */
function afterPart(run: BatchRun, { committed, failed }: Extract<Outcome, { readonly kind: "partly" }>): Consequence {
  const { step, part } = run;
  const tried = failed?.count ?? 0;
  const rest = { ...part, count: part.count - committed - tried };
  const untried = rest.count > 0 && part.attempts > 0 ? [rest] : [];
  const hasProgressed = committed > 0;
  if (failed === undefined) return { ...nothing, done: committed, again: untried, hasProgressed };
  const messages = step.messages.slice(committed, committed + tried);
  const after = afterBatch({ ...run, step: { ...step, messages }, part: { ...part, count: tried } }, failed.outcome);
  return {
    ...after,
    done: committed,
    again: [...after.again, ...untried],
    hasProgressed: hasProgressed || after.hasProgressed,
  };
}

function halved(part: Part): Pick<Consequence, "again" | "isBisected"> {
  const left = part.count >> 1;
  return {
    again: [
      { ...part, count: left },
      { ...part, count: part.count - left },
    ],
    isBisected: true,
  };
}

function deadLetterOf({ step, part }: BatchRun, error: FunctionError): Consequence["deadLetter"] {
  const { subscription, messages } = step;
  return { kind: "dead_letter", subscription, message: messages[0]!, error, attempts: part.attempts + 1 };
}

/** Error of a message that lost two sessions while it ran alone. */
function sessionLostTwice({ sessionLostCode }: QueueSettings, message: string): FunctionError {
  return {
    code: sessionLostCode,
    message: `The database session ended twice while the function ran for this message alone: ${message}`,
  };
}

/** The step is repeated until the dead letter is written: otherwise the message would be lost or overtaken. */
function afterDeadLetter(step: DeadLetterStep, outcome: RunOutcome): Consequence {
  if (outcome.kind === "committed") return { ...nothing, done: 1, hasProgressed: true };
  return { ...nothing, deadLetter: step, pauses: true };
}

/**
 * Limit of messages in the next batch, adapted to the outcome of the last one. The first batch has a limit of one.
 *
 * The limit doubles with each full batch that commits, so it can reach a thousand after ten batches. It never exceeds
 * the number that would take `batchTargetMs` at the speed of the last batch. That is far below the statement timeout,
 * because a batch that times out is wasted work. A dead letter halves the limit: bisection costs up to two transactions
 * per message, so a function that always fails should get its messages one by one.
 */
export function batchLimit(limit: number, run: BatchRun, outcome: RunOutcome, { deadLetter }: Consequence): number {
  const { part, settings } = run;
  const failed = outcome.kind === "partly" ? outcome.failed?.outcome : outcome;
  let next = limit;
  if (outcome.kind === "committed") {
    const atSpeed = (part.count * settings.batchTargetMs) / Math.max(outcome.durationMs, 0.001);
    next = Math.min(part.count >= limit ? limit * 2 : limit, atSpeed);
  }
  // A smaller batch may succeed. Only new batches count: halves of a batch would shrink the next ones far below a size
  // that succeeds.
  if (outcome.kind === "transient" && part.attempts === 0) next = Math.min(limit, part.count / 2);
  // A timeout disproves the measured speed.
  if (failed?.kind === "timed_out") next = 1;
  if (deadLetter !== undefined) next /= 2;
  return Math.min(settings.maxBatchMessages, Math.max(1, Math.floor(next)));
}

/**
 * Number of offered messages that a spill writes first, as a page: those that run or become a dead letter, so that the
 * table never has later messages without them.
 *
 * @param tried number of messages that run or become a dead letter
 */
function firstToSpill({ pageLength }: QueueState, tried: number): number {
  return pageLength === 0 ? tried : 0;
}

/**
 * Divides the ids of a page that was written: those of messages that were finished meanwhile, which are to be deleted,
 * and those of messages that are still in the page.
 */
function dividedIds(savedIds: readonly bigint[], finished: number): readonly [readonly bigint[], readonly bigint[]] {
  return [savedIds.slice(0, finished), savedIds.slice(finished)];
}

export const queueRules: QueueRules = { nextKind, afterBatch, afterDeadLetter, batchLimit, firstToSpill, dividedIds };
