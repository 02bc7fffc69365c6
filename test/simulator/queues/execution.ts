/** The model of Postgres: runs a step, with faults, and says what is told of it. */
import type { DeadLetterStep, FunctionOutcome, Outcome, Step } from "../../../src/nats/bridge/queue/index.js";
import type { Random } from "../random.js";
import type { Counts } from "../records.js";
import { must, SimulatedMessage, type SimulatedQueue } from "./simulated.js";

const statementTimeoutMs = 1000;

export interface Execution {
  readonly outcome: Outcome;
  readonly durationMs: number;
  /** The function was run, so that it is an attempt. */
  readonly ran: boolean;
}

const error = (code: string, message: string) => ({ code, message });
const overheadMs = 0.5;

export function execute(step: Step, queue: SimulatedQueue, random: Random, counts: Counts): Execution {
  const roll = random.next();
  if (roll < 0.04) return { outcome: { kind: "unavailable" }, durationMs: 1, ran: false };
  if (roll < 0.043) return { outcome: { kind: "deposed" }, durationMs: 1, ran: false };
  if (roll < 0.07) return transient(1);
  if (roll < 0.1) return { outcome: { kind: "session_lost", message: "reset" }, durationMs: 1, ran: true };
  const execution =
    step.kind === "batch"
      ? runBatch(step.messages as SimulatedMessage[], queue, random)
      : write(step as DeadLetterStep);
  if (roll > 0.96) {
    counts.add(execution.outcome.kind === "committed" ? "committed but lost" : "session lost otherwise");
    return { ...execution, outcome: { kind: "session_lost", message: "reset" } };
  }
  return execution;
}

function transient(durationMs: number): Execution {
  return { outcome: { kind: "transient", error: error("40001", "could not serialize") }, durationMs, ran: true };
}

/** Whole, or in groups behind savepoints. */
function runBatch(messages: readonly SimulatedMessage[], queue: SimulatedQueue, random: Random): Execution {
  const size = random.pick([1, 3, Number.POSITIVE_INFINITY]);
  let durationMs = 0;
  let committed = 0;
  while (committed < messages.length) {
    const group = messages.slice(committed, committed + size);
    const { outcome, durationMs: groupMs, ran } = run(group, queue, true);
    durationMs += groupMs;
    if (outcome.kind !== "committed") {
      if (group.length === messages.length || outcome.kind === "session_lost") return { outcome, durationMs, ran };
      const failed = { count: group.length, outcome: outcome as FunctionOutcome };
      return { outcome: { kind: "partly", committed, durationMs, failed }, durationMs, ran };
    }
    committed += group.length;
    // There is no time for more.
    if (random.chance(0.05)) break;
  }
  if (committed < messages.length) return { outcome: { kind: "partly", committed, durationMs }, durationMs, ran: true };
  return { outcome: { kind: "committed", durationMs }, durationMs, ran: true };
}

function run(messages: readonly SimulatedMessage[], queue: SimulatedQueue, inOrder: boolean): Execution {
  let durationMs = overheadMs;
  for (const message of messages) {
    durationMs += queue.costMs;
    must(durationMs < statementTimeoutMs, "a batch is small enough for the statement timeout");
    if (message.nature === "kills its session")
      return { outcome: { kind: "session_lost", message: "terminated" }, durationMs, ran: true };
    if (message.nature === "fails")
      return { outcome: { kind: "failed", error: error("P0001", `bad ${message.number}`) }, durationMs, ran: true };
    if (message.nature === "hangs") {
      const outcome = { kind: "timed_out", error: error("57014", "statement timeout") } as const;
      return { outcome, durationMs: statementTimeoutMs, ran: true };
    }
    if (message.transientRuns > 0) {
      message.transientRuns -= 1;
      return transient(durationMs);
    }
  }
  for (const message of messages) {
    message.commits += 1;
    if (!inOrder || message.commits > 1) continue;
    must(message.number > queue.lastNewCommit, "messages are committed in order");
    queue.lastNewCommit = message.number;
  }
  return { outcome: { kind: "committed", durationMs }, durationMs, ran: true };
}

function write({ message }: DeadLetterStep): Execution {
  if (message instanceof SimulatedMessage) message.deadLettered = true;
  return { outcome: { kind: "committed", durationMs: overheadMs }, durationMs: overheadMs, ran: false };
}
