import { namedRules } from "../../generated/ts/rules/named.js";
import {
  checkHeaderName,
  checkHeaderValue,
  checkHelloSenderName,
  checkHelloSourceTopic,
  checkPayloadHeadersHeaders,
} from "../../generated/ts/rules/peer/frames.js";
import { checkText, type Violation } from "../../generated/ts/rules/violation.js";
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
} from "../../generated/ts/settings/peer.js";
import type { Headers } from "../channel/index.js";
import { HawserError, namesOf, unknownOption } from "../errors/index.js";
import { urlsOrEnvironment } from "../postgres/index.js";
import type { Logger } from "../runtime/index.js";
import { TlsCredentials, type TlsOptions } from "../transport/index.js";
import { parseAddress } from "../wire/index.js";
import { type HeadersInput, headerPairsOf } from "./content.js";
import { asHawserError } from "./context.js";
import { type HandlingSettings, policyOf } from "./handling-settings.js";
import type {
  EnqueueBatchOptions,
  EnqueueOptions,
  NatsSubject,
  RequestOptions,
  ScheduleOptions,
  SendOptions,
} from "./message.js";
import type { StatusTeller } from "./status.js";

/** Options of a Peer. Only `name` is required. */
export interface PeerOptions extends PeerSettingsInput {
  /** The peer's own name: one running process has it at a time. 1 to 255 bytes, no ':' and no control characters. */
  readonly name: string;
  /** The topic under which the peer sends: replies come to it. The same rule as the name. Default: the name. */
  readonly topic?: string | undefined;
  /**
   * The address to listen on, host:port; port 0 takes a free one. `start` refuses an address that cannot be used. Default:
   * `127.0.0.1:0`.
   */
  readonly listen?: string | undefined;
  /** The address to publish instead of the bound one; port 0 becomes the bound port. */
  readonly advertise?: string | undefined;
  /** Speak TLS with other peers, and nothing else. Default: plaintext, on loopback only unless `allowPlaintext`. */
  readonly tls?: TlsOptions | undefined;
  /**
   * A Postgres connection URI. Default: the environment variable `HAWSER_DATABASE_URL`, and without it the `PG*` variables
   * of libpq.
   */
  readonly databaseUrl?: string | undefined;
  /**
   * A URI that reaches Postgres directly, where `databaseUrl` goes through a transaction pooler; without it such a
   * `databaseUrl` is refused (`transaction_pooler`). Default: `HAWSER_SESSION_URL`, which is read only where `databaseUrl` is
   * left out.
   */
  readonly sessionUrl?: string | undefined;
  /** Receives log entries. Default: none; a pino logger fits. */
  readonly logger?: Logger | undefined;
  /** The running peer stops at SIGINT, SIGTERM or SIGHUP; a second signal ends the process. Default false. */
  readonly stopOnSignals?: boolean | undefined;
  /** Options of all handlers that do not set them. */
  readonly defaults?: Omit<HandleOptions, "transactional"> | undefined;
  /** Settings without a promise: their names, defaults and ranges may change in any release. */
  readonly tuning?: TuningSettingsInput | undefined;
}

/** Options of a handler. Each that is left out is as in `defaults` of the peer. */
export interface HandleOptions extends Omit<HandlerSettingsInput, "group"> {
  /** Attempts for a message whose handler fails, and the waits between them. */
  readonly retry?: RetrySettingsInput | undefined;
  /**
   * The group that the peer is a member of: 1 to 255 bytes, no ':' and no control characters; `true` means `"default"`. The
   * listeners of a topic, if all of them are members of a group, take messages as each has room, not in turn. Members of
   * one group take over what is stored for a member that is gone, and get one copy of a message that is enqueued for all
   * listeners. All topics of a peer have the same group. Default: the peer is no member.
   */
  readonly group?: boolean | string | undefined;
}

/** Options of `handleBatch`. */
export interface BatchOptions extends HandleOptions, BatchSettingsInput {}

/** Options of a handler of requests: a request is handled once. */
export type RespondOptions = Omit<HandleOptions, "retry">;

/** Options of a stop. */
export interface StopOptions {
  /** Limit of the stop, in milliseconds. Default: the setting `stopTimeoutMs`. */
  readonly timeoutMs?: number | undefined;
}

/** Options whose values keep the rules. */
export interface CheckedOptions {
  readonly name: string;
  readonly topic: string;
  readonly listen: string;
  readonly advertise: string | undefined;
  readonly databaseUrl: string | undefined;
  readonly sessionUrl: string | undefined;
  readonly settings: PeerSettings;
  readonly tuning: TuningSettings;
  readonly stopOnSignals: boolean;
  readonly tls: TlsCredentials | undefined;
  readonly defaults: Omit<HandleOptions, "transactional">;
  /** Settings of a handler without options. */
  readonly handling: HandlingSettings;
}

