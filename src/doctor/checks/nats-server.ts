/**
 * The definition of the NATS server, and whether it gives secrets away.
 */
import pg from "pg";
import { connectionOptions } from "../../../generated/ts/nats-options/index.js";
import { natsAddresses } from "../../nats/index.js";
import type { Check } from "../examine.js";
import type { Facts } from "../facts.js";
import type { Finding, Verdict } from "../finding.js";
import { catalogCheck } from "./catalog-check.js";

const { escapeIdentifier: identifier } = pg;

/** Options that have a twin for a file: their values nobody should read. */
const secretOptions: readonly string[] = connectionOptions.filter((option) =>
  (connectionOptions as readonly string[]).includes(`${option}_path`),
);

const define =
  "CREATE SERVER nats_fdw_server FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (host '…', port '4222'), or SELECT hawser.set_nats_server('{\"host\": \"…\"}')";

/** In their order. */
export function natsServerChecks(facts: Facts): Check[] {
  return [
    catalogCheck("secrets", () => secrets(facts), { needs: ["nats-from-sql"] }),
    catalogCheck("nats-server", () => definition(facts), { needs: ["nats-from-sql"], explainedBy: ["grants"] }),
  ];
}

async function secrets(facts: Facts): Promise<Verdict> {
  const { servers } = await facts.natsState();
  const findings = servers.flatMap(({ name, options }): Finding[] => {
    const open = options.filter((option) => secretOptions.includes(option));
    if (open.length === 0) return [];
    const server = identifier(name);
    const kept = open.map((option) => `${option} '…'`).join(", ");
    const dropped = open.map((option) => `DROP ${option}`).join(", ");
    return [
      {
        severity: "warning",
        what: `every role can read the option ${open.join(" and ")} of the foreign server "${name}"`,
        remedy:
          `CREATE USER MAPPING FOR the login of \`hawser serve\` SERVER ${server} OPTIONS (${kept}); ` +
          `ALTER SERVER ${server} OPTIONS (${dropped}); then change the secret, which others may know`,
      },
    ];
  });
  return { findings, seen: "no secret stands where every role can read it" };
}

async function definition(facts: Facts): Promise<Verdict> {
  const found = await facts.natsDefinition();
  const error = (what: string, remedy: string): Verdict => ({
    findings: [{ severity: "error", code: "nats_not_configured", what, remedy }],
  });
  switch (found.kind) {
    case "hidden":
      return { notChecked: "this login may not read the definition: run it as the login of `hawser serve`" };
    case "partial":
      return {
        seen: "a server is defined",
        notChecked: `the user mapping for ${found.mappedFor} belongs to it: run it as the login of \`hawser serve\``,
      };
    case "none":
      // What is missing is told where it is looked for.
      if (!(await hasFunctions(facts))) return { absent: true, seen: "no NATS server is defined" };
      if (await isUnused(facts)) return unused;
      return error("no NATS server is defined", define);
    case "several":
      return error(
        `a database has one NATS server, and here ${found.servers.length} are defined: ${found.servers.map((name) => `"${name}"`).join(", ")}`,
        `DROP SERVER ${identifier(found.servers.at(-1)!)} CASCADE, or another of them`,
      );
    case "wrong":
      return error(
        `the options of the NATS server (from ${found.from}) are not right: ${found.violation.message}`,
        found.violation.hint,
      );
    case "complete":
      return {
        seen: `it is ${natsAddresses(found.options)
          .map(({ name }) => name)
          .join(", ")}`,
      };
  }
}

/** Without them a server would be of no use yet. */
async function hasFunctions(facts: Facts): Promise<boolean> {
  return (await facts.natsState()).functions.some(({ isOurs }) => isOurs);
}

/** Nobody has begun: no gateway was ever started, nothing is to be called. */
async function isUnused(facts: Facts): Promise<boolean> {
  const [gateways, handlers] = [await facts.gateways(), await facts.handlerCounts()];
  return gateways?.length === 0 && handlers?.subscriptions === 0 && handlers.responders === 0;
}

const unused: Verdict = {
  absent: true,
  findings: [
    {
      severity: "note",
      what: "NATS from SQL is installed and not used: no NATS server is defined, and no gateway runs",
      remedy: `${define}; then start \`hawser serve\``,
    },
  ],
};
