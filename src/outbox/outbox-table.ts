/**
 * The outbox in Postgres, as a relay uses it: each call is one statement, and a transaction of its own.
 */
import { type OutboxFunctions, outboxFunctions } from "../../generated/ts/rows/outbox.js";
import { limits } from "../../generated/ts/rules/peer/catalog.js";
import { shortened } from "../errors/index.js";
import { isServerError, type PostgresSession } from "../postgres/index.js";
import type { OutboxMessage, OutboxPosition, OutboxRead, Snapshot, TurnOutcome, TurnStep } from "./relay.js";

/** A message as it was enqueued. */
export interface EnqueuedMessage extends OutboxMessage {
  readonly payload: Uint8Array;
  /** A JSON object of strings, or of arrays of strings. */
  readonly headers: unknown;
  readonly messageId: string;
  readonly toStream: boolean;
  readonly domain: string | undefined;
  readonly enqueuedAt: Date;
  /** It is published again, or was due later: its stream may have it since then. */
  readonly firstEnqueuedAt: Date | undefined;
  /** When this process had read it, by `performance.now()`. */
  readonly readAt: number;
}

/** What a relay begins with. */
export interface TakenOutbox {
  readonly turn: bigint;
  readonly position: OutboxPosition;
  /** Those who enqueue can notify it. */
  readonly canNotify: boolean;
  /** The relay before has ended: it publishes nothing more. */
  readonly wasGivenBack: boolean;
}

/** SQLSTATE of a turn that another relay has had. */
const uniqueViolation = "23505";

/** What a message takes besides its payload, about. */
const messageOverheadBytes = 500;

export class OutboxTable {
  readonly #functions: OutboxFunctions;
  #position: OutboxPosition | undefined;

  /** @param session is to commit synchronously */
  constructor(session: Pick<PostgresSession, "query">) {
    this.#functions = outboxFunctions({
      query: async ({ text, values }) => ({ rows: await session.query(text, values) }),
    });
  }

  /** Takes over. @throws the error of Postgres */
  async take(owner: string): Promise<TakenOutbox> {
    const { turn, doneFrom, doneTo, doneAfter, skipped, canNotify, wasGivenBack } = await this.#functions.takeOutbox({
      owner,
      after: null,
    });
    return {
      turn,
      position: { from: doneFrom, to: doneTo ?? undefined, after: doneAfter, skipped, series: [] },
      canNotify,
      wasGivenBack,
    };
  }

  /** The relay has ended, and everything that it has read is done. @throws the error of Postgres; if another one works */
  async giveBack(owner: string): Promise<void> {
    await this.#functions.takeOutbox({ owner: "", after: owner });
  }

  /** @throws the error of Postgres, unless it says that another relay works */
  async turn(owner: string, step: TurnStep<EnqueuedMessage>): Promise<TurnOutcome<EnqueuedMessage>> {
    // The functions know no series yet, and all messages are of one role: while there is a series, the position waits.
    if (step.position.series.length === 0) this.#position = step.position;
    const position = this.#position ?? step.position;
    const read = rangeOf(step.read);
    const dead = step.dead.map(({ message, refusal, attempts }) => {
      return { id: String(message.id), code: refusal.code, message: storable(refusal.message), attempts };
    });
    let rows: Awaited<ReturnType<OutboxFunctions["runOutboxTurn"]>>;
    try {
      rows = await this.#functions.runOutboxTurn({
        owner,
        turn: step.turn,
        doneFrom: position.from,
        doneTo: position.to ?? null,
        doneAfter: position.after,
        skipped: position.skipped,
        mustSave: step.mustSave,
        dead: dead.length === 0 ? null : JSON.stringify(dead),
        asleep: step.asleep ?? null,
        readFrom: read?.from ?? null,
        readTo: read?.to ?? null,
        readAfter: read?.after ?? 0n,
        maxMessages: step.read?.maxMessages ?? 0,
        maxBytes: BigInt(step.read?.maxBytes ?? 0),
        dueFrom: step.dueFrom === undefined ? null : new Date(step.dueFrom),
        laterFrom: read?.laterFrom ?? null,
      });
    } catch (error) {
      if (isServerError(error) && error.code === uniqueViolation) return { kind: "deposed" };
      throw error;
    }
    const last = rows.pop();
    if (last === undefined || last.state === "lost") return { kind: "deposed" };
    if (last.state === "repeated") return { kind: "done", isSaved: true };
    const isSaved = last.state === "saved";
    // A Date has whole milliseconds, rounded down: it is never behind the time.
    const next = last.dueFrom === null ? undefined : { from: last.dueFrom.getTime(), inMs: Number(last.dueInMs) };
    const done = { kind: "done", isSaved, due: { brought: last.brought ?? 0, next } } as const;
    if (step.read?.kind === "look" && read === undefined)
      return { ...done, found: { kind: "look", to: step.read.from, messages: [], rest: [] } };
    if (last.doneTo === null || step.read === undefined) return done;
    const readAt = performance.now();
    const messages = rows.map((row) => messageOf(row, readAt));
    const hasMore = last.hasMore === true;
    if (step.read.kind === "page") return { ...done, found: { kind: "page", messages, hasMore } };
    const rest = hasMore ? [{ role: "", route: undefined }] : [];
    return { ...done, found: { kind: "look", to: last.doneTo, messages, rest } };
  }

  /** Truncates the oldest slot, if that is possible. @throws the error of Postgres */
  async rotate(owner: string, retentionMs: number): Promise<boolean> {
    return (await this.#functions.rotateOutbox({ owner, retentionMs: BigInt(retentionMs) })).rotated;
  }
}

/** What the functions read, of the only series that there can be; undefined: nothing. */
function rangeOf(
  read: OutboxRead | undefined,
): { from: Snapshot; to?: Snapshot; after?: bigint; laterFrom?: Snapshot | undefined } | undefined {
  if (read?.kind !== "look") return read;
  const { series, laterFrom } = read;
  if (series.some(({ joins }) => !joins)) return undefined;
  return { from: series[0]?.from ?? read.from, laterFrom };
}

/** What a dead letter can have: a turn that Postgres refuses would be refused for ever. */
function storable(text: string): string {
  return shortened(Buffer.from(text).toString().replaceAll("\0", ""), limits.DeadLetter.errorMessage.maxBytes);
}

type Row = Awaited<ReturnType<OutboxFunctions["runOutboxTurn"]>>[number];

function messageOf(row: Row, readAt: number): EnqueuedMessage {
  const destination = row.destination!;
  const payload = row.payload!;
  return {
    id: row.id!,
    role: "",
    route: "",
    refusal: undefined,
    lane: row.key === null ? undefined : `${destination} ${row.key}`,
    destination,
    bytes: payload.length + (row.headers === null ? 0 : JSON.stringify(row.headers).length) + messageOverheadBytes,
    payload,
    headers: row.headers,
    messageId: row.messageId!,
    toStream: row.toStream!,
    domain: row.domain ?? undefined,
    enqueuedAt: row.enqueuedAt!,
    copyOf: row.copyOf ?? undefined,
    firstEnqueuedAt: row.firstEnqueuedAt ?? undefined,
    readAt,
  };
}
