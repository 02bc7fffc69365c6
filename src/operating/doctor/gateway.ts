/**
 * Path from Postgres to NATS, tested by a call of an SQL function without side effects: the call goes through the
 * gateway, which returns its connection to NATS.
 */
import pg from "pg";
import { ago, type ErrorCode, errorTable } from "../../foundation/errors/index.js";
import { isServerError, queryCanceled } from "../../foundation/postgres/index.js";
import { formatAddress } from "../../jobs-and-peers/wire/index.js";
import { natsAddresses } from "../../nats/connections/index.js";
import { catalogCheck, natsHangs } from "./check.js";
import type { Check, Finding, Verdict } from "./examine.js";
import { close, type Facts, type GatewayRow, open } from "./facts.js";
import { NatsProbe, natsCheckMs } from "./nats-permissions.js";
import { type NatsDefinition, natsDefinition } from "./nats-server.js";

/** Time limit of a call through the gateway: Postgres gives up one address after a while, and takes the next. */
const gatewayCallMs = 8_000;

/** Error of the call, with the texts of the gateway or of Postgres. */
interface CallProblem {
  readonly code: ErrorCode;
  readonly message: string;
  readonly detail?: string | undefined;
  readonly remedy?: string | undefined;
}

/** Outcome of the call. */
type GatewayAnswer =
  | { readonly kind: "answered"; readonly server: NatsServerSeen }
  /** The gateway answered that it has no connection to NATS. */
  | { readonly kind: "no_nats"; readonly problem: CallProblem }
  /** No gateway answered, or the call failed on the way. */
  | { readonly kind: "no_gateway"; readonly problem: CallProblem }
  /** This login may not call the function. */
  | { readonly kind: "not_asked"; readonly why: string };

/** NATS server that the gateway is connected to. */
interface NatsServerSeen {
  readonly name: string;
  readonly version: string;
  readonly host: string;
  readonly port: number;
}

/** Errors about NATS, as opposed to the gateway. */
const natsErrors: readonly ErrorCode[] = [
  "nats_unavailable",
  "nats_unauthorized",
  "nats_not_configured",
  "secret_file",
  "nats_timeout",
  "nats_failed",
];
const gatewayErrors: readonly ErrorCode[] = [
  "gateway_unavailable",
  "outcome_unknown",
  "gateway_busy",
  "gateway_protocol",
  "not_permitted",
];

const privilegeSql = `
  SELECT p.oid IS NOT NULL AS there, coalesce(has_function_privilege(p.oid, 'EXECUTE') AND has_schema_privilege(n.oid, 'USAGE'), false) AS may,
         current_user AS role
    FROM pg_namespace AS n
    LEFT JOIN pg_proc AS p ON p.pronamespace = n.oid AND p.proname = 'nats_get_server_info' AND p.pronargs = 0
   WHERE n.nspname = $1`;

