/**
 * Schedules: messages that are enqueued at the times of a cron expression, by whichever process relays messages for peers.
 */
import { namedRules } from "../../generated/ts/rules/named.js";
import { checkBytes as checkBytesRule, checkText, type Violation } from "../../generated/ts/rules/violation.js";
import { scheduleConstants } from "../../generated/ts/settings/outbox.js";
import { namesOf, PeerError, unknownOption } from "../errors/index.js";
import { checkTimes, type MissedPolicy } from "../outbox/index.js";
import { valuesByName } from "./enqueue.js";
import { bytesOf, type EnqueueClient, type EnqueueOptions } from "./message.js";
import { checkHeaders, checkMarks, checkNotReserved, checkTopic } from "./options.js";

/** A subject of NATS as the destination of messages. */
export interface NatsSubject {
  readonly subject: string;
  /** True: into a JetStream stream, which keeps each message once. Default: false, to core NATS. */
  readonly stream?: boolean;
  /** The JetStream domain. Default: that of the server. Only with `stream`. */
  readonly domain?: string;
}

/** When a schedule enqueues messages, and which. */
export interface ScheduleOptions extends Pick<EnqueueOptions, "headers" | "key"> {
  /** Five fields (minute, hour, day of the month, month, day of the week), or six with the second before them. */
  readonly cron: string;
  /** A topic, or a subject of NATS. */
  readonly to: string | NatsSubject;
  /** A string, bytes, or an object, which goes as JSON with the header `content-type`. At most 1 MiB. Default: `{}`. */
  readonly payload?: string | Uint8Array | object;
  /** By whose clock the expression goes, such as `Europe/Berlin`. Default: UTC. */
  readonly timezone?: string;
  /**
   * Of occurrences that nobody enqueued within ten seconds, as nothing ran, the last `one` is enqueued afterwards, `all` are, or
   * `none`. Default: `one`.
   */
  readonly missed?: MissedPolicy;
  /** Each listener of the topic, and each group of listeners, gets a copy. Default: one of them gets the message. */
  readonly all?: boolean;
}

const sql = {
  forPeers:
    "SELECT hawser.schedule($1::text, $2::text, $3::text, $4::bytea, $5::text, $6::text, $7::jsonb, $8::text, $9::boolean)",
  forNats:
    "SELECT hawser.schedule($1::text, $2::text, $3::text, $4::bytea, $9::boolean, $5::text, $6::text, $7::jsonb, $8::text, $10::text)",
  unschedule: "SELECT hawser.unschedule($1::text) AS ended",
} as const;

const scheduleOptions = namesOf<ScheduleOptions>({
  cron: true,
  to: true,
  payload: true,
  timezone: true,
  missed: true,
  headers: true,
  key: true,
  all: true,
});
const subjectOptions = namesOf<NatsSubject>({ subject: true, stream: true, domain: true });

const { nameHeader, timeHeader } = scheduleConstants;

/**
 * Makes or changes the schedule of this name, of the client's role, in the transaction that the client is in. One that is there and
 * the same goes on; with another `cron` or `timezone` it begins anew, with the first occurrence after now. Handlers find the
 * occurrence's time in the header `schedule-time`, and the name in `schedule-name`.
 *
 * @throws PeerError `invalid_argument`, `internal_topic`, before anything is sent to Postgres; the error of Postgres
 */
export async function schedule(client: EnqueueClient, name: string, options: ScheduleOptions): Promise<void> {
  refuseUnknown(unknownOption(options, "a schedule", scheduleOptions));
  const { cron, to, timezone = "UTC", missed = "one", headers, key, all = false } = options;
  refuse(checkText("name", namedRules.scheduleName, name));
  refuse(checkTimes(cron, timezone, new Date()));
  refuse(checkText("missed", namedRules.scheduleMissed, missed));
  const [payload, contentType] = payloadOf(options.payload ?? {});
  refuse(checkBytesRule("payload", namedRules.schedulePayload, payload));
  checkMarks({ key });
  const values = headersOf(headers, contentType);
  const shared = [cron, ...destinationOf(to, payload, all), payload, timezone, missed, values, key ?? null];
  const text = typeof to === "string" ? sql.forPeers : sql.forNats;
  const last = typeof to === "string" ? [all] : [to.stream ?? false, to.domain ?? null];
  await client.query(text, [name, ...shared, ...last]);
}

