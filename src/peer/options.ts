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
  type HandlerSettingsInput,
  handlerSettingsDefaults,
  type PeerSettings,
  type PeerSettingsInput,
  peerSettingsDefaults,
  protocolConstants,
  type RetrySettingsInput,
  retrySettingsDefaults,
} from "../../generated/ts/settings/peer.js";
import type { Headers } from "../channel/index.js";
import { HawserError, namesOf, unknownOption } from "../errors/index.js";
import { urlsOrEnvironment } from "../postgres/index.js";
import type { Logger } from "../runtime/index.js";
import { TlsCredentials, type TlsOptions } from "../transport/index.js";
import { parseAddress } from "../wire/index.js";
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
import type { StatusEmitter } from "./status.js";

/** What a Peer is made of. Everything beyond the first three has a default; see {@link PeerSettings} for limits. */
export interface PeerOptions extends Omit<PeerSettingsInput, "group"> {
  /** The peer's own name: one running process has it at a time. 1 to 255 bytes, no ':' and no control characters. */
  readonly name: string;
  /** The source topic, which the peer serves and under which it sends. The same rule as the name. */
  readonly topic: string;
  /** The address to listen on, host:port; port 0 takes a free one. One that cannot be used is for `run` to refuse. */
  readonly listen: string;
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
  /** The address to publish instead of the bound one; port 0 becomes the bound port. */
  readonly advertise?: string | undefined;
  /** Speak TLS with other peers, and nothing else. Default: plaintext, on loopback only unless `allowPlaintext`. */
  readonly tls?: TlsOptions | undefined;
  /**
   * The group that the peer is a member of: 1 to 255 bytes, no ':' and no control characters; `true` means `"default"`. The
   * listeners of its topics, if all of them are members of a group, take messages as each has room, not in turn. Members of
   * one group take over what is stored for a member that is gone, and get one copy of a message that is enqueued for all
   * listeners. Default: the peer is no member.
   */
  readonly group?: boolean | string | undefined;
  /** Hears of what happens. Default: says nothing; a pino logger fits. */
  readonly logger?: Logger | undefined;
}

/** How the messages of one topic are handled. What is left out is as the peer has it. */
export interface HandleOptions extends HandlerSettingsInput {
  /** How a message is tried again whose handler has failed. */
  readonly retry?: RetrySettingsInput | undefined;
}

/** How the messages of one topic are handled together. What is left out has its default, or is as the peer has it. */
export interface BatchOptions extends HandleOptions, BatchSettingsInput {}

/** How a peer is stopped. */
export interface StopOptions {
  /** How long the stop may take, in milliseconds. Default: the setting `stopDeadlineMs`. */
  readonly deadlineMs?: number | undefined;
}

/** Options whose values keep the rules. */
export interface CheckedOptions {
  readonly name: string;
  readonly topic: string;
  readonly listen: string;
  readonly databaseUrl: string | undefined;
  readonly sessionUrl: string | undefined;
  readonly settings: PeerSettings;
  readonly tls: TlsCredentials | undefined;
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
    throw new HawserError(
      "invalid_argument",
      `the options of a Peer are ${shown}; give an object with name, topic and listen`,
    );
  }
  const { name, topic, listen, databaseUrl, sessionUrl, advertise, tls, logger: _, group, ...settings } = options;
  checkKnownOptions(options, "a Peer");
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
  const urls = checkUrls({ databaseUrl, sessionUrl });
  const checked = checkPeerSettings({ ...settings, group: groupName(group) });
  if (!checked.ok) throw invalid(checked.violation);
  if (checked.settings.transactional) checkPoolSize(checked.settings);
  return {
    name,
    topic,
    listen,
    ...urls,
    settings: checked.settings,
    tls: checkTls(tls, checked.settings.allowPlaintext),
  };
}

function groupName(group: PeerOptions["group"]): string | undefined {
  if (group === true) return protocolConstants.defaultGroup;
  return group === false ? undefined : group;
}