/** Calls the gateway. A call that hangs in Postgres outlives an abort, until its connection to the gateway ends. */
async function askGateway(facts: Facts, signal: AbortSignal): Promise<GatewayAnswer> {
  const schema = (await facts.state()).schema;
  const [right] = await facts.rows<{ there: boolean; may: boolean; role: string }>(privilegeSql, [schema]);
  if (right?.there !== true) return { kind: "not_asked", why: "the function nats_get_server_info is missing" };
  if (!right.may) {
    const grant = `GRANT hawser_nats TO ${pg.escapeIdentifier(right.role)}`;
    return {
      kind: "not_asked",
      why: `the login "${right.role}" may not call the SQL functions: ${grant}, or run hawser doctor as another login`,
    };
  }
  const ended = AbortSignal.any([signal, AbortSignal.timeout(gatewayCallMs - 500)]);
  let client: pg.Client | undefined;
  try {
    ({ client } = await open(facts.address, ended));
    // A call that waits in dblink may not notice a cancellation; the timeout ends it.
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
  if (!isServerError(error) || error.code === queryCanceled) {
    const message = `no gateway answered a call within ${gatewayCallMs - 1_000} ms`;
    const remedy = "Check whether `hawser serve` hangs; if so, end it, and start it again";
    return { kind: "no_gateway", problem: { code: "gateway_unavailable", message, detail: undefined, remedy } };
  }
  const { code: sqlstate, message, detail, hint: remedy } = error;
  const find = (codes: readonly ErrorCode[]) => codes.find((code) => errorTable[code].sqlstate === sqlstate);
  const nats = find(natsErrors);
  if (nats !== undefined) return { kind: "no_nats", problem: { code: nats, message, detail, remedy } };
  return { kind: "no_gateway", problem: { code: find(gatewayErrors) ?? "store_failed", message, detail, remedy } };
}

/** Checks of the gateway, in their order. */
export function gatewayChecks(facts: Facts): Check[] {
  return [
    catalogCheck("gateway", (signal) => gateway(facts, signal), {
      needs: ["dblink", "functions", "nats-server"],
      explainedBy: ["grants"],
      timeoutMs: gatewayCallMs,
    }),
    catalogCheck("nats", (signal) => nats(facts, signal), {
      needs: ["gateway"],
      timeoutMs: natsCheckMs,
      late: natsHangs,
    }),
  ];
}

async function gateway(facts: Facts, signal: AbortSignal): Promise<Verdict> {
  const rows = await facts.gateways();
  const answer = await facts.once("gatewayAnswer", () => askGateway(facts, signal));
  switch (answer.kind) {
    case "answered":
    case "no_nats":
      return { findings: staleRows(rows), seen: "a call from Postgres reached it" };
    case "no_gateway":
      return { findings: [unreachable(answer.problem, rows)] };
    case "not_asked":
      if (rows === undefined) return { notChecked: answer.why };
      if (rows.some(({ isStale }) => !isStale))
        return { seen: `registered: ${listed(rows)}`, notChecked: `no call was made: ${answer.why}` };
      return { findings: [unreachable({ code: "gateway_unavailable", message: "no gateway runs" }, rows)] };
  }
}

function unreachable({ code, message, detail, remedy }: CallProblem, rows: readonly GatewayRow[] | undefined): Finding {
  const known =
    rows === undefined
      ? ""
      : rows.length === 0
        ? "; none is registered in hawser_bridge_data.gateways"
        : `; registered: ${listed(rows)}`;
  const why = detail ? `: ${oneLine(detail)}` : "";
  return { severity: "error", code, what: `${message}${why}${known}`, remedy: remedy || errorTable[code].remedy };
}

/** Warnings about stale rows of gateways, which no running gateway has removed. */
function staleRows(rows: readonly GatewayRow[] = []): Finding[] {
  return rows
    .filter(({ isStale, ageSeconds }) => isStale && ageSeconds > 60)
    .map(({ host, port, ageSeconds }) => ({
      severity: "warning",
      what: `the gateway at ${formatAddress({ host, port })} was last seen ${ago(ageSeconds)} ago, and Postgres may still try it`,
      remedy: `Start it again, or DELETE FROM hawser_bridge_data.gateways WHERE host = ${pg.escapeLiteral(host)} AND port = ${port}`,
    }));
}

function listed(rows: readonly GatewayRow[]): string {
  return rows
    .map(({ host, port, isKept, ageSeconds }) => {
      const when = isKept ? `seen ${ago(ageSeconds)} ago` : "registered by hand";
      return `${formatAddress({ host, port })} (${when})`;
    })
    .join(", ");
}

async function nats(facts: Facts, signal: AbortSignal): Promise<Verdict> {
  const answer = await facts.once("gatewayAnswer", () => askGateway(facts, signal));
  if (answer.kind === "answered") {
    const { version, host, port } = answer.server;
    return {
      findings: sameServer(await facts.gateways(), await natsDefinition(facts)),
      seen: `the gateway is connected to nats-server ${version}, ${formatAddress({ host, port })}`,
    };
  }
  const definition = await natsDefinition(facts);
  if (answer.kind === "no_nats") return { findings: [refused(answer.problem, definition)] };
  if (definition.kind !== "complete")
    return { notChecked: "this login may neither call the gateway nor read the definition" };
  await using probe = await NatsProbe.open(definition.options, facts.options.secretsDirectories, signal);
  if (probe.problem === undefined) return { seen: "this machine reaches it with the options of the server" };
  const { code, message, detail, remedy } = probe.problem;
  if (code === "secret_file")
    return { notChecked: `${message}: run it where \`hawser serve\` runs, with its --secrets-dir` };
  return { findings: [refused({ code, message: `from this machine: ${message}`, detail, remedy }, definition)] };
}

/**
 * Warns if all processes receive subscriptions from the same NATS server, because its failure would affect all of them.
 */
function sameServer(rows: readonly GatewayRow[] = [], definition: NatsDefinition): Finding[] {
  const servers = definition.kind === "complete" ? natsAddresses(definition.options) : [];
  const placed = rows.filter(({ isStale, natsServerId }) => !isStale && natsServerId !== null);
  const ids = new Set(placed.map(({ natsServerId }) => natsServerId));
  if (servers.length < 2 || placed.length < 2 || ids.size > 1) return [];
  const names = [...new Set(placed.map(({ natsServer }) => natsServer))].join(", ");
  return [
    {
      severity: "warning",
      what: `all ${placed.length} processes of \`hawser serve\` are connected to the same NATS server, ${names} (${[...ids][0]}), of ${servers.length} named servers: if it dies, its undelivered messages are lost to all of them`,
      remedy: `They spread out within half a minute if they can: check that they reach the others (${servers.map(({ name }) => name).join(", ")}), and that host does not name one server in several ways, as a load balancer does`,
    },
  ];
}

/** Finding for an error of NATS. Many messages of the gateway already contain their detail. */
function refused({ code, message, detail, remedy }: CallProblem, definition: NatsDefinition): Finding {
  const bare = detail?.replace(/\.$/, "") ?? "";
  // A detail may begin with the name of its option.
  const words = bare.replace(/^\w+: /, "").toLowerCase();
  const isSaid = words === "" || message.toLowerCase().includes(words);
  // An error about a certificate has the same code, but other credentials do not help.
  const isUserRefused = code === "nats_unauthorized" && !/\bcertificate\b/.test(message);
  return {
    severity: "error",
    code,
    what: isSaid ? message : `${message}: ${oneLine(bare)}`,
    remedy:
      isUserRefused && "correction" in definition
        ? `Correct what was refused: ${definition.correction}; or the user on the NATS server`
        : remedy || errorTable[code].remedy,
  };
}

function oneLine(text: string): string {
  return text
    .trim()
    .split(/\s*\n\s*/)
    .join("; ");
}
