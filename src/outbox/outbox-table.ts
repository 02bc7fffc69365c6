/**
 * The outbox in Postgres, as relays use it: each call is one statement, and a transaction of its own.
 */
import { type OutboxFunctions, outboxFunctions } from "../../generated/ts/rows/outbox.js";
import { limits } from "../../generated/ts/rules/peer/catalog.js";
import { shortened } from "../errors/index.js";
import { isServerError, type PostgresSession } from "../postgres/index.js";
import type { DueFound } from "../runtime/index.js";
import type { DoubtfulMessage } from "./doubt.js";
import type { OutboxMessage, OutboxPosition, TurnOutcome, TurnStep } from "./relay.js";

/** The sinks of the outbox, as the database names them. */
export type OutboxKind = "nats" | "peer";

/** A message for NATS as it was enqueued. */
export interface EnqueuedMessage extends OutboxMessage, DoubtfulMessage {
  /** Empty if the message is refused anyway. */
  readonly payload: Uint8Array;
  /** A JSON object of strings, or of arrays of strings. */
  readonly headers: unknown;
  readonly messageId: string;
  readonly toStream: boolean;
  readonly domain: string | undefined;
  readonly enqueuedAt: Date;
}

/** What a relay begins with. */
export interface TakenOutbox {
  readonly turn: bigint;
  /** Of a relay for peers it is the database's. */
  readonly position: OutboxPosition;
  /** Those who enqueue can notify the relay. */
  readonly canNotify: boolean;
  /** The relay before has ended: it publishes nothing more. */
  readonly wasGivenBack: boolean;
}

/** A turn of a relay for peers. */
export interface HandOver {
  /** Whether those who enqueue have to notify from now on; undefined: as before. */
  readonly asleep: boolean | undefined;
  /** What is due is brought in, and was not due before this time; undefined: nothing is. */
  readonly dueFrom: number | undefined;
  readonly laterFrom: string | undefined;
  readonly maxMessages: number;
  readonly maxBytes: number;
  /** Looks up the topics that wait for their first listener. */
  readonly adopts: boolean;
}

/** SQLSTATE of a turn that another relay has had. */
const uniqueViolation = "23505";

/** What a message takes besides its payload, about. */
const messageOverheadBytes = 500;

type Row = Awaited<ReturnType<OutboxFunctions["outboxTurn"]>>[number];

type TurnArguments = Parameters<OutboxFunctions["outboxTurn"]>[0];

/**
 * What a turn of a relay for peers has done. `doneTo` is the snapshot that it has taken. `connectionKeys` are the channels that have new
 * messages, and `owners` the listener of each, to be notified; an empty name: there is none yet. `waiting` are the topics that
 * have new messages for whichever member of a group claims them.
 */
export interface HandedOver
  extends Pick<Row, "handed" | "hasMore" | "doneTo" | "connectionKeys" | "owners" | "waiting"> {
  readonly due: DueFound;
}

export class OutboxTable {
  readonly #kind: OutboxKind;
  readonly #functions: OutboxFunctions;
  readonly #maxPayload: () => number | undefined;

