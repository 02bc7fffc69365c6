/**
 * The typed client of the SQL functions, as programs use it: what it throws is a `HawserError`.
 */
import {
  natsFunctions as generated,
  type NatsFunctions,
  natsFunctionMethods,
} from "../../generated/ts/nats-functions/client.js";
import { type ErrorCode, errorTable, HawserError, namesOf, unknownOption } from "../errors/index.js";
import { postgresErrorOf, rowsOf, type SqlClient } from "../postgres/index.js";

/** Where the functions are. */
export interface NatsFunctionsOptions {
  /** The schema that they were installed in. Default `public`. */
  readonly schema?: string | undefined;
}

/** What calls end with. Postgres passes on their SQLSTATEs, which are different ones. */
export const codesOfCalls: readonly ErrorCode[] = [
  ...(["invalid_argument", "null_argument", "not_text", "not_json", "not_supported"] as const),
  ...(["nats_failed", "nats_timeout", "no_responders", "no_stream", "jetstream_unavailable"] as const),
  ...(["payload_too_large", "unreadable_headers", "nats_permission_denied", "nats_unauthorized"] as const),
  ...(["nats_not_configured", "nats_unavailable", "secret_file", "file_missing", "server_uncommitted"] as const),
  ...(["gateway_unavailable", "gateway_busy", "gateway_limit", "gateway_protocol", "outcome_unknown"] as const),
  ...(["key_exists", "wrong_revision", "replica", "internal"] as const),
];

/** What those end with that are answered in Postgres, where it is another one of the same SQLSTATE. */
export const codesOfLocalCalls: readonly ErrorCode[] = ["not_permitted", "function_signature", "subscription_limit"];

const bySqlstate = new Map<string, ErrorCode>(codesOfCalls.map((code) => [errorTable[code].sqlstate, code]));
const localBySqlstate = new Map<string, ErrorCode>(codesOfLocalCalls.map((code) => [errorTable[code].sqlstate, code]));

/**
 * The SQL functions as methods: each is one SELECT, in whatever transaction the client is in. What is `undefined` is NULL in
 * SQL, and so is a JSON value that `JSON.stringify` makes nothing of; `null` as a JSON value is the JSON null.
 *
 * What they reject with is a `HawserError`, with what the client threw as its cause: the function's own error has its code
 * by the SQLSTATE, and its message, `detail` and `hint`; what Postgres refuses by itself (no such function, no right to call
 * it, a cancelled statement), and a connection that is lost, is `store_failed`. `outcome` is `unknown` where the call may
 * have been carried out.
 *
 * @param client where the functions are called
 * @throws HawserError `invalid_argument` for a client without `query`, and for an unknown option or argument of a method
 */
export function natsFunctions(client: SqlClient, options: NatsFunctionsOptions = {}): NatsFunctions {
  if (typeof (client as Partial<SqlClient> | null | undefined)?.query !== "function") {
    const shown = client === null ? "null" : typeof client;
    throw new HawserError(
      "invalid_argument",
      `the client of natsFunctions is ${shown} and must have a method query; give a Client or Pool of node-postgres`,
    );
  }
  refuseUnknown(options, "natsFunctions", namesOf<NatsFunctionsOptions>({ schema: true }));
  const checked = (name: keyof NatsFunctions) => {
    const { local, arguments: known } = natsFunctionMethods[name];
    const query = async (text: string, values: unknown[]) => {
      try {
        return { rows: rowsOf(await client.query(text, values)) };
      } catch (cause) {
        throw callFailure(cause, local);
      }
    };
    const method = generated({ query }, options)[name] as (args?: object) => Promise<unknown>;
    return async (args?: object) => {
      if (args !== undefined) refuseUnknown(args, name, known);
      return await method(args);
    };
  };
  const names = Object.keys(natsFunctionMethods) as (keyof NatsFunctions)[];
  return Object.fromEntries(names.map((name) => [name, checked(name)])) as unknown as NatsFunctions;
}

function refuseUnknown(options: object, of: string, known: readonly string[]): void {
  const problem = unknownOption(options, of, known);
  if (problem !== undefined) throw new HawserError("invalid_argument", problem);
}

/** Where in Postgres a function raises what itself or the gateway says; from elsewhere Postgres speaks for itself. */
const raises = /^(exec_stmt_raise|dblink_res_error)$/;

/** Classes of SQLSTATE after which nobody knows what NATS was told: connection, operator intervention, internal. */
const leavesOpen = /^(08|57|58|XX)/;

function callFailure(cause: unknown, local: boolean): HawserError {
  if (cause instanceof HawserError) return cause;
  const { message = String(cause), code, detail, hint, routine } = postgresErrorOf(cause);
  const details = { cause, detail: textOf(detail), hint: textOf(hint) };
  const sqlstate = typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
  if (sqlstate !== undefined && (typeof routine !== "string" || raises.test(routine))) {
    const known = (local ? localBySqlstate.get(sqlstate) : undefined) ?? bySqlstate.get(sqlstate);
    if (known === "outcome_unknown") return new HawserError(known, message, { ...details, outcome: "unknown" });
    if (known !== undefined) return new HawserError(known, message, details);
  }
  const isOpen = sqlstate === undefined || leavesOpen.test(sqlstate);
  return new HawserError("store_failed", message, isOpen ? { ...details, outcome: "unknown" } : details);
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
