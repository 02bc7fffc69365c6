/**
 * Transactions that a handler begins within its own. The `transaction()` of a library sends BEGIN and COMMIT: here they
 * become a savepoint and its release, because a COMMIT would commit the effects without the mark of the message, and
 * each attempt would repeat them.
 */
import { HawserError, invalidArgument } from "../../../foundation/errors/index.js";
import type { UserQuery } from "../../store/index.js";
import { isControl, statementsOf } from "./statements-of-text.js";

const beginning = /^(?:begin(?: work| transaction)?|start transaction)((?:\s|,).*)?$/i;
const committing = /^(?:commit|end)(?: work| transaction)?( and chain)?( and no chain)?$/i;
const rollingBack = /^(?:rollback|abort)(?: work| transaction)?( and chain)?( and no chain)?$/i;
const preparing = /^prepare transaction\b/i;
/** Modes that the transaction of a handler has, or that mean nothing in it. */
const ownModes = /^(?:(?:isolation level read (?:committed|uncommitted)|read write|(?:not )?deferrable) ?)*$/i;

/** Statement that a driver accepts as an object: text and values, or one that sends itself, such as a `pg.Query`. */
interface QueryObject {
  text?: unknown;
  readonly callback?: unknown;
  readonly submit?: unknown;
  handleError?(error: Error): void;
}

/** Transactions that one handler begins within its own. */
export class NestedTransactions {
  readonly #query: UserQuery;
  #depth = 0;

  /** @param query runs a statement in the transaction of the handler */
  constructor(query: UserQuery) {
    this.#query = query;
  }

  /**
   * Runs a statement, with the arguments and the result of the driver's `query`.
   *
   * @throws HawserError, as an error of the driver: `handler_failed` for a COMMIT or ROLLBACK of the handler's own
   * transaction, `invalid_argument` for modes that it does not have. Nothing of the text is sent then
   */
  query(given: readonly unknown[]): unknown {
    const [config] = given;
    const text = typeof config === "string" ? config : (config as QueryObject | null | undefined)?.text;
    if (typeof text !== "string" || !isControl(text)) return this.#query(...given);
    const depth = this.#depth;
    let isReplaced = false;
    let replaced: string[];
    try {
      replaced = statementsOf(text).map(({ source, bare }) => {
        const replacement = this.#replacementOf(bare);
        isReplaced ||= replacement !== undefined;
        return replacement ?? source;
      });
    } catch (error) {
      this.#depth = depth;
      return refuse(error as HawserError, given);
    }
    if (!isReplaced) return this.#query(...given);
    const result = this.#query(withText(config, replaced.join("; ")), ...given.slice(1));
    const change = this.#depth - depth;
    // Of a COMMIT that fails, so that a ROLLBACK can follow. Registered before the handler can wait for it.
    if (change !== 0 && result instanceof Promise) result.catch(() => void (this.#depth -= change));
    return result;
  }

  /** @returns undefined for a statement that is no transaction control */
  #replacementOf(statement: string): string | undefined {
    const modes = beginning.exec(statement);
    if (modes !== null) {
      checkModes(statement, modes[1] ?? "");
      this.#depth += 1;
      return `SAVEPOINT ${this.#savepoint}`;
    }
    if (preparing.test(statement)) throw endsTransaction(statement);
    const commit = committing.exec(statement);
    const end = commit ?? rollingBack.exec(statement);
    if (end === null) return undefined;
    if (this.#depth === 0) throw endsTransaction(statement);
    const savepoint = this.#savepoint;
    const isChained = end[1] !== undefined;
    if (!isChained) this.#depth -= 1;
    // The savepoint stays, so that each statement has one result. The next one of this depth hides it, and the end of an
    // outer one releases it.
    if (commit === null) return `ROLLBACK TO SAVEPOINT ${savepoint}`;
    // A savepoint in the place of the last one: what was done until here is only rolled back with the outer transaction.
    return isChained ? `SAVEPOINT ${savepoint}` : `RELEASE SAVEPOINT ${savepoint}`;
  }

  get #savepoint(): string {
    return `hawser_nested_${this.#depth}`;
  }
}

/** @throws HawserError `invalid_argument` */
function checkModes(statement: string, modes: string): void {
  if (ownModes.test(modes.replaceAll(/[\s,]+/g, " ").trim())) return;
  throw invalidArgument(
    `${statement}: the transaction of a handler is READ COMMITTED and READ WRITE, and one within it is a savepoint of it; ` +
      "leave the modes out, or use a client of your own",
  );
}

function endsTransaction(statement: string): HawserError {
  return new HawserError(
    "handler_failed",
    `${statement}: Hawser commits the transaction of a handler together with the message, and rolls it back if the handler throws; ` +
      "leave the statement out, or use SAVEPOINT or a transaction within to roll back a part",
  );
}

/** Rejects a statement as the driver does. */
function refuse(error: HawserError, given: readonly unknown[]): unknown {
  const config = given[0] as QueryObject;
  if (typeof config.submit === "function") {
    process.nextTick(() => config.handleError?.(error));
    return config;
  }
  const callback = given.find((each) => typeof each === "function") ?? config.callback;
  if (typeof callback !== "function") return Promise.reject(error);
  process.nextTick(callback as (error: Error) => void, error);
  return undefined;
}

/** The same statement with another text, which no name can stand for. */
function withText(config: unknown, text: string): unknown {
  if (typeof config === "string") return text;
  const object = config as QueryObject;
  if (typeof object.submit !== "function") return { ...object, text, name: undefined };
  object.text = text;
  return object;
}