/** An error for a value that breaks a rule of the spec: says which, and what to do. */
function invalid({ path, value, rule, remedy }: Violation, argument = path): HawserError {
  return new HawserError("invalid_argument", `${argument} ${value}: ${rule}. ${remedy}`);
}

/** @param argument default: the path of the rule @throws HawserError `invalid_argument` if a rule is broken */
export function refuse(broken: Violation | undefined, argument?: string): void {
  if (broken !== undefined) throw invalid(broken, argument);
}

/** Checks the options of a new Peer. @throws HawserError `invalid_argument`, or `internal_topic` for a reserved topic */
export function checkOptions(options: PeerOptions): CheckedOptions {
  if (typeof options !== "object" || options === null) {
    const shown = options === null ? "null" : typeof options;
    throw new HawserError("invalid_argument", `the options of a Peer are ${shown}; give an object with a name`);
  }
  checkKnownOptions(options, "a Peer");
  const {
    name,
    topic = name,
    listen = "127.0.0.1:0",
    databaseUrl,
    sessionUrl,
    advertise,
    tls,
    logger: _,
    ...rest
  } = options;
  const { stopOnSignals = false, defaults = {}, tuning = {}, ...settings } = rest;
  refuse(checkHelloSenderName(name), "name");
  const prefix = protocolConstants.reservedTopicPrefix;
  if (name.startsWith(prefix)) {
    throw new HawserError(
      "invalid_argument",
      `name "${name}" begins with ${prefix}, which is reserved; choose another`,
    );
  }
  checkTopic(topic);
  checkNotReserved(topic);
  // What else may be wrong with it shows when it is bound: `bind_failed`.
  if (typeof listen !== "string" || listen === "") checkAddress("listen", listen);
  if (advertise !== undefined) checkAddress("advertise", advertise);
  if (typeof stopOnSignals !== "boolean") {
    throw new HawserError("invalid_argument", `stopOnSignals ${String(stopOnSignals)}: must be true or false`);
  }
  const urls = checkUrls({ databaseUrl, sessionUrl });
  const checked = checkPeerSettings(settings);
  if (!checked.ok) throw invalid(checked.violation);
  checkKnownOptions(tuning, "tuning");
  const checkedTuning = checkTuningSettings(tuning);
  if (!checkedTuning.ok) throw invalid(checkedTuning.violation, `tuning.${checkedTuning.violation.path}`);
  checkKnownOptions(defaults, "defaults");
  return {
    name,
    topic,
    listen,
    advertise,
    ...urls,
    settings: checked.settings,
    tuning: checkedTuning.settings,
    stopOnSignals,
    tls: checkTls(tls, checked.settings.allowPlaintext),
    defaults,
    handling: handlingOf(defaults, "defaults."),
  };
}

function groupName(group: HandleOptions["group"]): string | undefined {
  if (group === true) return protocolConstants.defaultGroup;
  return group === false ? undefined : group;
}

/** Properties that are set, over those of `defaults`. */
function over<Options extends object>(defaults: Options | undefined, given: Options | undefined): Options {
  const set = Object.entries(given ?? {}).filter(([, value]) => value !== undefined);
  return { ...defaults, ...(Object.fromEntries(set) as Options) };
}

/** @param prefix of the names in errors @throws HawserError `invalid_argument` */
function handlingOf({ retry, group, ...given }: HandleOptions, prefix = ""): HandlingSettings {
  checkKnownOptions(retry, "retry");
  const checked = checkHandlerSettings({ ...given, group: groupName(group) });
  if (!checked.ok) throw invalid(checked.violation, `${prefix}${checked.violation.path}`);
  const checkedRetry = checkRetrySettings(retry ?? {});
  if (!checkedRetry.ok) throw invalid(checkedRetry.violation, `${prefix}retry.${checkedRetry.violation.path}`);
  return { ...checked.settings, retry: policyOf(checkedRetry.settings), batch: undefined };
}

/** Checks the options of a handler. @throws HawserError `invalid_argument` */
export function checkHandleOptions(
  options: HandleOptions,
  { defaults, settings }: Pick<CheckedOptions, "defaults" | "settings">,
  of: "a handler" | "a handler of requests" = "a handler",
): HandlingSettings {
  checkKnownOptions(options, of);
  checkKnownOptions(options.retry, "retry");
  const retry = over(defaults.retry, options.retry);
  const handling = handlingOf({ ...over<HandleOptions>(defaults, options), retry });
  if (handling.transactional) checkPoolSize(settings);
  return handling;
}

