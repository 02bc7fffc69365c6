/**
 * SQL calls of the relay. Each call is one statement and its own transaction. A turn is the call in which the relay saves
 * its position and reads the next messages.
 */
import { type OutboxFunctions, type OutboxTurnNatsResult, outboxFunctions } from "../../../generated/ts/rows/outbox.js";
import { limits } from "../../../generated/ts/rules/peer/catalog.js";
import { shortened } from "../../foundation/errors/index.js";
import { functionClient, isServerError, type SessionQuery } from "../../foundation/postgres/index.js";
import type { DoubtfulMessage } from "./doubt.js";
import { type DueFound, earliest } from "./poll-pace.js";
import type { OutboxMessage, OutboxPosition, TurnOutcome, TurnStep } from "./relay.js";

/** Enqueued message for NATS. */
export interface EnqueuedMessage extends OutboxMessage, DoubtfulMessage {
  /** Empty if the message will be refused. */
  readonly payload: Uint8Array;
  /** JSON object whose values are strings or arrays of strings. */
  readonly headers: unknown;
  readonly messageId: string;
  readonly toStream: boolean;
  readonly domain: string | undefined;
  readonly enqueuedAt: Date;
}

/** State of the outbox at a takeover. */
export interface TakenOutbox {
  readonly turn: bigint;
  readonly position: OutboxPosition;
  /** True if enqueueing transactions can notify the relay. */
  readonly canNotify: boolean;
  /** True if the previous relay has stopped, so that it publishes no more messages. */
  readonly wasGivenBack: boolean;
}

/** SQLSTATE of a turn whose number another relay has used. */
const uniqueViolation = "23505";

/** Approximate memory of a message besides its payload. */
const messageOverheadBytes = 500;

type Row = OutboxTurnNatsResult;

export class OutboxTable {
  readonly #functions: OutboxFunctions;
  readonly #maxPayload: () => number | undefined;

  /**
   * @param maxPayload maximum message size of the NATS server in bytes, undefined if unknown. Larger payloads are not
   * read
   */
  constructor(query: SessionQuery, maxPayload: () => number | undefined) {
    this.#maxPayload = maxPayload;
    this.#functions = outboxFunctions(functionClient(query));
  }

  /**
   * Takes the outbox over from whichever relay is active.
   *
   * @returns undefined if another relay did so at the same time
   * @throws the error of Postgres
   */
  async take(owner: string): Promise<TakenOutbox | undefined> {
    const taken = await this.#undefinedIfRaced(() => this.#functions.outboxTake({ owner, after: null }));
    if (taken === undefined || taken.turn === null) return undefined;
    const { turn, doneFrom, doneTo, doneAfter, series, skipped, canNotify, wasGivenBack } = taken;
    return {
      turn,
      position: {
        from: doneFrom!,
        to: doneTo ?? undefined,
        after: doneAfter!,
        series: (series as SavedSeries[]).map(({ role, route, from, to, after: done }) => {
          return { role, route: route ?? undefined, from, to: to ?? undefined, after: BigInt(done) };
        }),
        skipped: skipped ?? [],
      },
      canNotify: canNotify!,
      wasGivenBack: wasGivenBack!,
    };
  }

  /**
   * Releases the outbox. All messages that were read must be done.
   *
   * @throws the error of Postgres; an error if another relay is active
   */
  async release(owner: string): Promise<void> {
    await this.#functions.outboxTake({ owner: "", after: owner });
  }

