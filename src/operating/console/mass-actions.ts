/**
 * Mass actions: retries and discards of many dead letters, which run in the background, batch by batch and in the order of ids, with their progress.
 *
 *     waiting --undoMs--> running --> done
 *        |                   |------> failed
 *        '-----stop----------'------> stopped
 *
 * Only a discard waits, because it cannot be undone once it has begun. A mass action lives in this process: its end leaves the
 * remaining dead letters as they are.
 */
import { randomBytes } from "node:crypto";
import { errorMessageOf, HawserError, withoutPasswords } from "../../foundation/errors/index.js";
import type { Clock } from "../../foundation/runtime/index.js";
import type { DeadLetterOutcome, DeadLetterSelection, DeadLetters } from "../operate/index.js";

export type MassActionKind = "retry" | "discard";

/** State and progress of a mass action. */
export interface MassAction {
  readonly id: string;
  readonly kind: MassActionKind;
  readonly selection: DeadLetterSelection;
  /**
   * Number of dead letters that matched when the action was started, counted up to `examinedDeadLetters` + 1; undefined if
   * counting took too long.
   */
  readonly expected: number | undefined;
  state: "waiting" | "running" | "done" | "stopped" | "failed";
  /** Number by outcome. */
  readonly counts: Partial<Record<DeadLetterOutcome["outcome"], number>>;
  /** Reasons of refusals and their ids, the first of each. */
  readonly refusals: Map<string, number>;
  lastId: number | undefined;
  error: string | undefined;
}

/** Time for which a discard waits before it begins, and can be undone. */
export const undoMs = 10_000;
/** Maximum number of retries and discards that run at once. */
const runningActions = 4;
/** Number of ended retries and discards that are remembered. */
const keptActions = 50;

export class MassActions {
  readonly #letters: DeadLetters;
  readonly #clock: Clock;
  /** Ordered by start, the oldest first. */
  readonly #actions = new Map<string, MassAction>();
  readonly #stops = new Map<string, AbortController>();
  readonly #running = new Set<Promise<void>>();
  #isClosed = false;

  constructor(letters: DeadLetters, clock: Clock) {
    this.#letters = letters;
    this.#clock = clock;
  }

  get(id: string): MassAction | undefined {
    return this.#actions.get(id);
  }

  /** Mass actions, the newest first. */
  get all(): readonly MassAction[] {
    return [...this.#actions.values()].reverse();
  }

  /** Starts a mass action. @throws HawserError `invalid_argument` if `runningActions` are waiting or running, or after {@link close} */
  start(kind: MassActionKind, selection: DeadLetterSelection, expected: number | undefined): MassAction {
    // A discard that waits would keep the process running.
    if (this.#isClosed)
      throw new HawserError("invalid_argument", "the page is being closed, and starts no more retries and discards");
    if (this.#stops.size >= runningActions) {
      throw new HawserError(
        "invalid_argument",
        `${this.#stops.size} retries and discards run already, and at most ${runningActions} may: wait for one to end, or stop it`,
      );
    }
    const action: MassAction = {
      id: randomBytes(9).toString("base64url"),
      kind,
      selection,
      expected,
      state: kind === "discard" ? "waiting" : "running",
      counts: {},
      refusals: new Map(),
      lastId: undefined,
      error: undefined,
    };
    const stop = new AbortController();
    this.#stops.set(action.id, stop);
    this.#actions.set(action.id, action);
    for (const { id } of this.all.slice(keptActions)) if (!this.#stops.has(id)) this.#actions.delete(id);
    const running = this.#run(action, stop.signal).finally(() => {
      this.#stops.delete(action.id);
      this.#running.delete(running);
    });
    this.#running.add(running);
    return action;
  }

  /** Stops an action after its current batch. Has no effect on one that has ended. */
  stop(id: string): void {
    this.#stops.get(id)?.abort();
  }

  /** Stops all actions, and waits for their current batches. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const stop of this.#stops.values()) stop.abort();
    await Promise.all(this.#running);
  }

  async #run(action: MassAction, signal: AbortSignal): Promise<void> {
    try {
      if (action.state === "waiting") await this.#undoTime(signal);
      if (!signal.aborted) {
        action.state = "running";
        const batches = action.kind === "retry" ? this.#letters.retryInBatches : this.#letters.discardInBatches;
        for await (const outcomes of batches(action.selection)) {
          for (const outcome of outcomes) count(action, outcome);
          if (signal.aborted) break;
        }
      }
      action.state = signal.aborted ? "stopped" : "done";
    } catch (error) {
      action.state = "failed";
      action.error = withoutPasswords(errorMessageOf(error));
    }
  }

  #undoTime(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#clock.setTimeout(resolve, undoMs);
      signal.addEventListener("abort", () => {
        cancel();
        resolve();
      });
    });
  }
}

/** Maximum number of reasons that an action remembers. */
const keptRefusals = 20;

function count(action: MassAction, outcome: DeadLetterOutcome): void {
  action.counts[outcome.outcome] = (action.counts[outcome.outcome] ?? 0) + 1;
  action.lastId = outcome.id;
  if (outcome.outcome !== "refused") return;
  const reason = outcome.message.replace(/^dead letter \d+ /, "");
  if (!action.refusals.has(reason) && action.refusals.size < keptRefusals) action.refusals.set(reason, outcome.id);
}
