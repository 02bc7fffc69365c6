import type pg from "pg";
import { checkHelloSenderName } from "../../../../generated/ts/rules/peer/frames.js";
import {
  checkPeerSettings,
  checkTuningSettings,
  type PeerSettingsInput,
  protocolConstants,
  type TuningSettings,
  type TuningSettingsInput,
  tuningSettingsDefaults,
} from "../../../../generated/ts/settings/peer.js";
import { checkedSettings, errorMessageOf, invalidArgument, namesOf, refuse } from "../../../foundation/errors/index.js";
import { TlsCredentials, type TlsOptions } from "../../../foundation/tls/index.js";
import { checkServable, type HeadersInput } from "../../queue/enqueue/index.js";
import { parseAddress } from "../../wire/index.js";
import {
  type CheckedRun,
  checkRunOptions,
  type HandleOptions,
  peerOptions,
  type RunOptions,
  refuseUnknown,
} from "../../worker/worker-options.js";

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

/** Validated options of a peer, with defaults filled in. */
export interface CheckedOptions extends CheckedRun {
  readonly name: string;
  readonly topic: string;
  readonly listen: string;
  readonly advertise: string | undefined;
  readonly tuning: TuningSettings;
  readonly tls: TlsCredentials | undefined;
}

/**
 * Validates the options of a new peer. @throws HawserError `invalid_argument`, or `internal_topic` for a reserved topic
 */
export function checkOptions(options: PeerOptions): CheckedOptions {
  if (typeof options !== "object" || options === null) {
    const shown = options === null ? "null" : typeof options;
    throw invalidArgument(`the options of a Peer are ${shown}; give an object with a name`);
  }
  checkPeerOptions(options, "a Peer");
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
  checkPeerOptions(tuning, "tuning");
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

const known = {
  "a Peer": namesOf<PeerOptions>(peerOptions),
  tuning: Object.keys(tuningSettingsDefaults),
  "a request": namesOf<RequestOptions>({ timeoutMs: true, signal: true, headers: true, idempotent: true }),
  listenersOf: ["refresh"],
} as const;

/** @throws HawserError `invalid_argument` for the first unknown option name, with the closest known name */
export function checkPeerOptions(options: object | undefined, of: keyof typeof known): void {
  refuseUnknown(options, of, known[of]);
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
