/**
 * The way from Postgres to NATS: the gateway, and its connection.
 */

import pg from "pg";
import { doctorConstants } from "../../../generated/ts/settings/nats.js";
import { errorTable } from "../../errors/index.js";
import { natsAddresses } from "../../nats/index.js";
import { formatAddress } from "../../wire/index.js";
import type { Check } from "../examine.js";
import type { Facts, GatewayRow } from "../facts.js";
import type { Finding, Verdict } from "../finding.js";
import type { CallProblem } from "../gateway-call.js";
import type { NatsDefinition } from "../nats-definition.js";
import { NatsProbe } from "../nats-probe.js";
import { ago, catalogCheck, natsHangs } from "./catalog-check.js";

/** In their order. */
export function gatewayChecks(facts: Facts): Check[] {
  return [
    catalogCheck("gateway", (signal) => gateway(facts, signal), {
      needs: ["dblink", "functions", "nats-server"],
      explainedBy: ["grants"],
      timeoutMs: doctorConstants.gatewayCallMs,
    }),
    catalogCheck("nats", (signal) => nats(facts, signal), {
      needs: ["gateway"],
      timeoutMs: doctorConstants.natsCheckMs,
      late: natsHangs,
    }),
  ];
}

async function gateway(facts: Facts, signal: AbortSignal): Promise<Verdict> {
  const rows = await facts.gateways();
  const answer = await facts.gatewayAnswer(signal);
  switch (answer.kind) {
    case "answered":
    case "no_nats":
      return { findings: forgotten(rows), seen: "a call from Postgres reached it" };
    case "no_gateway":
      return { findings: [unreachable(answer.problem, rows)] };
    case "not_asked":
      if (rows === undefined) return { notChecked: answer.why };
      if (rows.some(({ isStale }) => !isStale))
        return { seen: `one is entered: ${listed(rows)}`, notChecked: `no call was made: ${answer.why}` };
      return {
        findings: [
          unreachable(
            { code: "gateway_unavailable", message: "no gateway runs", detail: undefined, hint: undefined },
            rows,
          ),
        ],
      };
  }
}

function unreachable({ code, message, detail, hint }: CallProblem, rows: readonly GatewayRow[] | undefined): Finding {
  const known =
    rows === undefined ? "" : rows.length === 0 ? "; none is entered in hawser.gateways" : `; entered: ${listed(rows)}`;
  const why = detail ? `: ${oneLine(detail)}` : "";
  return { severity: "error", code, what: `${message}${why}${known}`, remedy: hint || errorTable[code].remedy };
}

/** Those that no gateway has taken out for long, although one runs that should. */
function forgotten(rows: readonly GatewayRow[] = []): Finding[] {
  return rows
    .filter(({ isStale, ageSeconds }) => isStale && ageSeconds > 60)
    .map(({ host, port, ageSeconds }) => ({
      severity: "warning",
      what: `the gateway at ${formatAddress({ host, port })} was last there ${ago(ageSeconds)} ago, and Postgres may still try it`,
      remedy: `Start it again, or DELETE FROM hawser.gateways WHERE host = ${pg.escapeLiteral(host)} AND port = ${port}`,
    }));
}

function listed(rows: readonly GatewayRow[]): string {
  return rows
    .map(({ host, port, isKept, ageSeconds }) => {
      const when = isKept ? `there ${ago(ageSeconds)} ago` : "entered by hand";
      return `${formatAddress({ host, port })} (${when})`;
    })
    .join(", ");
}

async function nats(facts: Facts, signal: AbortSignal): Promise<Verdict> {
  const answer = await facts.gatewayAnswer(signal);
  if (answer.kind === "answered") {
    const { version, host, port } = answer.server;
    return {
      findings: together(await facts.gateways(), await facts.natsDefinition()),
      seen: `the gateway is connected to nats-server ${version}, ${formatAddress({ host, port })}`,
    };
  }
  if (answer.kind === "no_nats") return { findings: [refused(answer.problem)] };
  const definition = await facts.natsDefinition();
  if (definition.kind !== "complete")
    return { notChecked: "neither could the gateway be asked, nor may this login read the definition" };
  await using probe = await NatsProbe.open(definition.options, facts.options.secretsDirectories, signal);
  if (probe.problem === undefined) return { seen: "this machine reaches it with the options of the server" };
  const { code, message, detail, hint } = probe.problem;
  if (code === "secret_file")
    return { notChecked: `${message}: run it where \`hawser serve\` runs, with its --secrets-dir` };
  return { findings: [refused({ code, message: `from this machine: ${message}`, detail, hint })] };
}

/** All processes receive subscriptions from one NATS server, whose end all of them would miss something of. */
function together(rows: readonly GatewayRow[] = [], definition: NatsDefinition): Finding[] {
  const servers = definition.kind === "complete" ? natsAddresses(definition.options) : [];
  const placed = rows.filter(({ isStale, natsServerId }) => !isStale && natsServerId !== null);
  const ids = new Set(placed.map(({ natsServerId }) => natsServerId));
  if (servers.length < 2 || placed.length < 2 || ids.size > 1) return [];
  const names = [...new Set(placed.map(({ natsServer }) => natsServer))].join(", ");
  return [
    {
      severity: "warning",
      what: `all ${placed.length} processes of \`hawser serve\` stand on one NATS server, ${names} (${[...ids][0]}), of ${servers.length} that are named: what it has not delivered when it dies, none of them has`,
      remedy: `They move apart within half a minute where they can: see that they reach the others (${servers.map(({ name }) => name).join(", ")}), and that host does not name one server in several ways, as a load balancer does`,
    },
  ];
}

/** Messages of the gateway often hold their detail. */
function refused({ code, message, detail, hint }: CallProblem): Finding {
  const bare = detail?.replace(/\.$/, "") ?? "";
  // Some begin with the option that they are about.
  const words = bare.replace(/^\w+: /, "").toLowerCase();
  const isSaid = words === "" || message.toLowerCase().includes(words);
  return {
    severity: "error",
    code,
    what: isSaid ? message : `${message}: ${oneLine(bare)}`,
    remedy: hint || errorTable[code].remedy,
  };
}

function oneLine(text: string): string {
  return text
    .trim()
    .split(/\s*\n\s*/)
    .join("; ");
}