  /**
   * @param maxPayload the greatest message that the NATS server takes, in bytes; payloads of longer ones are not read.
   * undefined: not known
   */
  constructor(
    kind: OutboxKind,
    session: Pick<PostgresSession, "query">,
    maxPayload = (): number | undefined => undefined,
  ) {
    this.#kind = kind;
    this.#maxPayload = maxPayload;
    this.#functions = outboxFunctions({
      query: async ({ text, values }) => ({ rows: await session.query(text, values) }),
    });
  }

  /**
   * Takes over.
   *
   * @param after only if this relay works
   * @returns undefined if another relay works, and goes on
   * @throws the error of Postgres
   */
  async take(owner: string, after: string | null = null): Promise<TakenOutbox | undefined> {
    const taken = await this.#unlessRaced(() => this.#functions.outboxTake({ kind: this.#kind, owner, after }));
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

  /** The relay has ended, and everything that it has read is done. @throws the error of Postgres; if another one works */
  async giveBack(owner: string): Promise<void> {
    await this.#functions.outboxTake({ kind: this.#kind, owner: "", after: owner });
  }

  /** Runs a turn of a relay for NATS. @throws the error of Postgres, unless it says that another relay works */
  async turn(owner: string, step: TurnStep<EnqueuedMessage>): Promise<TurnOutcome<EnqueuedMessage>> {
    const { position, read } = step;
    const dead = step.dead.map(({ message, refusal, attempts }) => {
      return { id: String(message.id), code: refusal.code, message: storable(refusal.message), attempts };
    });
    const look = read?.kind === "look" ? read : undefined;
    const page = read?.kind === "page" ? read : undefined;
    const maxPayload = this.#maxPayload();
    const begunAt = performance.now();
    const rows = await this.#run(owner, {
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
      readSeries: look === undefined ? null : JSON.stringify(look.series),
      readRole: page?.role ?? null,
      readRoute: page?.route ?? null,
      readExcluded: page === undefined || page.excluded.length === 0 ? null : JSON.stringify(page.excluded),
      maxMessages: read?.maxMessages ?? 0,
      maxBytes: BigInt(read?.maxBytes ?? 0),
      maxPayload: maxPayload === undefined ? null : BigInt(maxPayload),
      dueFrom: dateOf(step.dueFrom),
      laterFrom: look?.laterFrom ?? null,
    });
    const last = rows?.pop();
    if (last === undefined || last.state === "lost") return { kind: "deposed" };
    if (last.state === "repeated") return { kind: "done", isSaved: true };
    const outcome = { kind: "done", isSaved: last.state === "saved", due: dueOf(last) } as const;
    if (read === undefined) return outcome;
    const asOf = { asOf: last.asOf!.getTime(), after: begunAt, before: performance.now() };
    const messages = rows!.map((row) => messageOf(row, asOf, maxPayload));
    if (read.kind === "page") return { ...outcome, found: { kind: "page", messages, hasMore: last.hasMore === true } };
    const rest = ((last.rest ?? []) as SavedSeries[]).map(({ role, route, after }) => {
      return { role, route: route ?? undefined, after: BigInt(after) };
    });
    return { ...outcome, found: { kind: "look", to: last.doneTo!, messages, rest } };
  }

  /** Runs a turn of a relay for peers. @returns undefined if another relay works @throws the error of Postgres */
  async handOver(owner: string, step: HandOver): Promise<HandedOver | undefined> {
    const rows = await this.#run(owner, {
      asleep: step.asleep ?? null,
      dueFrom: dateOf(step.dueFrom),
      laterFrom: step.laterFrom ?? null,
      maxMessages: step.maxMessages,
      maxBytes: BigInt(step.maxBytes),
      adopts: step.adopts,
    });
    const last = rows?.at(-1);
    return last === undefined || last.state === "lost" ? undefined : { ...last, due: dueOf(last) };
  }

  /** Truncates the oldest slot, if that is possible. @throws the error of Postgres */
  async rotate(owner: string, retentionMs: number): Promise<boolean> {
    return (await this.#functions.outboxRotate({ kind: this.#kind, owner, retentionMs: BigInt(retentionMs) })).rotated;
  }

  #run(owner: string, args: Partial<TurnArguments>): Promise<Row[] | undefined> {
    return this.#unlessRaced(() => this.#functions.outboxTurn({ ...nothing, ...args, kind: this.#kind, owner }));
  }

  /** @returns undefined if another relay has had that turn meanwhile */
  async #unlessRaced<T>(call: () => Promise<T>): Promise<T | undefined> {
    try {
      return await call();
    } catch (error) {
      if (isServerError(error) && error.code === uniqueViolation) return undefined;
      throw error;
    }
  }
}

/** A series as the column has it. */
interface SavedSeries {
  readonly role: string;
  readonly route?: string | null;
  readonly from: string;
  readonly to?: string | null;
  readonly after: number | string;
}

/** An id is a text there: JSON knows no bigint. */
function asSaved(_name: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

const nothing: Omit<TurnArguments, "kind" | "owner"> = {
  asleep: null,
  dueFrom: null,
  laterFrom: null,
  maxMessages: 0,
  maxBytes: 0n,
  adopts: false,
  turn: null,
  doneFrom: null,
  doneTo: null,
  doneAfter: null,
  series: null,
  skipped: [],
  mustSave: null,
  dead: null,
  read: null,
  readFrom: null,
  readTo: null,
  readAfter: null,
  readSeries: null,
  readRole: null,
  readRoute: null,
  readExcluded: null,
  maxPayload: null,
};

function dateOf(time: number | undefined): Date | null {
  return time === undefined ? null : new Date(time);
}

/** A Date has whole milliseconds, rounded down: it is never behind the time. */
function dueOf({ brought, dueFrom, dueInMs }: Row): DueFound {
  return {
    brought: brought ?? 0,
    next: dueFrom === null ? undefined : { from: dueFrom.getTime(), inMs: Number(dueInMs) },
  };
}

/** What a dead letter can have: a turn that Postgres refuses would be refused for ever. */
function storable(text: string): string {
  return shortened(Buffer.from(text).toString().replaceAll("\0", ""), limits.DeadLetter.errorMessage.maxBytes);
}

const noPayload = new Uint8Array();

/** A time of Postgres, and between which times of `performance.now()` it was. */
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
    // Ages by the clock of Postgres alone: the others may be wrong.
    enqueuedBy: before - (asOf - enqueuedAt.getTime()),
    mayBeThereSince: after - (asOf - (firstEnqueuedAt ?? enqueuedAt).getTime()),
    isRepeated: firstEnqueuedAt !== null,
    copyOf: row.copyOf ?? undefined,
  };
}
