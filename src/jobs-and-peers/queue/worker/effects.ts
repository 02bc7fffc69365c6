/** Effects that a worker of the queue requests, and the parts of its process that it uses. Each call returns at once. */
import type { HawserError } from "../../../foundation/errors/index.js";
import type { Clock, Logger } from "../../../foundation/runtime/index.js";
import type { DeadMessage } from "../../channel/index.js";
import type { Attempts } from "../../handlers/attempts.js";
import type { HandlingHost } from "../../handlers/handling-host.js";
import type { QueuedMessage } from "../../store/index.js";
import type { LeasedTurn } from "./leased-messages.js";
import type { Reply, StatementSession } from "./statements.js";

/** Worker of a term that is over, with which the next one goes on. */
export interface LeftWorker {
  readonly worker: bigint;
  /** Server on which it was opened: another one does not know it. */
  readonly server: string | undefined;
  /** Id under which the next term goes on with it: the same again if the store has not answered. */
  readonly nextId: bigint;
}

export interface OpenRequest {
  readonly topics: readonly string[];
  /** Worker to go on with, if the store still has it, and the messages that run since; undefined: there is none. */
  readonly left: LeftWorker | undefined;
  readonly running: readonly QueuedMessage[];
  /** Worker that ends if another one is opened; undefined for the first of this process. */
  readonly replaces: bigint | undefined;
}

export interface OpenedWorker {
  readonly worker: bigint;
  /** Ranks of the running messages that it still has; undefined for a new worker. */
  readonly kept: ReadonlySet<bigint> | undefined;
}

/** Handlers, limits and slots of the process: in memory, so that reading them is no effect. */
type Handling = Pick<HandlingHost, "handlers" | "dispatcher" | "quarantine">;

export interface WorkerEffects extends Handling, StatementSession {
  readonly host: Pick<HandlingHost, "isPaused" | "handlersChanged">;
  readonly attempts: Pick<Attempts, "cancel" | "isCancelled">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Time in ms without a beat after which the worker counts as gone. */
  readonly leaseMs: number;
  /** Interval of beats while the worker has no messages; undefined: as while it has some. */
  readonly idleBeatMs: number | undefined;
  /** Opens the session of the queue, which tells the machine of its events from now on. */
  openSession(): void;
  /** Goes on with a worker, or opens one. */
  openWorker(request: OpenRequest, reply: Reply<OpenedWorker>): void;
  /** Ends a worker. Without an answer, it ends by its silence. */
  closeWorker(worker: bigint): void;
  /** Makes an id for a worker: a random integer below 2^53. */
  newWorkerId(): bigint;
  /** A message was taken. */
  received(message: QueuedMessage): void;
  /** Starts the handler of a message. Its end is told to `turns.ended` of the machine: before this returns, if it is known at once. */
  call(turn: LeasedTurn): void;
  /** Calls back before the next event, when all that runs now has returned. */
  afterThis(callback: () => void): void;
  /** Calls back when the events that are here have been processed. */
  soon(callback: () => void): void;
  /** No handler runs any more. */
  idle(): void;
  /** A statement has failed. */
  storeFailed(error: HawserError): void;
  /** A message is a dead letter. */
  gaveUp(message: QueuedMessage, dead: Omit<DeadMessage, "message" | "failures">): void;
}
