/**
 * Classification of errors of Postgres and its driver: whether the server answered, whether a write may have been
 * committed, whether a retry may succeed.
 */
import type pg from "pg";
import { tables as natsTables } from "../../../generated/ts/rows/nats.js";
import { tables as outboxTables } from "../../../generated/ts/rows/outbox.js";
import { tables as peerTables } from "../../../generated/ts/rows/peer.js";
import { tables as queueTables } from "../../../generated/ts/rows/queue.js";
import { HawserError } from "../errors/index.js";
import { type Logger, RareLog } from "../runtime/index.js";

/** Outcome of a failed write: certainly not committed, or sent without an answer. */
export type WriteOutcome = "failed" | "unknown";

/** SQLSTATEs with which the server ends a session: operator intervention and connection exceptions. */
const sessionEnded = /^(57P0[1-5]|08...)$/;

/** SQLSTATE of a write on a read-only server: a standby or a read-only primary. */
const readOnly = "25006";

/** Remedy for a primary on which transactions only read. */
export const readOnlyRemedy = "set default_transaction_read_only to off for the role, the database or the server";

/** Returns true if a read-only server has refused a write. */
export function isReadOnly(error: unknown): boolean {
  return isServerError(error) && error.code === readOnly;
}

/**
 * Returns true if `error` is an answer of the server. Decided by its fields, because the pool of a user may come from
 * another copy of node-postgres.
 */
export function isServerError(error: unknown): error is pg.DatabaseError {
  const { severity, code } = (error ?? {}) as Partial<pg.DatabaseError>;
  return error instanceof Error && typeof severity === "string" && typeof code === "string";
}

/** SQLSTATE of a missing privilege, and of rows that row security would hide. */
const insufficientPrivilege = "42501";
/** C function of Postgres that raises the error for rows that row security would hide. */
const rowSecurityRoutine = "check_enable_rls";
/** SQLSTATE of a character that the encoding of the database does not have. */
export const untranslatable = "22P05";
/** SQLSTATE for a statement that its timeout, or an administrator, has ended. */
export const queryCanceled = "57014";

/** Returns true if the login lacks a privilege; also for a HawserError with such a cause. */
export function lacksPrivilege(error: unknown): boolean {
  return sqlstateOf(error) === insufficientPrivilege && !isFiltered(error);
}

/** Returns true if row security would have hidden rows of any table; also for a HawserError with such a cause. */
export function isFiltered(error: unknown): boolean {
  return filteredName(error) !== undefined;
}