/** Checks how a topic is to be handled. @throws HawserError `invalid_argument` */
export function checkHandleOptions(options: HandleOptions, settings: PeerSettings): HandlingSettings {
  checkKnownOptions(options, "a handler");
  const { retry = {}, ...given } = options;
  checkKnownOptions(retry, "retry");
  const checked = checkHandlerSettings(given);
  if (!checked.ok) throw invalid(checked.violation);
  const checkedRetry = checkRetrySettings(retry);
  if (!checkedRetry.ok) throw invalid(checkedRetry.violation, `retry.${checkedRetry.violation.path}`);
  const { transactional = settings.transactional, timeoutMs = settings.handlerTimeoutMs } = checked.settings;
  if (transactional) checkPoolSize(settings);
  const { attempts = settings.maxAttempts, delayMs = settings.retryDelayMs } = checkedRetry.settings;
  return {
    transactional,
    timeoutMs,
    retry: policyOf({ ...checkedRetry.settings, attempts, delayMs }),
    batch: undefined,
  };
}

/** Checks how the messages of a topic are to be handled together. @throws HawserError `invalid_argument` */
export function checkBatchOptions(
  options: BatchOptions,
  settings: PeerSettings,
): { readonly handling: HandlingSettings; readonly batch: BatchSettings } {
  checkKnownOptions(options, "a handler of batches");
  const { maxMessages, maxBytes, waitMs, ...handling } = options;
  const checked = checkBatchSettings({ maxMessages, maxBytes, waitMs });
  if (!checked.ok) throw invalid(checked.violation);
  return { handling: checkHandleOptions(handling, settings), batch: checked.settings };
}

function checkPoolSize({ poolSize }: PeerSettings): void {
  if (poolSize >= 2) return;
  throw new HawserError(
    "invalid_argument",
    `poolSize ${poolSize}: transactional handlers leave one connection to everybody else; set it to at least 2`,
  );
}

/** @throws HawserError `invalid_argument` unless the value is host:port */
export function checkAddress(argument: string, value: string): void {
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
 * Headers as a record or as pairs, checked and copied: what equals those of the call before is the same object. Undefined
 * when there are none.
 *
 * @throws HawserError `invalid_argument`
 */
export function checkHeaders(headers: Record<string, string> | Headers | undefined): Headers | undefined {
  if (headers === undefined) return undefined;
  if (checkedBefore.has(headers)) return headers as Headers;
  const pairs = (Array.isArray(headers) ? headers : Object.entries(headers)) as Headers;
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

/** What of a message's headers Hawser sets, and where the message is sent to. */
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
  databaseUrl: true,
  sessionUrl: true,
  advertise: true,
  tls: true,
  logger: true,
});

const ofMessage = { headers: true, key: true, all: true, via: true, format: true } as const;
const ofBatch = { ...ofMessage, deliverAt: true, ttlMs: true } as const;

const ofHandler = [...Object.keys(handlerSettingsDefaults), "retry"];

const known = {
  "a Peer": [...besideSettings, ...Object.keys(peerSettingsDefaults)],
  "a send": namesOf<SendOptions>({
    delivery: true,
    headers: true,
    signal: true,
    key: true,
    messageId: true,
    ttlMs: true,
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
  "a handler of batches": [...ofHandler, ...Object.keys(batchSettingsDefaults)],
  retry: Object.keys(retrySettingsDefaults),
  "a request": namesOf<RequestOptions>({ timeoutMs: true, signal: true, headers: true, idempotent: true }),
  stop: namesOf<StopOptions>({ deadlineMs: true }),
} as const;

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
  const names = of.startsWith("a handler") ? Object.keys(options ?? {}) : [];
  const ofPeer = names.find(
    (name) => known["a Peer"].includes(name) && !(known[of] as readonly string[]).includes(name),
  );
  throw new HawserError("invalid_argument", ofPeer ? `${problem}; ${ofPeer} is an option of the Peer` : problem);
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
export function tellOfReloads(credentials: TlsCredentials, status: StatusEmitter, logger: Logger): () => void {
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