/** Checks how the messages of a topic are to be handled together. @throws HawserError `invalid_argument` */
export function checkBatchOptions(
  options: BatchOptions,
  peer: Pick<CheckedOptions, "defaults" | "settings">,
): { readonly handling: HandlingSettings; readonly batch: BatchSettings } {
  checkKnownOptions(options, "a handler of batches");
  const { maxMessages, maxBytes, waitMs, ...handling } = options;
  const checked = checkBatchSettings({ maxMessages, maxBytes, waitMs });
  if (!checked.ok) throw invalid(checked.violation);
  return { handling: checkHandleOptions(handling, peer), batch: checked.settings };
}

function checkPoolSize({ poolSize }: PeerSettings): void {
  if (poolSize >= 2) return;
  throw new HawserError(
    "invalid_argument",
    `poolSize ${poolSize}: transactional handlers leave one connection to everybody else; set it to at least 2`,
  );
}

/** @throws HawserError `invalid_argument` unless the value is host:port */
function checkAddress(argument: string, value: string): void {
  try {
    parseAddress(value);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new HawserError("invalid_argument", `${argument}: ${why}`, { cause });
  }
}

/** @throws HawserError `invalid_argument` that names the option or the environment variable */
function checkUrls(options: Pick<PeerOptions, "databaseUrl" | "sessionUrl">): ReturnType<typeof urlsOrEnvironment> {
  try {
    return urlsOrEnvironment(options);
  } catch (cause) {
    if (!(cause instanceof HawserError)) throw cause;
    throw new HawserError("invalid_argument", cause.message, { cause });
  }
}

/** Mostly requests have one timeout, or a few. */
let lastTimeoutMs: number | undefined;

/** @throws HawserError `invalid_argument` unless the value may be how long a request waits */
export function checkTimeout(timeoutMs: number): number {
  if (timeoutMs === lastTimeoutMs) return timeoutMs;
  const checked = checkPeerSettings({ requestTimeoutMs: timeoutMs });
  if (!checked.ok) throw invalid(checked.violation, "timeoutMs");
  lastTimeoutMs = timeoutMs;
  return timeoutMs;
}

/** @throws HawserError `invalid_argument` unless the value may be a topic */
export function checkTopic(topic: string): void {
  refuse(checkHelloSourceTopic(topic), "topic");
}

/** @throws HawserError `internal_topic` for a reserved topic */
export function checkNotReserved(topic: string): void {
  const prefix = protocolConstants.reservedTopicPrefix;
  if (topic.startsWith(prefix)) {
    throw new HawserError(
      "internal_topic",
      `the topic "${topic}" begins with ${prefix}, which is reserved; choose another`,
    );
  }
}

/** Headers of ours that need no check, since they stay the same for all messages. */
const checkedBefore = new WeakSet<object>();

/** A copy of the headers that were checked last. Messages that follow each other mostly have the same ones. */
let lastChecked: Headers = [];

function areLast(pairs: Headers): boolean {
  if (pairs.length !== lastChecked.length) return false;
  for (let index = 0; index < pairs.length; index++) {
    const pair = pairs[index];
    const last = lastChecked[index]!;
    if (pair?.[0] !== last[0] || pair[1] !== last[1]) return false;
  }
  return true;
}

/** Headers that are used again and again; they must not be changed. */
export function checkedOnce(headers: Headers): Headers {
  const checked = checkHeaders(headers) ?? headers;
  checkedBefore.add(checked);
  return checked;
}

/**
 * Headers as pairs, checked and copied: what equals those of the call before is the same object. Undefined
 * when there are none.
 *
 * @throws HawserError `invalid_argument`
 */
export function checkHeaders(headers: HeadersInput | undefined): Headers | undefined {
  if (headers === undefined) return undefined;
  if (checkedBefore.has(headers)) return headers as Headers;
  const pairs = Array.isArray(headers) ? (headers as Headers) : headerPairsOf(headers);
  if (pairs.length === 0) return undefined;
  if (areLast(pairs)) return lastChecked;
  refuse(checkPayloadHeadersHeaders(pairs), "headers");
  for (const [name, value] of pairs) {
    refuse(checkHeaderName(name), "header name");
    const badValue = checkHeaderValue(value);
    if (badValue) throw invalid(badValue, `header ${name}`);
  }
  lastChecked = pairs.map(([name, value]) => [name, value] as const);
  return lastChecked;
}

/** Options of a message that Hawser writes into headers. */
export interface Marks {
  readonly key?: string | undefined;
  readonly messageId?: string | undefined;
  readonly ttlMs?: number | undefined;
}

/** Checks the key, id and time to live of a message. @throws HawserError `invalid_argument` */
export function checkMarks({ key, messageId, ttlMs }: Marks): void {
  if (key !== undefined) refuse(checkText("key", namedRules.outboxKey, key));
  if (messageId !== undefined) refuse(checkText("messageId", namedRules.outboxMessageId, messageId));
  const { maxTtlMs } = protocolConstants;
  if (ttlMs === undefined || (Number.isInteger(ttlMs) && ttlMs >= 1 && ttlMs <= maxTtlMs)) return;
  throw new HawserError(
    "invalid_argument",
    `ttlMs ${String(ttlMs)}: must be a whole number of ms from 1 to ${maxTtlMs}`,
  );
}