function filteredName(error: unknown): string | undefined {
  const answer = error instanceof HawserError ? error.cause : error;
  if (!isServerError(answer) || answer.routine !== rowSecurityRoutine) return undefined;
  // The error has the name only in its message, in the quotation marks of the server's language.
  return /["“”„«»‹›‘’‚「『'`]\s*([^"“”„«»‹›‘’‚」』'`]+?)\s*["“”„«»‹›‘’‚」』'`]/.exec(answer.message)?.[1] ?? "";
}

/** Schemas of Hawser's tables, by their names. */
const ownTables = new Map(
  [peerTables, outboxTables, queueTables, natsTables]
    .flatMap((each) => Object.values(each))
    .map((name) => name.split(".").reverse() as [table: string, schema: string]),
);

/**
 * Name, without the schema, of Hawser's table whose rows row security would have hidden from a statement under
 * `row_security = off`; also for a HawserError with such a cause. Undefined for all other errors.
 */
export function filteredTable(error: unknown): string | undefined {
  const name = filteredName(error);
  return name !== undefined && schemaOf(name) !== undefined ? name : undefined;
}

/** Schema of a table or of a part of one; undefined if it is not Hawser's. */
const schemaOf = (table: string): string | undefined => ownTables.get(table.replace(/_\d+$/, ""));

/** Statement after which a table of Hawser shows all its rows again. */
export function unfilteredSql(table: string): string {
  return `ALTER TABLE ${schemaOf(table)}.${table} DISABLE ROW LEVEL SECURITY`;
}

/** Settings with which the server ends a session, by the SQLSTATE of its last error. */
const endingSettings: Readonly<Record<string, string>> = {
  "25P03": "idle_in_transaction_session_timeout",
  "25P04": "transaction_timeout",
  "57P05": "idle_session_timeout",
};

/**
 * Message of an error of the server. One of hidden rows, of a setting that has ended the session, and of a read-only
 * server ends with the remedy.
 */
export function messageWithRemedy(error: Error): string {
  if (error.message === plpgsqlRefused)
    return `${error.message}; each session of Hawser needs it: GRANT USAGE ON LANGUAGE plpgsql TO the role`;
  if (!isFiltered(error)) return `${error.message}${settingRemedy((error as pg.DatabaseError).code ?? "")}`;
  const table = filteredTable(error);
  const [remedy, reason] =
    table === undefined
      ? [
          `ALTER FUNCTION ${innermostFunction(error)} SET row_security = on`,
          "a trigger of yours runs in Hawser's transaction",
        ]
      : [unfilteredSql(table), "Hawser needs all rows"];
  return error.message.endsWith(remedy) ? error.message : `${error.message}; ${reason}: ${remedy}`;
}

/** Right that a login of Postgres has unless it was revoked. */
const plpgsqlRefused = "permission denied for language plpgsql";

function settingRemedy(code: string): string {
  if (code === readOnly) return `; if this server is no standby, ${readOnlyRemedy}`;
  const setting = endingSettings[code];
  return setting === undefined
    ? ""
    : `; the setting ${setting} of the role, the database or the server has ended the session: ` +
        `be faster, or give the role a longer one (ALTER ROLE … SET ${setting} = …)`;
}

/** Function in which an error of the server occurred, as the error's context names it. */
function innermostFunction(error: Error): string {
  return /\bfunction (\S+\([^)]*\))/.exec((error as pg.DatabaseError).where ?? "")?.[1] ?? "…";
}

/** Warnings of hidden rows, by the logger that they go to. */
const warnings = new WeakMap<Logger, RareLog>();

/**
 * Adds the remedy to an error of a statement of Hawser if row security would have hidden rows from it, and warns of it,
 * because most callers retry without a word. Returns the error; all others unchanged.
 */
export function withFilterRemedy(error: unknown, logger: Logger): unknown {
  if (!isFiltered(error) || !(error instanceof Error)) return error;
  error.message = messageWithRemedy(error);
  const rareLog = warnings.get(logger) ?? new RareLog(logger, "postgres");
  warnings.set(logger, rareLog);
  rareLog.warn("row security hides rows; retrying until it is off", error.message);
  return error;
}

/** SQLSTATE of a server error, also if it is the cause of a HawserError; undefined for all others. */
export function sqlstateOf(error: unknown): string | undefined {
  const answer = error instanceof HawserError ? error.cause : error;
  return isServerError(answer) ? answer.code : undefined;
}

/**
 * Outcome of the statement (or COMMIT) that was pending when the error occurred.
 *
 * An ordinary ERROR aborts the transaction, so nothing is committed. A FATAL error ends the session and may follow the
 * commit: a backend that is terminated while it waits for a synchronous standby has already committed. Errors that are
 * not an answer of the server (a reset socket, our own timeout) prove nothing.
 */
export function outcomeOf(error: unknown): WriteOutcome {
  if (!isServerError(error)) return "unknown";
  const fatal = error.severity === "FATAL" || error.severity === "PANIC" || sessionEnded.test(error.code ?? "");
  return fatal ? "unknown" : "failed";
}

/**
 * SQLSTATE classes of transient errors: connection, rollback, out of resources, lock not available, operator
 * intervention.
 */
const transientStates = /^(08|40|53|55P03|57)/;

/**
 * Returns true if a retry may succeed soon: the server was unreachable, or reported that it is busy, starting or full.
 */
export function isTransient(error: unknown): boolean {
  return !isServerError(error) || transientStates.test(error.code ?? "");
}

/** Returns true if the connection must not be used after `error`. */
export function spoilsConnection(error: unknown): boolean {
  return outcomeOf(error) === "unknown" || isReadOnly(error);
}

/** Reason why sessions cannot be opened, and the time of the first failed attempt. */
export interface OpenFailure {
  readonly error: unknown;
  /** Time of the first failed attempt. */
  readonly since: Date;
}

/** Attempts to open sessions with one login: the failures since the last success. */
export class OpenAttempts {
  #error: unknown;
  /** Time of the first failure (performance.now(), ms). */
  #failedAt: number | undefined;

  /** Records a success, or that no session is needed. */
  succeeded(): void {
    this.#error = this.#failedAt = undefined;
  }

  /** Records a failed attempt. */
  failed(error: unknown): void {
    this.#error = error;
    this.#failedAt ??= performance.now();
  }

  /**
   * Returns the current failure. A refusal by the server or by Hawser counts at once, because the same login will be
   * refused again. Other errors count after `toleratedMs`, because the server may be restarting.
   */
  failure(toleratedMs: number): OpenFailure | undefined {
    const failedAt = this.#failedAt;
    if (failedAt === undefined) return undefined;
    if (!this.isRefused && performance.now() - failedAt < toleratedMs) return undefined;
    return { error: this.#error, since: new Date(performance.timeOrigin + failedAt) };
  }

  /** True if the last attempt was refused, so that the next one with the same login will be too. */
  get isRefused(): boolean {
    return this.#failedAt !== undefined && (this.#error instanceof HawserError || !isTransient(this.#error));
  }
}
