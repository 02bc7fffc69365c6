/**
 * A call of a SQL function that has no effect: it goes from Postgres to the gateway, and tells of its connection to NATS.
 */

import pg from "pg";
import { doctorConstants } from "../../generated/ts/settings/nats.js";
import type { ErrorCode } from "../errors/index.js";
import { errorTable } from "../errors/index.js";
import { isServerError } from "../postgres/index.js";
import type { Facts } from "./facts.js";
import { close, open } from "./session.js";

const { gatewayCallMs } = doctorConstants;

/** What went wrong, in the words of the gateway or of Postgres. */
export interface CallProblem {
  readonly code: ErrorCode;
  readonly message: string;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
}

/** What came of it. */
export type GatewayAnswer =
  | { readonly kind: "answered"; readonly server: NatsServerSeen }
  /** The gateway answered that it has no NATS. */
  | { readonly kind: "no_nats"; readonly problem: CallProblem }
  /** No gateway answered, or it could not. */
  | { readonly kind: "no_gateway"; readonly problem: CallProblem }
  /** This login may not call it. */
  | { readonly kind: "not_asked"; readonly why: string };

/** The server that the gateway is connected to. */
interface NatsServerSeen {
  readonly name: string;
  readonly version: string;
  readonly host: string;
  readonly port: number;
}

/** What is said of NATS, and not of the gateway. */
const ofNats: readonly ErrorCode[] = [
  "nats_unavailable",
  "nats_unauthorized",
  "nats_not_configured",
  "secret_file",
  "nats_timeout",
  "nats_failed",
];
const ofGateway: readonly ErrorCode[] = [
  "gateway_unavailable",
  "outcome_unknown",
  "gateway_busy",
  "gateway_protocol",
  "not_permitted",
];

const maySql = `
  SELECT p.oid IS NOT NULL AS there, coalesce(has_function_privilege(p.oid, 'EXECUTE') AND has_schema_privilege(n.oid, 'USAGE'), false) AS may,
         current_user AS role
    FROM pg_namespace AS n
    LEFT JOIN pg_proc AS p ON p.pronamespace = n.oid AND p.proname = 'nats_get_server_info' AND p.pronargs = 0
   WHERE n.nspname = $1`;

/** Calls, and lets go when the signal says so: what then hangs in Postgres ends with the gateway's connection. */
export async function askGateway(facts: Facts, signal: AbortSignal): Promise<GatewayAnswer> {
  const schema = await facts.functionsSchema();
  const [right] = await facts.rows<{ there: boolean; may: boolean; role: string }>(maySql, [schema]);
  if (right?.there !== true) return { kind: "not_asked", why: "the function nats_get_server_info is missing" };
  if (!right.may) {
    const grant = `GRANT hawser_nats TO ${pg.escapeIdentifier(right.role)}`;
    return {
      kind: "not_asked",
      why: `the login "${right.role}" may not call the SQL functions: ${grant}, or run it as another`,
    };
  }
  const ended = AbortSignal.any([signal, AbortSignal.timeout(gatewayCallMs - 500)]);
  let client: pg.Client | undefined;
  try {
    ({ client } = await open(facts.address, ended));
    // What waits in dblink does not always hear of it; the timer does.
    await client.query(`SET statement_timeout = ${gatewayCallMs - 1_000}`);
    const called = `SELECT i.server_name AS name, i.version, i.host, i.port FROM ${pg.escapeIdentifier(schema)}.nats_get_server_info() AS i`;
    const { rows } = await client.query<NatsServerSeen>(called);
    return { kind: "answered", server: rows[0]! };
  } catch (error) {
    return answerOf(error);
  } finally {
    if (client !== undefined) close(client);
  }
}

function answerOf(error: unknown): GatewayAnswer {
  if (!isServerError(error) || error.code === "57014") {
    const message = `no gateway answered a call within ${gatewayCallMs - 1_000} ms`;
    const hint = "Look whether `hawser serve` hangs: end it, and start it again";
    return { kind: "no_gateway", problem: { code: "gateway_unavailable", message, detail: undefined, hint } };
  }
  const { code: sqlstate, message, detail, hint } = error;
  const find = (codes: readonly ErrorCode[]) => codes.find((code) => errorTable[code].sqlstate === sqlstate);
  const nats = find(ofNats);
  if (nats !== undefined) return { kind: "no_nats", problem: { code: nats, message, detail, hint } };
  return { kind: "no_gateway", problem: { code: find(ofGateway) ?? "store_failed", message, detail, hint } };
}
