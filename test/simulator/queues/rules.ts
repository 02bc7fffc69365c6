/** The rules: what may be handed out, and what follows from each outcome. */
import type { Outcome, QueueSettings, Step } from "../../../src/nats/bridge/queue/index.js";
import type { Execution } from "./execution.js";
import { must, type SimulatedMessage, type SimulatedQueue } from "./simulated.js";

type Partly = Extract<Outcome, { kind: "partly" }>;

/** A step was handed out. */
export function checkStep(step: Step, queue: SimulatedQueue, settings: QueueSettings, now: number): void {
  must(!queue.busy, "one step of a queue is out at a time");
  must(!queue.over, "a queue that was stopped or deposed hands out nothing");
  must(now >= queue.pauseFrom, "a queue pauses after what no message is to blame for");
  queue.busy = true;
  queue.waitsForPostgres = false;
  queue.passedOver = 0;
  const oldest = queue.oldest;
  if (oldest?.guilt !== undefined)
    must(step.kind === "dead_letter", "what failed alone is deadLettered before anything else is done");
  if (step.kind === "batch") checkBatch(step.messages as SimulatedMessage[], queue, settings);
  else if (step.kind === "dead_letter") {
    must(step.message === oldest, "the oldest message is deadLettered");
    must(oldest?.guilt === step.error.code, "a message is deadLettered for what it did alone, and once");
    must(step.attempts === oldest?.runs, "a dead letter has the number of attempts");
  } else must(false, "nothing is fetched where nothing was saved");
}

function checkBatch(messages: readonly SimulatedMessage[], queue: SimulatedQueue, settings: QueueSettings): void {
  const count = messages.length;
  must(count > 0 && count <= settings.maxBatchMessages, "a batch has 1 to maxBatchMessages messages");
  must(queue.done + count <= queue.open, "what is held back is not handed out");
  let bytes = 0;
  for (const [index, message] of messages.entries()) {
    must(message === queue.accepted[queue.done + index], "a batch has the oldest messages, in order");
    must(count <= message.mostTogether, "what failed is tried in smaller batches, after a timeout one by one");
    bytes += message.memory;
  }
  must(count === 1 || bytes <= settings.maxBatchBytes, "a batch of several has maxBatchBytes at the most");
  if (queue.repeat !== undefined) must(count === queue.repeat, "a batch that is not to blame is tried again as it was");
  queue.repeat = undefined;
}

/** An outcome is being told. */
export function follow(
  step: Step,
  execution: Execution,
  queue: SimulatedQueue,
  settings: QueueSettings,
  now: number,
): void {
  const { outcome } = execution;
  queue.busy = false;
  if (queue.closed) return;
  if (outcome.kind === "deposed") {
    queue.over = true;
    return;
  }
  queue.waitsForPostgres = outcome.kind === "unavailable";
  if (step.kind === "batch") {
    followBatch(step.messages as SimulatedMessage[], execution, queue, settings);
  } else if (outcome.kind === "committed") {
    queue.done += 1;
  }
  if (outcome.kind === "partly") followPauses(outcome, queue, settings, now);
  else if (!noPause(step, outcome)) followPause(pauses(step, outcome), queue, settings, now);
}

/** Follows the pauses: a commit makes the next pause short again, and so does a batch of messages that failed alone. */
function followPauses(
  { committed, failed }: Partly,
  queue: SimulatedQueue,
  settings: QueueSettings,
  now: number,
): void {
  if (committed > 0) queue.failuresInARow = 0;
  if (failed === undefined) return;
  const isTransient = failed.outcome.kind === "transient";
  if (!isTransient || failed.count === 1) followPause(isTransient, queue, settings, now);
}

function followPause(begins: boolean, queue: SimulatedQueue, settings: QueueSettings, now: number): void {
  if (begins) {
    const longest = Math.min(settings.batchPauseMaxMs, settings.batchPauseMinMs * 2 ** queue.failuresInARow);
    queue.failuresInARow += 1;
    queue.pauseFrom = now + longest / 2;
    queue.pauseTo = now + longest;
  } else queue.failuresInARow = 0;
}

/**
 * Whether the outcome neither begins a pause nor makes the next one short again: a batch that is halved because of what no
 * message is to blame for.
 */
function noPause(step: Step, outcome: Outcome): boolean {
  return step.kind === "batch" && outcome.kind === "transient" && step.messages.length > 1;
}

function pauses(step: Step, { kind }: Outcome): boolean {
  if (kind === "unavailable" || kind === "transient") return true;
  return kind !== "committed" && step.kind === "dead_letter";
}

function followBatch(
  messages: readonly SimulatedMessage[],
  { outcome, ran }: Execution,
  queue: SimulatedQueue,
  settings: QueueSettings,
): void {
  if (outcome.kind === "partly") {
    const { committed, failed } = outcome;
    followBatch(
      messages.slice(0, committed),
      { outcome: { kind: "committed", durationMs: 0 }, durationMs: 0, ran },
      queue,
      settings,
    );
    const tried = messages.slice(committed, committed + (failed?.count ?? 0));
    if (failed !== undefined) followBatch(tried, { outcome: failed.outcome, durationMs: 0, ran }, queue, settings);
    return;
  }
  const count = messages.length;
  if (ran) for (const message of messages) message.runs += 1;
  const { kind } = outcome;
  if (kind === "unavailable") queue.repeat = count;
  else if (kind === "committed") queue.done += count;
  else if (count > 1) {
    const most = kind === "timed_out" ? 1 : Math.ceil(count / 2);
    for (const message of messages) message.mostTogether = Math.min(message.mostTogether, most);
  } else if (kind !== "transient") blame(messages[0]!, outcome, settings);
}

/** Outcome while the message was alone. */
function blame(message: SimulatedMessage, outcome: Outcome, { sessionLostCode }: QueueSettings): void {
  if (outcome.kind === "failed" || outcome.kind === "timed_out") message.guilt = outcome.error.code;
  else if (outcome.kind === "session_lost" && ++message.lossesAlone === 2) message.guilt = sessionLostCode;
}
