/** Message of the queue: a job. */
import type { TakeResult } from "../../../generated/ts/rows/queue.js";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { type HandledMessage, type Headers, headerValue, type KeptResult, type Origin } from "../channel/index.js";

const { messageIdHeader, messageKeyHeader, messageOriginHeader } = protocolConstants;

/** Place of a message in the queue, by which its worker names it. */
export interface QueuePlace {
  readonly topic: string;
  /** Who may have it: empty for any listener of the topic, `@name` for one, `#group` for the members of a group. */
  readonly recipient: string;
  /** Role that enqueued it. */
  readonly role: string;
  /** Place in line: messages of one topic, recipient and role are taken, and those of one key handled, in the order of their ranks. */
  readonly rank: bigint;
}

/** Columns of the row of a message, as `take` returns them. */
type QueuedColumns = QueuePlace &
  Pick<TakeResult, "key" | "attempts" | "isSuspect" | "wasRunning" | "isUnique" | "isKept">;

/** Payload and headers of a message, and the fault of a row that breaks a rule. */
interface QueuedContent {
  readonly payload: Uint8Array;
  /** Empty if there are none. */
  readonly headers: Headers;
  readonly fault: string | undefined;
}

export class QueuedMessage implements HandledMessage, QueuePlace {
  readonly topic: string;
  readonly recipient: string;
  readonly role: string;
  readonly rank: bigint;
  /** The id that its enqueue returned. */
  readonly id: bigint;
  /** Identity of the server that it was taken from: another one may have another message in this place. */
  readonly server: string | undefined;
  /** Messages of one lane are handled one after another: those of a key, or of one that was sent, of its channel. Undefined for none. */
  readonly lane: string | undefined;
  payload: Uint8Array;
  headers: Headers | undefined;
  fault: string | undefined;
  /** Number of failed attempts, those included that ended with their process. */
  readonly failedAttempts: number;
  /** True if it may have ended a process. */
  readonly isSuspect: boolean;
  /** True if its handler is known to have run when a process ended. Otherwise it has its last attempt, whatever was counted. */
  readonly wasRunning: boolean;
  /** True if it has a unique key. */
  readonly isUnique: boolean;
  /** True if its result is kept. */
  readonly isKept: boolean;
  /** Result, which its worker sets if it is kept. */
  kept: KeptResult | undefined;
  readonly isAtMostOnce: boolean;
  readonly fromWire: boolean;

  constructor(row: QueuedColumns, id: bigint, content: QueuedContent, server: string | undefined) {
    this.topic = row.topic;
    this.recipient = row.recipient;
    this.role = row.role;
    this.rank = row.rank;
    this.id = id;
    this.server = server;
    this.lane = row.key ?? undefined;
    this.payload = content.payload;
    this.headers = content.headers.length > 0 ? content.headers : undefined;
    this.fault = content.fault;
    this.failedAttempts = row.attempts ?? 0;
    this.isSuspect = row.isSuspect === true;
    this.wasRunning = row.wasRunning === true;
    this.isUnique = row.isUnique === true;
    this.isKept = row.isKept === true;
    this.kept = undefined;
    this.isAtMostOnce = false;
    this.fromWire = false;
  }

  /** Takes over what its enqueuer has replaced its content with before its start. */
  replaceContent({ payload, headers, fault }: QueuedContent): void {
    this.payload = payload;
    this.headers = headers.length > 0 ? headers : undefined;
    this.fault = fault;
  }

  /** True if it was sent to a listener, which could not handle it at once. The database has set the header that says so. */
  get #wasSent(): boolean {
    return this.#origin?.[2] === "";
  }

  get key(): string | undefined {
    return this.#wasSent ? headerValue(this.headers!, messageKeyHeader) : this.lane;
  }

  get messageId(): string {
    const given = this.#wasSent ? headerValue(this.headers!, messageIdHeader) : undefined;
    return given ?? String(this.id);
  }

  get sentId(): string | undefined {
    const { messageId, sender } = this;
    // The sender does not know its place in the channel.
    return this.#wasSent && messageId.startsWith(`${sender!.name}:${sender!.topic}:`) ? undefined : messageId;
  }

  get sender(): Origin | undefined {
    const [name = "", topic = ""] = this.#origin ?? [];
    return name === "" ? undefined : { name, topic };
  }

  get enqueuedBy(): string | undefined {
    return this.#wasSent ? undefined : this.#origin?.slice(2).join(":");
  }

  /** Name and topic of the peer that enqueued it, both empty if none did, and the database role. The database has set this header. */
  get #origin(): readonly string[] | undefined {
    return (this.headers && headerValue(this.headers, messageOriginHeader))?.split(":");
  }
}

/** Key that names the row of a message. Topics, recipients and roles have no such character. */
export const rowOf = ({ topic, recipient, role, rank }: QueuePlace): string =>
  `${topic}\u0001${recipient}\u0001${role}\u0001${rank}`;

/** Key that messages share which are handled one after another. */
export const keyOf = ({ topic, recipient, role, lane }: QueuePlace & { readonly lane: string | undefined }): string =>
  `${topic}\u0001${recipient}\u0001${role}\u0001${lane}`;
