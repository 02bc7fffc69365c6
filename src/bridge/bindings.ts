/**
 * Which SQL functions NATS reaches, as the database says it.
 */
import { tables } from "../../generated/ts/rows/nats.js";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../postgres/index.js";
import type { Logger } from "../runtime/index.js";
import { explainServeRefusal, functionNameSql, wrapperJoinSql } from "../store/index.js";

/** All of them, by kind, the oldest first. */
export interface Bindings {
  readonly subscriptions: readonly Subscription[];
  readonly responders: readonly Responder[];
}

// Without its wrapper a handler is gone, whether its row is or not.
const bindingsSql = `
  SELECT h.id, h.kind, h.subject, ${functionNameSql} AS "functionName",
         h.argument_types AS "argumentTypes", h.wrapper, h.token, r.rolname AS "runAs", w.oid IS NOT NULL AS "isThere"
    FROM ${tables.natsHandler} AS h
    ${wrapperJoinSql("LEFT JOIN")}
    LEFT JOIN pg_roles AS r ON r.oid = w.proowner
   ORDER BY h.id`;

const pruneSql = "SELECT pruned FROM hawser.prune_handlers()";

interface BindingRow {
  readonly id: bigint;
  readonly kind: "subscription" | "responder";
  readonly subject: string;
  readonly functionName: string;
  readonly argumentTypes: string;
  readonly wrapper: string;
  readonly token: Buffer;
  readonly runAs: string;
  readonly isThere: boolean;
}

/** Reads them. @throws whatever the session throws */
async function readBindings(session: PostgresSession): Promise<Bindings> {
  const rows = await session.query<BindingRow>(bindingsSql);
  const present = rows.filter(({ isThere }) => isThere);
  // Where there are no event triggers, nobody else has noticed.
  if (present.length < rows.length && !(await session.isStandby())) await session.query(pruneSql);
  return {
    subscriptions: present.filter(({ kind }) => kind === "subscription").map(subscriptionOf),
    responders: present.filter(({ kind }) => kind === "responder").map(responderOf),
  };
}

function subscriptionOf({ argumentTypes, isThere: _, ...row }: BindingRow): Subscription {
  return {
    ...row,
    kind: "subscription",
    takesSubject: argumentTypes !== "bytea",
    takesHeaders: argumentTypes === "bytea, text, jsonb",
  };
}

function responderOf({ argumentTypes: _, isThere: __, ...row }: BindingRow): Responder {
  return { ...row, kind: "responder" };
}

/**
 * The SQL functions that NATS reaches, as the database has them. Each is called through a wrapper in the schema
 * `hawser_run`, which belongs to the role that subscribed or registered, and which asks for a token.
 */

interface Binding {
  readonly id: bigint;
  /** What it is subscribed to; may hold wildcards. */
  readonly subject: string;
  /** The function that was named, as people know it: `public.capture(bytea)`. */
  readonly functionName: string;
  /** The name of the wrapper within its schema. */
  readonly wrapper: string;
  /** What the wrapper demands of its caller. */
  readonly token: Uint8Array;
  /** The role that the function runs as: the owner of the wrapper. */
  readonly runAs: string;
}

/** A function that is called for each message. */
export interface Subscription extends Binding {
  readonly kind: "subscription";
  readonly takesSubject: boolean;
  readonly takesHeaders: boolean;
}

/** A function that answers requests. */
export interface Responder extends Binding {
  readonly kind: "responder";
}

const { optionsPollMs } = gatewayConstants;

/** Where it reads, and what is told of it. */
export interface BindingWatchOptions {
  readonly session: PostgresSession;
  readonly logger: Logger;
  /** What there is now. What it rejects with is told as if it could not be read. */
  onBindings(handlers: Bindings): Promise<void>;
  /** A reading has ended, however it went. */
  onRead(): void;
}

export class BindingWatch {
  readonly #options: BindingWatchOptions;
  #reading: Promise<void> | undefined;
  #readsAgain = false;
  #timer: NodeJS.Timeout | undefined;
  /** What was last logged of why it cannot be read. */
  #problem: string | undefined;
  #isStopped = false;

  constructor(options: BindingWatchOptions) {
    this.#options = options;
  }

  /** Reads, now and from then on; what goes wrong is logged, and the next reading comes all the same. Does not reject. */
  read(): Promise<void> {
    clearTimeout(this.#timer);
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
      const again = this.#readsAgain;
      this.#readsAgain = false;
      if (this.#isStopped) return;
      if (again) void this.read();
      else this.#timer = setTimeout(() => void this.read(), optionsPollMs);
    });
    return this.#reading;
  }

  /** Reads once more if a reading is under way: it may have begun before the change. */
  soon(): void {
    if (this.#reading === undefined) void this.read();
    else this.#readsAgain = true;
  }

  /** Resolves after a reading that began after this call. Does not reject. */
  async fresh(): Promise<void> {
    await this.#reading;
    await this.read();
  }

  /** Reads no more by itself, and tells nothing any more of what it reads. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  /** Resolves when no reading is under way. Does not reject. */
  async ended(): Promise<void> {
    await this.#reading;
  }

  async #read(): Promise<void> {
    const { session, logger, onBindings, onRead } = this.#options;
    try {
      // It listens once it can.
      await session.isStandby();
      const handlers = await readBindings(session);
      if (this.#isStopped) return;
      this.#problem = undefined;
      await onBindings(handlers);
    } catch (cause) {
      if (this.#isStopped) return;
      const { code, message } = await explainServeRefusal(session, "read which functions NATS reaches", cause);
      const level = message === this.#problem ? "debug" : "warn";
      this.#problem = message;
      logger[level]({ code, problem: message }, "which functions NATS reaches cannot be read");
    } finally {
      onRead();
    }
  }
}
