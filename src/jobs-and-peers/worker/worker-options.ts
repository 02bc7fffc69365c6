/** Options of a worker, of its run and its handlers. A peer has those of the run and of handlers, too. */
import { hostname } from "node:os";
import type pg from "pg";
import { checkHelloSenderName } from "../../../generated/ts/rules/peer/frames.js";
import {
  type BatchSettings,
  type BatchSettingsInput,
  batchSettingsDefaults,
  checkBatchSettings,
  checkHandlerSettings,
  checkPeerSettings,
  checkRetrySettings,
  type HandlerSettingsInput,
  handlerSettingsDefaults,
  type PeerSettings,
  type PeerSettingsInput,
  peerSettingsDefaults,
  protocolConstants,
  type RetrySettingsInput,
  retrySettingsDefaults,
  tuningSettingsDefaults,
} from "../../../generated/ts/settings/peer.js";
import {
  checkedSettings,
  checkOptionNames,
  invalidArgument,
  namesOf,
  refuse,
  unknownOption,
} from "../../foundation/errors/index.js";
import type { Logger } from "../../foundation/runtime/index.js";
import { checkPool, urlsOrEnvironment } from "../../foundation/sql-clients/index.js";
import { type HandlingSettings, policyOf } from "../handlers/handling-settings.js";
import { ConcurrencyLimit } from "../handlers/limits/concurrency-limit.js";
import type { SendOptions } from "../handlers/message.js";

/** Connection and process of a {@link Peer} or {@link Worker}. */
export interface RunOptions {
  /**
   * Postgres connection URI. Default: the environment variable `HAWSER_DATABASE_URL`; if that is not set, the `PG*`
   * variables of libpq.
   */
  readonly databaseUrl?: string | undefined;
  /**
   * Direct connection URI of the same database. Required if `databaseUrl` or `pool` leads to a transaction pooler;
   * without it, an address of a pooler is rejected (`transaction_pooler`). Default: `HAWSER_SESSION_URL`, which is
   * ignored if `databaseUrl` or `pool` is given.
   */
  readonly sessionUrl?: string | undefined;
  /** Receiver of log entries, such as a pino logger. Default: no logging. */
  readonly logger?: Logger | undefined;
  /** Stops a run on SIGINT, SIGTERM or SIGHUP; a second signal ends the process. Default: false. */
  readonly stopOnSignals?: boolean | undefined;
}

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

/** Options of a handler. An omitted option has the value from `defaults` of the peer. */
export interface HandleOptions<Transactional extends boolean = boolean> extends Omit<HandlerSettingsInput, "group"> {
  /**
   * Handles each message in a transaction, which the handler gets as `message.client`. Its commit also ends the
   * message. Default: false.
   */
  readonly transactional?: Transactional | undefined;
  /** Retry policy for messages whose handler fails. */
  readonly retry?: RetrySettingsInput | undefined;
  /**
   * Group that the peer is a member of: 1 to 255 bytes, without ':' and control characters; `true` means `"default"`.
   * If all listeners of a topic are group members, each message goes to a member with free capacity instead of to the
   * next listener in turn. Members of a group take over the stored messages of an absent member. A message that is
   * enqueued for all listeners goes to one member of each group. All topics of a peer have the same group. Default: no
   * group.
   */
  readonly group?: boolean | string | undefined;
}

/** Options of {@link Peer.handleBatch}. */
export interface BatchOptions<Transactional extends boolean = boolean>
  extends HandleOptions<Transactional>,
    BatchSettingsInput {}

/** Options of a handler of a {@link Worker}. An omitted option has the value from `defaults`. */
export type WorkerHandleOptions<Transactional extends boolean = boolean> = Omit<
  HandleOptions<Transactional>,
  "durable"
>;

/** Options of {@link Worker.handleBatch}. */
export type WorkerBatchOptions<Transactional extends boolean = boolean> = Omit<BatchOptions<Transactional>, "durable">;

/** Options of {@link Peer.stop} and {@link Worker.stop}. */
export interface StopOptions {
  /** Time limit of the stop, in milliseconds. Default: the setting `stopTimeoutMs`. */
  readonly timeoutMs?: number | undefined;
}

