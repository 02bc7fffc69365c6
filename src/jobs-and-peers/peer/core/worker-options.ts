/** Options of a worker that needs no peer. */
import { hostname } from "node:os";
import type pg from "pg";
import { checkHelloSenderName } from "../../../../generated/ts/rules/peer/frames.js";
import { checkPeerSettings, type PeerSettingsInput } from "../../../../generated/ts/settings/peer.js";
import {
  checkedSettings,
  checkOptionNames,
  invalidArgument,
  namesOf,
  refuse,
} from "../../../foundation/errors/index.js";
import type { BatchOptions, CheckedRun, HandleOptions, RunOptions } from "./peer-options.js";
import { checkRunOptions, runOptions } from "./peer-options.js";

/** Settings of a {@link Peer} that a worker has, too. */
type WorkerSettingName = "concurrency" | "stopTimeoutMs" | "poolSize";

/** Options of a {@link Worker}. None is required. */
export interface WorkerOptions extends RunOptions, Pick<PeerSettingsInput, WorkerSettingName> {
  /**
   * Name for people to read: who has a job, or had it last. It need not be unique, and nothing can be enqueued for it. Same format as
   * that of a peer. Default: the name of the machine.
   */
  readonly name?: string | undefined;
  /**
   * Pool of node-postgres to use instead of `databaseUrl`. The worker keeps one client of the pool, and uses up to `poolSize` for
   * statements and transactions, so `max` must be at least 2 (3 with transactional handlers). `message.client` is a client of
   * the pool. The worker never ends the pool; end it after the worker has stopped.
   */
  readonly pool?: pg.Pool | undefined;
  /** Default options of all handlers of the worker. */
  readonly defaults?: Omit<WorkerHandleOptions, "transactional"> | undefined;
}

/** Options of a handler of a {@link Worker}. An omitted option has the value from `defaults`. */
export type WorkerHandleOptions<Transactional extends boolean = boolean> = Omit<
  HandleOptions<Transactional>,
  "durable"
>;

/** Options of {@link Worker.handleBatch}. */
export type WorkerBatchOptions<Transactional extends boolean = boolean> = Omit<BatchOptions<Transactional>, "durable">;

/** Validated options of a worker, with defaults filled in. */
export interface CheckedWorkerOptions extends CheckedRun {
  readonly name: string;
}

/** Clients of a user's pool that a worker keeps: one for the queue, which a migration uses before. */
const workerClients = 1;

const known = namesOf<WorkerOptions>({
  name: true,
  concurrency: true,
  stopTimeoutMs: true,
  poolSize: true,
  ...runOptions,
});

/** Validates the options of a new worker. @throws HawserError `invalid_argument` */
export function checkWorkerOptions(options: WorkerOptions): CheckedWorkerOptions {
  if (typeof options !== "object" || options === null)
    throw invalidArgument(`the options of a Worker are ${options === null ? "null" : typeof options}; give an object`);
  checkOptionNames(options, "a Worker", known);
  const { name = hostname() } = options;
  refuse(checkHelloSenderName(name), "name");
  refuseDurable(options.defaults, "defaults.");
  return { ...checkRunOptions(options, checkedSettings(checkPeerSettings(options)), workerClients), name };
}

/** @throws HawserError `invalid_argument` for the option of listeners, which is none of a worker's handlers */
export function refuseDurable(options: object | undefined, prefix = ""): void {
  if ((options as HandleOptions | undefined)?.durable !== true) return;
  const why = "a Worker is in no directory, and what is enqueued waits for it in any case";
  throw invalidArgument(`${prefix}durable true: ${why}; leave it out, or use a Peer for what is sent to the topic`);
}