/**
 * Ends a schedule of the client's role, or, if it has none of this name, those of the roles that it is a member of. Messages that
 * are enqueued already stay.
 *
 * @returns false if there is none of this name
 * @throws PeerError `invalid_argument`; the error of Postgres
 */
export async function unschedule(client: EnqueueClient, name: string): Promise<boolean> {
  refuse(checkText("name", namedRules.scheduleName, name));
  const result = await client.query(sql.unschedule, [name]);
  const rows = Array.isArray(result) ? result : (result as { rows?: unknown[] } | undefined)?.rows;
  const ended = (rows?.[0] as { ended?: unknown } | undefined)?.ended;
  if (typeof ended === "boolean") return ended;
  throw new PeerError(
    "invalid_argument",
    "query() of the client resolved without the rows; let it resolve with them, or with an object that has rows",
  );
}

/** Checks where messages go. @returns the topic or subject, alone in a list */
function destinationOf(to: string | NatsSubject, payload: Uint8Array, all: boolean): [string] {
  if (typeof to === "string") {
    checkTopic(to);
    checkNotReserved(to);
    if (payload.length === 0)
      throw new PeerError(
        "invalid_argument",
        "payload 0 bytes: must have at least one byte for a topic; give a payload",
      );
    return [to];
  }
  if (typeof to !== "object" || to === null)
    throw new PeerError("invalid_argument", `to ${String(to)}: must be a topic or an object with a subject`);
  refuseUnknown(unknownOption(to, "a subject", subjectOptions));
  const { subject, stream = false, domain } = to;
  refuse(checkText("to.subject", namedRules.natsSubject, subject));
  if (domain !== undefined) refuse(checkText("to.domain", namedRules.jetstreamDomain, domain));
  if (domain !== undefined && !stream)
    throw new PeerError(
      "invalid_argument",
      `to.domain "${domain}": only a message for a stream has one; leave it out, or set stream to true`,
    );
  if (all)
    throw new PeerError("invalid_argument", "all true: is for topics; leave it out, subscribers of NATS all get it");
  return [subject];
}

/** @returns the bytes, and their content type where the payload does not say it by itself */
function payloadOf(payload: string | Uint8Array | object): [Buffer, string | undefined] {
  const isBytes = typeof payload === "string" || payload instanceof Uint8Array;
  if (!isBytes && typeof payload !== "object")
    throw new PeerError(
      "invalid_argument",
      `payload a value of type ${typeof payload}: must be a string, a Uint8Array, or an object that goes as JSON`,
    );
  const bytes = bytesOf(isBytes ? payload : JSON.stringify(payload));
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return [buffer, isBytes ? undefined : "application/json"];
}

function headersOf(headers: EnqueueOptions["headers"], contentType: string | undefined): string | null {
  const given = (headers && checkHeaders(headers)) ?? [];
  const names = given.map(([name]) => name.toLowerCase());
  const own = names.find((name) => name === nameHeader || name === timeHeader);
  if (own !== undefined) throw new PeerError("invalid_argument", `header ${own}: is set by Hawser; leave it out`);
  const isTyped = contentType === undefined || names.includes("content-type");
  const pairs = isTyped ? given : [...given, ["content-type", contentType] as const];
  return pairs.length === 0 ? null : JSON.stringify(valuesByName(pairs));
}

function refuseUnknown(problem: string | undefined): void {
  if (problem !== undefined) throw new PeerError("invalid_argument", problem);
}

function refuse(violation: Violation | undefined): void {
  if (violation === undefined) return;
  const { path, value, rule, remedy } = violation;
  throw new PeerError("invalid_argument", `${path} ${value}: ${rule}. ${remedy}`);
}