/** Validated options that a peer and a worker have, with defaults filled in. */
export interface CheckedRun {
  readonly databaseUrl: string | undefined;
  readonly pool: pg.Pool | undefined;
  readonly sessionUrl: string | undefined;
  readonly settings: PeerSettings;
  /** True if the pool grows with the `concurrency` of transactional handlers. */
  readonly growsPool: boolean;
  readonly stopOnSignals: boolean;
  readonly defaults: Omit<HandleOptions, "transactional">;
  /** Settings of a handler without its own options. */
  readonly handling: HandlingSettings;
}

/** Validated options of a worker, with defaults filled in. */
export interface CheckedWorkerOptions extends CheckedRun {
  readonly name: string;
}

/** Clients of a user's pool that a worker keeps: one for the queue, which a migration uses before. */
const workerClients = 1;

/** Names of the options that a peer and a worker have. */
const runOptions = {
  databaseUrl: true,
  pool: true,
  sessionUrl: true,
  logger: true,
  stopOnSignals: true,
  defaults: true,
} as const;

const workerOptions = namesOf<WorkerOptions>({
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
  checkOptionNames(options, "a Worker", workerOptions);
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

/** @param keptClients number of clients of a pool that the process keeps @throws HawserError `invalid_argument` */
export function checkRunOptions(
  options: RunOptions & {
    readonly pool?: pg.Pool | undefined;
    readonly poolSize?: number | undefined;
    readonly defaults?: CheckedRun["defaults"] | undefined;
  },
  checked: PeerSettings,
  keptClients: number,
): CheckedRun {
  const { databaseUrl, pool, sessionUrl, stopOnSignals = false, defaults = {} } = options;
  if (typeof stopOnSignals !== "boolean") {
    throw invalidArgument(`stopOnSignals ${String(stopOnSignals)}: must be true or false`);
  }
  const urls = urlsOrEnvironment({ databaseUrl, pool, sessionUrl });
  const kept = sessionUrl === undefined ? keptClients : 0;
  const poolSize = pool === undefined ? checked.poolSize : Math.min(checked.poolSize, checkPool(pool, kept));
  checkKnownOptions(defaults, "defaults");
  return {
    ...urls,
    pool,
    settings: { ...checked, poolSize },
    growsPool: pool === undefined && options.poolSize === undefined,
    stopOnSignals,
    defaults,
    handling: { ...handlingOf(defaults, "defaults."), limit: undefined },
  };
}

function groupName(group: HandleOptions["group"]): string | undefined {
  if (group === true) return protocolConstants.defaultGroup;
  return group === false ? undefined : group;
}

/** Merges options: a property of `given` that is not undefined overrides the one of `defaults`. */
function merged<Options extends object>(defaults: Options | undefined, given: Options | undefined): Options {
  const set = Object.entries(given ?? {}).filter(([, value]) => value !== undefined);
  return { ...defaults, ...(Object.fromEntries(set) as Options) };
}

/** @param prefix prefix of the option names in errors @throws HawserError `invalid_argument` */
function handlingOf({ retry, group, ...given }: HandleOptions, prefix = ""): HandlingSettings {
  checkKnownOptions(retry, "retry");
  const checked = checkedSettings(checkHandlerSettings({ ...given, group: groupName(group) }), prefix);
  const retrySettings = checkedSettings(checkRetrySettings(retry ?? {}), `${prefix}retry.`);
  const { concurrency, ...settings } = checked;
  const limit = concurrency === undefined ? undefined : new ConcurrencyLimit(concurrency);
  return { ...settings, retry: policyOf(retrySettings), limit, batch: undefined };
}

/** Validates the options of a handler. @throws HawserError `invalid_argument` */
export function checkHandleOptions(
  options: HandleOptions,
  { defaults, settings, pool }: Pick<CheckedRun, "defaults" | "settings" | "pool">,
  of: "a handler" | "a handler of requests" = "a handler",
): HandlingSettings {
  checkKnownOptions(options, of);
  checkKnownOptions(options.retry, "retry");
  const retry = merged(defaults.retry, options.retry);
  const handling = handlingOf({ ...merged<HandleOptions>(defaults, options), retry });
  if (handling.transactional) checkPoolSize(settings, pool);
  return handling;
}

/** Validates the options of a batch handler. @throws HawserError `invalid_argument` */
export function checkBatchOptions(
  options: BatchOptions,
  peer: Pick<CheckedRun, "defaults" | "settings" | "pool">,
): { readonly handling: HandlingSettings; readonly batch: BatchSettings } {
  checkKnownOptions(options, "a handler of batches");
  const { maxMessages, maxBytes, waitMs, ...handling } = options;
  const concurrency = options.concurrency ?? peer.defaults.concurrency;
  const batch = checkedSettings(checkBatchSettings({ maxMessages, maxBytes, waitMs, concurrency }));
  return { handling: { ...checkHandleOptions(handling, peer), limit: undefined }, batch };
}

function checkPoolSize({ poolSize }: PeerSettings, pool: pg.Pool | undefined): void {
  if (poolSize >= 2) return;
  throw invalidArgument(
    pool === undefined
      ? `poolSize ${poolSize}: transactional handlers need one connection besides their own; set poolSize to at least 2`
      : `pool has max ${pool.options.max}: with poolSize, ${poolSize} client is left for statements, and transactional ` +
          "handlers need one besides their own; raise max of the pool, or poolSize",
  );
}

const handlerOptions = { ...handlerSettingsDefaults, retry: true } as const;
const { transactional: _, ...defaultsOptions } = handlerOptions;

/** Names of the options of a {@link Peer}. */
export const peerOptions = {
  name: true,
  topic: true,
  listen: true,
  advertise: true,
  tls: true,
  tuning: true,
  ...runOptions,
  ...peerSettingsDefaults,
} as const;

/** Names of options that a peer and a worker have, by what they are given to. */
const known = {
  defaults: Object.keys(defaultsOptions),
  "a send": namesOf<SendOptions>({
    delivery: true,
    headers: true,
    signal: true,
    key: true,
    messageId: true,
    ttlMs: true,
    format: true,
  }),
  "a handler": namesOf<HandleOptions>(handlerOptions),
  "a handler of requests": Object.keys(handlerSettingsDefaults),
  "a handler of batches": namesOf<BatchOptions>({ ...handlerOptions, ...batchSettingsDefaults }),
  retry: Object.keys(retrySettingsDefaults),
  stop: namesOf<StopOptions>({ timeoutMs: true }),
} as const;

/** Names of options, with the right place for one that was given elsewhere. */
const places: readonly (readonly [names: readonly string[], place: string])[] = [
  [Object.keys(peerOptions), "an option of the Peer"],
  [Object.keys(tuningSettingsDefaults), "an option of the Peer under tuning"],
  [known["a handler"], "an option of handle, or of the Peer under defaults"],
];

/** Options of an enqueue that users look for in a send. */
const sqlOptions = ["transaction", "deliverAt", "delayMs"];

/** @throws HawserError `invalid_argument` for the first unknown option name, with the closest known name */
export function checkKnownOptions(options: object | undefined, of: keyof typeof known): void {
  if (options !== null || of !== "a send") refuseUnknown(options, of, known[of]);
}

/** @throws HawserError `invalid_argument` for the first option name that is not in `names`, with the closest one and its place */
export function refuseUnknown(options: object | undefined, of: string, names: readonly string[]): void {
  if (options === undefined) return;
  const problem = unknownOption(options, of, names);
  if (problem === undefined) return;
  if (of === "a send" && typeof options === "object" && sqlOptions.some((name) => name in options)) {
    throw invalidArgument(`${problem}; enqueue(client, topic, payload, options) sends in the transaction of a client`);
  }
  const unknown = Object.keys(options ?? {}).find((name) => !names.includes(name)) ?? "";
  const given = places.find(([others]) => others.includes(unknown))?.[1];
  const place = unknown === "transactional" ? "an option of handle, and not under defaults" : given;
  throw invalidArgument(place ? `${problem}; ${unknown} is ${place}` : problem);
}
