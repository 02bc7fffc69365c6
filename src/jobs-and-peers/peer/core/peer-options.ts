import type pg from "pg";
import { checkHelloSenderName } from "../../../../generated/ts/rules/peer/frames.js";
import {
  type BatchSettings,
  type BatchSettingsInput,
  batchSettingsDefaults,
  checkBatchSettings,
  checkHandlerSettings,
  checkPeerSettings,
  checkRetrySettings,
  checkTuningSettings,
  type HandlerSettingsInput,
  handlerSettingsDefaults,
  type PeerSettings,
  type PeerSettingsInput,
  peerSettingsDefaults,
  protocolConstants,
  type RetrySettingsInput,
  retrySettingsDefaults,
  type TuningSettings,
  type TuningSettingsInput,
  tuningSettingsDefaults,
} from "../../../../generated/ts/settings/peer.js";
import {
  checkedSettings,
  errorMessageOf,
  invalidArgument,
  namesOf,
  refuse,
  unknownOption,
} from "../../../foundation/errors/index.js";
import type { Logger } from "../../../foundation/runtime/index.js";
import { checkPool, urlsOrEnvironment } from "../../../foundation/sql-clients/index.js";
import { TlsCredentials, type TlsOptions } from "../../../foundation/tls/index.js";
import { type HandlingSettings, policyOf } from "../../handlers/handling-settings.js";
import { ConcurrencyLimit } from "../../handlers/limits/concurrency-limit.js";
import type { SendOptions } from "../../handlers/message.js";
import { checkServable, type HeadersInput } from "../../queue/enqueue/index.js";
import { parseAddress } from "../../wire/index.js";

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

/** Options of a {@link Peer}. Only `name` is required. */
export interface PeerOptions extends RunOptions, PeerSettingsInput {
  /**
   * Name of the peer; at most one running process owns it at a time. 1 to 255 bytes, without ':' and control
   * characters.
   */
  readonly name: string;
  /** Topic under which the peer sends; replies come to it. Same format as the name. Default: the name. */
  readonly topic?: string | undefined;
  /**
   * Address to listen on, `host:port`; port 0 selects a free port. `start` rejects with `bind_failed` if the address
   * cannot be bound. Default: `127.0.0.1:0`.
   */
  readonly listen?: string | undefined;
  /** Address to publish in the directory in place of the bound address; port 0 is replaced by the bound port. */
  readonly advertise?: string | undefined;
  /**
   * Certificate, key and authorities for TLS; the peer then accepts no plaintext. Default: plaintext, limited to
   * loopback addresses unless `allowPlaintext` is true.
   */
  readonly tls?: TlsOptions | undefined;
  /**
   * Pool of node-postgres to use instead of `databaseUrl`. The peer keeps two clients of the pool, one for
   * its name and one for what is enqueued, and uses up to `poolSize` for statements, so `max` must be at least 3 (4 with
   * transactional handlers). `message.client` is a client of the pool. The peer never ends the pool; end it after the
   * peer has stopped.
   */
  readonly pool?: pg.Pool | undefined;
  /** Default options of all handlers of the peer. */
  readonly defaults?: Omit<HandleOptions, "transactional"> | undefined;
  /** Settings without a compatibility promise: names, defaults and ranges may change in any release. */
  readonly tuning?: TuningSettingsInput | undefined;
}