/** The header that says until when a message is of use. @param from since when its time to live counts, in ms since 1970 */
export function expiresHeader(ttlMs: number, from: number): readonly [string, string] {
  return [protocolConstants.messageExpiresHeader, String(from + ttlMs)];
}

const besideSettings = namesOf<Omit<PeerOptions, keyof PeerSettings>>({
  name: true,
  topic: true,
  listen: true,
  advertise: true,
  tls: true,
  databaseUrl: true,
  sessionUrl: true,
  logger: true,
  stopOnSignals: true,
  defaults: true,
  tuning: true,
});

const ofMessage = { headers: true, key: true, all: true, via: true, format: true } as const;
const ofBatch = { ...ofMessage, deliverAt: true, ttlMs: true } as const;

const ofRequestHandler = Object.keys(handlerSettingsDefaults);
const ofHandler = [...ofRequestHandler, "retry"];

const known = {
  "a Peer": [...besideSettings, ...Object.keys(peerSettingsDefaults)],
  defaults: ofHandler.filter((name) => name !== "transactional"),
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
  "an enqueue": namesOf<EnqueueOptions>({ ...ofBatch, messageId: true }),
  "a batch to enqueue": namesOf<EnqueueBatchOptions>(ofBatch),
  "a schedule": namesOf<ScheduleOptions>({
    cron: true,
    to: true,
    payload: true,
    timezone: true,
    missed: true,
    ...ofMessage,
  }),
  "a subject": namesOf<NatsSubject>({ subject: true, stream: true, domain: true }),
  "a handler": ofHandler,
  "a handler of requests": ofRequestHandler,
  "a handler of batches": [...ofHandler, ...Object.keys(batchSettingsDefaults)],
  retry: Object.keys(retrySettingsDefaults),
  "a request": namesOf<RequestOptions>({ timeoutMs: true, signal: true, headers: true, idempotent: true }),
  stop: namesOf<StopOptions>({ timeoutMs: true }),
  listenersOf: ["refresh"],
} as const;

/** Places of options, for errors that name an option given at the wrong place. */
const places = [
  ["a Peer", "an option of the Peer"],
  ["tuning", "an option of the Peer under tuning"],
  ["a handler", "an option of handle, or of the Peer under defaults"],
] as const;

/** @throws HawserError `invalid_argument` for the first name that is no option, with the one that was probably meant */
export function checkKnownOptions(options: object | undefined, of: keyof typeof known): void {
  if (options === undefined || (options === null && of === "a send")) return;
  const problem = unknownOption(options, of, known[of]);
  if (problem === undefined) return;
  if (of === "a send" && typeof options === "object" && ("transaction" in options || "deliverAt" in options)) {
    throw new HawserError(
      "invalid_argument",
      `${problem}; enqueue(client, topic, payload, options) has the transaction of a client`,
    );
  }
  const names: readonly string[] = known[of];
  const unknown = Object.keys(options ?? {}).find((name) => !names.includes(name)) ?? "";
  const place = places.find(([other]) => (known[other] as readonly string[]).includes(unknown))?.[1];
  throw new HawserError("invalid_argument", place ? `${problem}; ${unknown} is ${place}` : problem);
}

/** Reads and checks certificate, key and authorities. @throws HawserError `invalid_argument` saying which, and why */
function checkTls(tls: TlsOptions | undefined, allowPlaintext: boolean): TlsCredentials | undefined {
  if (tls === undefined) return undefined;
  if (allowPlaintext) {
    throw new HawserError(
      "invalid_argument",
      "allowPlaintext true together with tls: a peer with tls speaks nothing else; leave one of the two out",
    );
  }
  try {
    return new TlsCredentials(tls);
  } catch (error) {
    const { code, message } = asHawserError(error);
    throw new HawserError(code, message, { cause: error });
  }
}

/** Tells of certificates that were read anew. @returns what ends it */
export function tellOfReloads(credentials: TlsCredentials, status: StatusTeller, logger: Logger): () => void {
  return credentials.subscribe({
    onReloaded: ({ validUntil }) => {
      logger.info({ validUntil: new Date(validUntil) }, "read the certificate, key and authorities of TLS again");
    },
    onReloadFailed: (error) => {
      const message = `the files of TLS cannot be used; what was read before stays in use: ${error.message}`;
      logger.warn({ err: error }, message);
      status.tell({ kind: "tls_reload_failed", message, error });
    },
  });
}
