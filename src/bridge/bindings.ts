/**
 * Bindings: the SQL functions that NATS reaches, as the database has them. Each is called through a wrapper in the schema
 * `hawser_run`, which belongs to the role that subscribed or registered, and which asks for a token.
 */
import { tables } from "../../generated/ts/rows/nats.js";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../postgres/index.js";
import { type Logger, ProblemLog, Repeated } from "../runtime/index.js";
import { explainServeRefusal, functionNameSql, wrapperJoinSql } from "../store/index.js";

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

/** Under which conditions messages of a stream may be committed. */
export interface StreamTerms {
  readonly generation: bigint;
  /** Which of the queues of the subscription the messages come from. */
  readonly lane: number;
  /** Start time of the Postgres server that the position was read from. Another one may lack commits that were confirmed. */
  readonly server: string;
  /** How many messages are not done, besides so many. */
  lag(count: number): number;
}

/** A function that is called for each message of a subject, or of a stream; then `subject` is the name of the subscription. */
export interface Subscription extends Binding {
  readonly kind: "subscription" | "stream";
  readonly stream?: StreamTerms;
  readonly takesSubject: boolean;
  readonly takesHeaders: boolean;
}

/** A function that answers requests. */
export interface Responder extends Binding {
  readonly kind: "responder";
}

/** All of them, by kind, the oldest first. */
export interface Bindings {
  readonly subscriptions: readonly Subscription[];
  readonly responders: readonly Responder[];
  /** Subscriptions to streams. */
  readonly streams: readonly Subscription[];
}

// Without its wrapper a binding is gone, whether its row is or not.
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
  readonly kind: "subscription" | "responder" | "stream";
  readonly subject: string;
  readonly functionName: string;
  readonly argumentTypes: string;
  readonly wrapper: string;
  readonly token: Buffer;
  readonly runAs: string;
  readonly isThere: boolean;
}

/** @throws what the session throws */
async function readBindings(session: PostgresSession): Promise<Bindings> {
  const rows = await session.query<BindingRow>(bindingsSql);
  const present = rows.filter(({ isThere }) => isThere);
  // Without event triggers nothing else deletes the rows of dropped functions.
  if (present.length < rows.length && !(await session.isStandby())) await session.query(pruneSql);
  return {
    subscriptions: present.filter(({ kind }) => kind === "subscription").map(subscriptionOf),
    streams: present.filter(({ kind }) => kind === "stream").map(subscriptionOf),
    responders: present.filter(({ kind }) => kind === "responder").map(responderOf),
  };
}

function subscriptionOf({ argumentTypes, isThere: _, ...row }: BindingRow): Subscription {
  return {
    ...row,
    kind: row.kind === "stream" ? "stream" : "subscription",
    takesSubject: argumentTypes !== "bytea",
    takesHeaders: argumentTypes === "bytea, text, jsonb",
  };
}

function responderOf({ argumentTypes: _, isThere: __, ...row }: BindingRow): Responder {
  return { ...row, kind: "responder" };
}

const { optionsPollMs } = gatewayConstants;

/** What a watch is made with, and what it tells. */
export interface BindingWatchOptions {
  readonly session: PostgresSession;
  readonly logger: Logger;
  /** The present bindings. If it rejects, that is logged like a failed reading. */
  onBindings(bindings: Bindings): Promise<void>;
  /** A reading has ended, with or without success. */
  onRead(): void;
}

/**
 * Follows which functions are bound: reads every few seconds, and when something may have changed. Failures are logged. After
 * `stop` it tells no bindings any more.
 */
export class BindingWatch extends Repeated {
  readonly #options: BindingWatchOptions;
  readonly #problems: ProblemLog;

  constructor(options: BindingWatchOptions) {
    super(optionsPollMs, () => this.#read());
    this.#options = options;
    this.#problems = new ProblemLog(options.logger);
  }

  async #read(): Promise<void> {
    const { session, onBindings, onRead } = this.#options;
    try {
      // After a promotion this makes the session listen.
      await session.isStandby();
      const bindings = await readBindings(session);
      if (this.isStopped) return;
      this.#problems.clear();
      await onBindings(bindings);
    } catch (cause) {
      if (this.isStopped) return;
      const { code, message } = await explainServeRefusal(session, "read which functions NATS reaches", cause);
      this.#problems.tell(message, "which functions NATS reaches cannot be read", { code });
    } finally {
      onRead();
    }
  }
}