/** Options of a handler. An omitted option has the value from `defaults` of the peer. */
export interface HandleOptions<Transactional extends boolean = boolean> extends Omit<HandlerSettingsInput, "group"> {
  /**
   * Handles each message in a transaction, which the handler gets as `message.client`. Its commit also marks the message
   * as handled. Default: false.
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

/** Options of a request handler. Requests are never retried, so there is no `retry`. */
export type RespondOptions<Transactional extends boolean = boolean> = Omit<HandleOptions<Transactional>, "retry">;

/** Options of {@link Peer.request}. */
export interface RequestOptions {
  /** Maximum wait for the answer, in milliseconds. Default: the setting `requestTimeoutMs`. */
  readonly timeoutMs?: number | undefined;
  /** Rejects the promise with `aborted` when the signal is aborted; the handler's `message.signal` is aborted, too. */
  readonly signal?: AbortSignal | undefined;
  /** Object of header names with a value or an array of values, or an iterable of `[name, value]` pairs. */
  readonly headers?: HeadersInput | undefined;
  /**
   * Declares that the request can safely be handled twice: if the connection ends before the answer, the request is
   * sent once more, to another listener of the topic. Default: false, which fails with `listener_lost`.
   */
  readonly idempotent?: boolean | undefined;
}

/** Options of {@link Peer.stop}. */
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

/** Validated options of a peer, with defaults filled in. */
export interface CheckedOptions extends CheckedRun {
  readonly name: string;
  readonly topic: string;
  readonly listen: string;
  readonly advertise: string | undefined;
  readonly tuning: TuningSettings;
  readonly tls: TlsCredentials | undefined;
}

/** @param keptClients number of clients of a pool that the process keeps @throws HawserError `invalid_argument` */
export function checkRunOptions(
  options: RunOptions & Partial<Pick<PeerOptions, "pool" | "defaults" | "poolSize">>,
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

/**
 * Validates the options of a new peer. @throws HawserError `invalid_argument`, or `internal_topic` for a reserved topic
 */
export function checkOptions(options: PeerOptions): CheckedOptions {
  if (typeof options !== "object" || options === null) {
    const shown = options === null ? "null" : typeof options;
    throw invalidArgument(`the options of a Peer are ${shown}; give an object with a name`);
  }
  checkKnownOptions(options, "a Peer");
  const { name, topic = name, listen = "127.0.0.1:0", advertise, tls, tuning = {} } = options;
  refuse(checkHelloSenderName(name), "name");
  const prefix = protocolConstants.reservedTopicPrefix;
  if (name.startsWith(prefix)) {
    throw invalidArgument(`name "${name}" begins with ${prefix}, which is reserved; choose another`);
  }
  checkServable(topic);
  // Only the attempt to bind can find all other problems of the address: `bind_failed`.
  if (typeof listen !== "string" || listen === "") checkAddress("listen", listen);
  if (advertise !== undefined) checkAddress("advertise", advertise);
  const run = checkRunOptions(options, checkedSettings(checkPeerSettings(options)), peerClients);
  checkKnownOptions(tuning, "tuning");
  return {
    ...run,
    name,
    topic,
    listen,
    advertise,
    tuning: checkedSettings(checkTuningSettings(tuning), "tuning."),
    tls: checkTls(tls, run.settings.allowPlaintext),
  };
}

/** Clients of a user's pool that a peer keeps: one for its name, and one for the queue, which a migration uses before. */
const peerClients = 2;

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

/** @throws HawserError `invalid_argument` unless the value is `host:port` */
function checkAddress(argument: string, value: string): void {
  try {
    parseAddress(value);
  } catch (cause) {
    throw invalidArgument(`${argument}: ${errorMessageOf(cause)}`, cause);
  }
}

/** Last valid timeout. Most programs use one timeout or a few, so the check is usually skipped. */
let lastTimeoutMs: number | undefined;

/** @throws HawserError `invalid_argument` unless the value is a valid request timeout in ms */
export function checkTimeout(timeoutMs: number): number {
  if (timeoutMs === lastTimeoutMs) return timeoutMs;
  const checked = checkPeerSettings({ requestTimeoutMs: timeoutMs });
  if (!checked.ok) refuse(checked.violation, "timeoutMs");
  lastTimeoutMs = timeoutMs;
  return timeoutMs;
}

/** Names of the options that a peer and a worker have. */
export const runOptions = {
  databaseUrl: true,
  pool: true,
  sessionUrl: true,
  logger: true,
  stopOnSignals: true,
  defaults: true,
} as const;
const handlerOptions = { ...handlerSettingsDefaults, retry: true } as const;
const { transactional: _, ...defaultsOptions } = handlerOptions;

const known = {
  "a Peer": namesOf<PeerOptions>({
    name: true,
    topic: true,
    listen: true,
    advertise: true,
    tls: true,
    tuning: true,
    ...runOptions,
    ...peerSettingsDefaults,
  }),
  defaults: Object.keys(defaultsOptions),
  tuning: Object.keys(tuningSettingsDefaults),
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
  "a request": namesOf<RequestOptions>({ timeoutMs: true, signal: true, headers: true, idempotent: true }),
  stop: namesOf<StopOptions>({ timeoutMs: true }),
  listenersOf: ["refresh"],
} as const;

/** Description of the right place for an option that was given elsewhere. */
const places = [
  ["a Peer", "an option of the Peer"],
  ["tuning", "an option of the Peer under tuning"],
  ["a handler", "an option of handle, or of the Peer under defaults"],
] as const;

/** Options of an enqueue that users look for in a send. */
const sqlOptions = ["transaction", "deliverAt", "delayMs"];

/** @throws HawserError `invalid_argument` for the first unknown option name, with the closest known name */
export function checkKnownOptions(options: object | undefined, of: keyof typeof known): void {
  if (options === undefined || (options === null && of === "a send")) return;
  const problem = unknownOption(options, of, known[of]);
  if (problem === undefined) return;
  if (of === "a send" && typeof options === "object" && sqlOptions.some((name) => name in options)) {
    throw invalidArgument(`${problem}; enqueue(client, topic, payload, options) sends in the transaction of a client`);
  }
  const names: readonly string[] = known[of];
  const unknown = Object.keys(options ?? {}).find((name) => !names.includes(name)) ?? "";
  const given = places.find(([other]) => (known[other] as readonly string[]).includes(unknown))?.[1];
  const place = unknown === "transactional" ? "an option of handle, and not under defaults" : given;
  throw invalidArgument(place ? `${problem}; ${unknown} is ${place}` : problem);
}

/**
 * Reads and validates certificate, key and authorities. @throws HawserError `invalid_argument` naming the file and the
 * reason
 */
function checkTls(tls: TlsOptions | undefined, allowPlaintext: boolean): TlsCredentials | undefined {
  if (tls === undefined) return undefined;
  if (allowPlaintext) {
    throw invalidArgument(
      "allowPlaintext true together with tls: a peer with tls never uses plaintext; leave one of the two out",
    );
  }
  return new TlsCredentials(tls);
}
