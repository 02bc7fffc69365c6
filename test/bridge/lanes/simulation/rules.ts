/** The rules: what may be handed out, and what follows from each outcome. */
import type { LaneSettings, Outcome, Step } from "../../../../src/bridge/lanes/index.js";
import type { Execution } from "./postgres.js";
import { must, type SimulatedJob, type SimulatedLane, type SimulatedMessage } from "./simulated.js";

type Partly = Extract<Outcome, { kind: "partly" }>;

/** A step was handed out. */
export function checkStep(step: Step, lane: SimulatedLane, settings: LaneSettings, now: number): void {
  must(!lane.busy, "one step of a lane is out at a time");
  must(!lane.over, "a lane that was stopped or deposed hands out nothing");
  must(now >= lane.pauseFrom, "a lane pauses after what no message is to blame for");
  lane.busy = true;
  lane.waitsForPostgres = false;
  lane.passedOver = 0;
  const oldest = lane.oldest;
  const job = lane.jobs[lane.jobsDone];
  if (oldest?.guilt !== undefined)
    must(step.kind === "bury", "what failed alone is buried before anything else is done");
  else if (job?.message.guilt !== undefined) must(step.kind === "keep", "a retry that failed is written down first");
  if (step.kind === "batch") checkBatch(step.messages as SimulatedMessage[], lane, settings);
  else if (step.kind === "bury") {
    must(step.message === oldest, "the oldest message is buried");
    must(oldest?.guilt === step.error.code, "a message is buried for what it did alone, and once");
    must(step.attempts === oldest?.runs, "a dead letter has the number of attempts");
  } else if (step.kind === "fetch") must(false, "nothing is fetched where nothing was saved");
  else {
    must(step.job === job, "retries are done once, in order");
    if (step.kind === "keep") {
      must(job?.message.guilt === step.error.code, "a retried dead letter is kept for its own error");
      must(step.attempts === job?.message.runs, "a retry adds the number of its attempts");
    } else must(lane.next === undefined || !lane.retriedLast, "retries and batches take turns");
  }
  if (step.kind === "batch" || step.kind === "retry") lane.retriedLast = step.kind === "retry";
}

function checkBatch(messages: readonly SimulatedMessage[], lane: SimulatedLane, settings: LaneSettings): void {
  const count = messages.length;
  must(count > 0 && count <= settings.maxBatchMessages, "a batch has 1 to maxBatchMessages messages");
  must(lane.done + count <= lane.open, "what is held back is not handed out");
  let bytes = 0;
  for (const [index, message] of messages.entries()) {
    must(message === lane.accepted[lane.done + index], "a batch has the oldest messages, in order");
    must(count <= message.mostTogether, "what failed is tried in smaller batches, after a timeout one by one");
    bytes += message.memory;
  }
  must(count === 1 || bytes <= settings.maxBatchBytes, "a batch of several has maxBatchBytes at the most");
  if (lane.repeat !== undefined) must(count === lane.repeat, "a batch that is not to blame is tried again as it was");
  lane.repeat = undefined;
}

/** An outcome is being told. */
export function follow(
  step: Step,
  execution: Execution,
  lane: SimulatedLane,
  settings: LaneSettings,
  now: number,
): void {
  const { outcome } = execution;
  lane.busy = false;
  if (lane.closed) return;
  if (outcome.kind === "deposed") {
    lane.over = true;
    return;
  }
  lane.waitsForPostgres = outcome.kind === "unavailable";
  if (step.kind === "batch") followBatch(step.messages as SimulatedMessage[], execution, lane, settings);
  else if (step.kind === "retry") followRetry(step.job as SimulatedJob, execution, lane, settings);
  else if (outcome.kind === "committed") {
    if (step.kind === "bury") lane.done += 1;
    else lane.jobsDone += 1;
  }
  if (outcome.kind === "partly") followPauses(outcome, lane, settings, now);
  else if (!noPause(step, outcome, lane)) followPause(pauses(step, outcome), lane, settings, now);
}

/** What was committed makes the next pause a short one again; then it is as after a batch of what failed alone. */
function followPauses({ committed, failed }: Partly, lane: SimulatedLane, settings: LaneSettings, now: number): void {
  if (committed > 0) lane.failuresInARow = 0;
  if (failed === undefined) return;
  const isTransient = failed.outcome.kind === "transient";
  if (!isTransient || failed.count === 1) followPause(isTransient, lane, settings, now);
}

function followPause(begins: boolean, lane: SimulatedLane, settings: LaneSettings, now: number): void {
  if (begins) {
    const longest = Math.min(settings.pauseMaxMs, settings.pauseMinMs * 2 ** lane.failuresInARow);
    lane.failuresInARow += 1;
    lane.pauseFrom = now + longest / 2;
    lane.pauseTo = now + longest;
  } else lane.failuresInARow = 0;
}

/**
 * Whether the outcome neither begins a pause nor makes the next one short again: a retry that did not succeed, or a batch
 * that is halved because of what no message is to blame for.
 */
function noPause(step: Step, outcome: Outcome, lane: SimulatedLane): boolean {
  if (step.kind === "batch" && outcome.kind === "transient" && step.messages.length > 1) return true;
  if (step.kind !== "retry" || outcome.kind === "committed" || outcome.kind === "unavailable") return false;
  return outcome.kind !== "transient" || lane.jobs[lane.jobsDone]?.message.guilt !== undefined;
}

function pauses(step: Step, { kind }: Outcome): boolean {
  if (kind === "unavailable" || kind === "transient") return true;
  return kind !== "committed" && (step.kind === "bury" || step.kind === "keep");
}

function followBatch(
  messages: readonly SimulatedMessage[],
  { outcome, ran }: Execution,
  lane: SimulatedLane,
  settings: LaneSettings,
): void {
  if (outcome.kind === "partly") {
    const { committed, failed } = outcome;
    followBatch(
      messages.slice(0, committed),
      { outcome: { kind: "committed", durationMs: 0 }, durationMs: 0, ran },
      lane,
      settings,
    );
    const tried = messages.slice(committed, committed + (failed?.count ?? 0));
    if (failed !== undefined) followBatch(tried, { outcome: failed.outcome, durationMs: 0, ran }, lane, settings);
    return;
  }
  const count = messages.length;
  if (ran) for (const message of messages) message.runs += 1;
  const { kind } = outcome;
  if (kind === "unavailable") lane.repeat = count;
  else if (kind === "committed") lane.done += count;
  else if (count > 1) {
    const most = kind === "timed_out" ? 1 : Math.ceil(count / 2);
    for (const message of messages) message.mostTogether = Math.min(message.mostTogether, most);
  } else if (kind !== "transient") blame(messages[0]!, outcome, settings);
}

function followRetry(
  { message }: SimulatedJob,
  execution: Execution,
  lane: SimulatedLane,
  settings: LaneSettings,
): void {
  const { outcome, ran } = execution;
  if (ran) message.runs += 1;
  if (outcome.kind === "committed") lane.jobsDone += 1;
  else if (outcome.kind === "transient") {
    message.transients += 1;
    if (message.transients === settings.retryTries) message.guilt = outcome.error.code;
  } else blame(message, outcome, settings);
}

/** What happened while the message was alone. */
function blame(message: SimulatedMessage, outcome: Outcome, { sessionLostCode }: LaneSettings): void {
  if (outcome.kind === "failed" || outcome.kind === "timed_out") message.guilt = outcome.error.code;
  else if (outcome.kind === "session_lost" && ++message.lossesAlone === 2) message.guilt = sessionLostCode;
}
