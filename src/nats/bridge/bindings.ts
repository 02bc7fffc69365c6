/**
 * Bindings: the SQL functions that NATS reaches, read from the database. Hawser calls each through a wrapper in the
 * schema `hawser_run`. The wrapper is owned by the role that subscribed or registered, and checks a token.
 */

import { notifyChannels, tables } from "../../../generated/ts/rows/nats.js";
import { DatabaseAddress, PostgresSession } from "../../foundation/postgres/index.js";
import { type Logger, ProblemLog, Repeated } from "../../foundation/runtime/index.js";
import { explainServeRefusal } from "../../jobs-and-peers/migrations/index.js";
import { functionNameSql, mayBindSql, optionsPollMs, wrapperJoinSql } from "../../operating/installation/index.js";

interface Binding {
  readonly id: bigint;
  /** NATS subject of the binding; may contain wildcards. */
  readonly subject: string;
  /** Signature of the bound function, as users write it: `public.capture(bytea)`. */
  readonly functionName: string;
  /** Name of the wrapper, without its schema. */
  readonly wrapper: string;
  /** Secret that the wrapper requires as an argument. */
  readonly token: Uint8Array;
  /** Role that the function runs as: the owner of the wrapper. */
  readonly runAs: string;
}

/** State of a stream subscription that each commit of its messages is checked against. */
export interface StreamTerms {
  readonly generation: bigint;
  /** Number of the lane (one of the subscription's queues) that the messages are in. */
  readonly lane: number;
  /**
   * Start time of the Postgres server that the position was read from. Another server may lack commits that this one
   * confirmed.
   */
  readonly server: string;
  /** Number of messages of the stream that remain after a commit of `count` messages. */
  lag(count: number): number;
}

/**
 * Function that is called for each message or batch of a subject or stream. For a stream, `subject` is the name of the
 * subscription.
 */
export interface Subscription extends Binding {
  readonly kind: "subscription" | "stream";
  readonly stream?: StreamTerms;
  readonly takesSubject: boolean;
  readonly takesHeaders: boolean;
}

/** Function that answers requests. */
export interface Responder extends Binding {
  readonly kind: "responder";
}

/** Bindings by kind, oldest first. */
export interface Bindings {
  readonly subscriptions: readonly Subscription[];
  readonly responders: readonly Responder[];
  /** Subscriptions to JetStream streams. */
  readonly streams: readonly Subscription[];
  /** Ids of the bindings for which messages are saved. */
  readonly saved: readonly bigint[];
}

// Bound functions are called only through their wrapper, so a row whose wrapper was dropped is no longer a binding.
const bindingsSql = `
  SELECT h.id, h.kind, h.subject, ${functionNameSql} AS "functionName",
         h.argument_types AS "argumentTypes", h.wrapper, h.token, r.rolname AS "runAs", w.oid IS NOT NULL AS "hasWrapper",
         ${mayBindSql} AS "mayBind",
         EXISTS (SELECT FROM ${tables.savedMessage} AS s WHERE s.handler_id = h.id) AS "hasSaved"
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
  readonly hasWrapper: boolean;
  /** False if the role may not subscribe any more: its function is not called. */
  readonly mayBind: boolean;
  readonly hasSaved: boolean;
}

/** @throws errors of the session */
async function readBindings(session: PostgresSession): Promise<Bindings> {
  const rows = await session.query<BindingRow>(bindingsSql);
  const present = rows.filter(({ hasWrapper }) => hasWrapper);
  // Without event triggers, only this statement deletes the rows of dropped functions.
  if (present.length < rows.length && !(await session.isStandby())) await session.query(pruneSql);
  const permitted = present.filter(({ mayBind }) => mayBind);
  return {
    subscriptions: permitted.filter(({ kind }) => kind === "subscription").map(subscriptionOf),
    streams: permitted.filter(({ kind }) => kind === "stream").map(subscriptionOf),
    responders: permitted
      .filter(({ kind }) => kind === "responder")
      .map((row) => ({ ...bindingOf(row), kind: "responder" })),
    saved: rows.filter(({ hasSaved }) => hasSaved).map(({ id }) => id),
  };
}

function bindingOf({ id, subject, functionName, wrapper, token, runAs }: BindingRow): Binding {
  return { id, subject, functionName, wrapper, token, runAs };
}

function subscriptionOf(row: BindingRow): Subscription {
  return {
    ...bindingOf(row),
    kind: row.kind === "stream" ? "stream" : "subscription",
    takesSubject: row.argumentTypes.includes("text"),
    takesHeaders: row.argumentTypes.includes("jsonb"),
  };
}

/** Database and callbacks of a {@link BindingWatch}. */
export interface BindingWatchOptions {
  readonly databaseUrl: string | undefined;
  readonly logger: Logger;
  /** Receives the current bindings. A rejection is logged like a failed read. */
  onBindings(bindings: Bindings): Promise<void>;
  /** Called after each read, successful or not. */
  onRead(): void;
}

/**
 * Reads the bindings every few seconds, and whenever a notification reports a change. Logs failed reads. Does not call
 * `onBindings` after `stop`. Owns the session with Postgres, which the other parts of the bridge share.
 */
export class BindingWatch extends Repeated {
  /** The caller closes it. */
  readonly session: PostgresSession;
  readonly #options: BindingWatchOptions;
  readonly #problems: ProblemLog;

  constructor(options: BindingWatchOptions) {
    super(optionsPollMs, () => this.#read());
    this.#options = options;
    this.#problems = new ProblemLog(options.logger);
    this.session = new PostgresSession({
      address: DatabaseAddress.of(options.databaseUrl),
      logger: options.logger,
      applicationName: "hawser serve: bridge",
      channels: [notifyChannels.natsHandler],
      queryTimeoutMs: optionsPollMs * 2,
      onNotification: () => this.soon(),
      onDown: () => this.soon(),
    });
  }

  async #read(): Promise<void> {
    const { session } = this;
    const { onBindings, onRead } = this.#options;
    try {
      // A session that was opened to a standby cannot listen. After a promotion, this query makes it listen.
      await session.isStandby();
      const bindings = await readBindings(session);
      if (this.isStopped) return;
      this.#problems.clear();
      await onBindings(bindings);
    } catch (cause) {
      if (this.isStopped) return;
      const { code, message } = await explainServeRefusal(session, "read the bindings of SQL functions to NATS", cause);
      this.#problems.tell(message, "the bindings of SQL functions to NATS cannot be read", { code });
    } finally {
      onRead();
    }
  }
}