  /** Runs a turn of the relay. @throws the error of Postgres, unless another relay is active */
  async turn(owner: string, step: TurnStep<EnqueuedMessage>): Promise<TurnOutcome<EnqueuedMessage>> {
    const { position, read } = step;
    const dead = step.dead.map(({ message, refusal, attempts }) => {
      return { id: String(message.id), code: refusal.code, message: storable(refusal.message), attempts };
    });
    const poll = read?.kind === "poll" ? read : undefined;
    const page = read?.kind === "page" ? read : undefined;
    const maxPayload = this.#maxPayload();
    const startedAt = performance.now();
    const args = {
      owner,
      turn: step.turn,
      doneFrom: position.from,
      doneTo: position.to ?? null,
      doneAfter: position.after,
      series: JSON.stringify(position.series, asSaved),
      skipped: position.skipped,
      mustSave: step.mustSave,
      dead: dead.length === 0 ? null : JSON.stringify(dead),
      asleep: step.asleep ?? null,
      read: read?.kind ?? null,
      readFrom: read?.from ?? null,
      readTo: page?.to ?? null,
      readAfter: page?.after ?? null,
      readSeries: poll === undefined ? null : JSON.stringify(poll.series),
      readRole: page?.role ?? null,
      readRoute: page?.route ?? null,
      readExcluded: page === undefined || page.excluded.length === 0 ? null : JSON.stringify(page.excluded),
      maxMessages: read?.maxMessages ?? 1,
      maxBytes: BigInt(read?.maxBytes ?? 0),
      maxPayload: maxPayload === undefined ? null : BigInt(maxPayload),
      dueFrom: step.dueFrom === undefined ? null : JSON.stringify([...step.dueFrom]),
      laterFrom: poll?.laterFrom ?? null,
    };
    const rows = await this.#undefinedIfRaced(() => this.#functions.outboxTurnNats(args));
    const last = rows?.pop();
    if (last === undefined || last.state === "lost") return { kind: "deposed" };
    if (last.state === "repeated") return { kind: "done", isSaved: true };
    const outcome = { kind: "done", isSaved: last.state === "saved", due: dueOf(last) } as const;
    if (read === undefined) return outcome;
    const asOf = { asOf: last.asOf!.getTime(), after: startedAt, before: performance.now() };
    const messages = rows!.map((row) => messageOf(row, asOf, maxPayload));
    if (read.kind === "page") return { ...outcome, found: { kind: "page", messages, hasMore: last.hasMore === true } };
    const rest = ((last.rest ?? []) as SavedSeries[]).map(({ role, route, after }) => {
      return { role, route: route ?? undefined, after: BigInt(after) };
    });
    return { ...outcome, found: { kind: "poll", to: last.doneTo!, messages, rest } };
  }

  /** Truncates the oldest segment, if possible. @throws the error of Postgres */
  async rotate(owner: string, retentionMs: number): Promise<boolean> {
    return (await this.#functions.outboxRotate({ owner, retentionMs: BigInt(retentionMs) })).rotated;
  }

  /** Returns undefined if another relay has used the turn's number. */
  async #undefinedIfRaced<T>(call: () => Promise<T>): Promise<T | undefined> {
    try {
      return await call();
    } catch (error) {
      if (isServerError(error) && error.code === uniqueViolation) return undefined;
      throw error;
    }
  }
}

/** Series in the JSON format of the column. */
interface SavedSeries {
  readonly role: string;
  readonly route?: string | null;
  readonly from: string;
  readonly to?: string | null;
  readonly after: number | string;
}

/** Converts ids to text, because JSON has no bigint. */
function asSaved(_name: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

/** Due times of a turn. */
function dueOf({ brought, dueFrom, dueInMs }: Pick<Row, "brought" | "dueFrom" | "dueInMs">): DueFound {
  return {
    moved: brought ?? 0,
    next:
      dueFrom === null ? undefined : { from: earliest(dueFrom as [role: string, ms: number][]), inMs: Number(dueInMs) },
  };
}

/** Text that a dead letter can store. A turn that Postgres refuses would be refused on every repetition. */
function storable(text: string): string {
  return shortened(Buffer.from(text).toString().replaceAll("\0", ""), limits.DeadLetter.errorMessage.maxBytes);
}

const noPayload = new Uint8Array();

/** Postgres time, with the range of `performance.now()` in which it was read. */
interface AsOf {
  readonly asOf: number;
  readonly after: number;
  readonly before: number;
}

function messageOf(row: Row, { asOf, after, before }: AsOf, maxPayload: number | undefined): EnqueuedMessage {
  const destination = row.destination!;
  const role = row.role!;
  const toStream = row.toStream!;
  const domain = row.domain ?? undefined;
  const enqueuedAt = row.enqueuedAt!;
  const { firstEnqueuedAt } = row;
  const route = toStream && domain !== undefined ? `domain ${domain}` : destination;
  return {
    id: row.id!,
    role,
    route,
    lane: row.key === null ? undefined : [role, route, destination, row.key].join("\0"),
    destination,
    bytes: (row.payload === null ? 0 : Number(row.bytes)) + messageOverheadBytes,
    refusal:
      row.payload === null
        ? {
            code: "payload_too_large",
            message: `The payload and headers have ${row.bytes} bytes, and the NATS server takes ${maxPayload} at most (max_payload).`,
          }
        : undefined,
    payload: row.payload ?? noPayload,
    headers: row.headers,
    messageId: row.messageId!,
    toStream,
    domain,
    enqueuedAt,
    // Ages are computed from the Postgres clock alone, since the local clock may differ.
    enqueuedBy: before - (asOf - enqueuedAt.getTime()),
    mayBeThereSince: after - (asOf - (firstEnqueuedAt ?? enqueuedAt).getTime()),
    isRepeated: firstEnqueuedAt !== null,
    copyOf: row.copyOf ?? undefined,
  };
}
