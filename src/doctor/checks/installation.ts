/**
 * NATS from SQL as `hawser init` installs it: dblink, the SQL functions, the event triggers and wrappers.
 */
import pg from "pg";
import { publicFunctions } from "../../store/nats/function-text.js";
import type { NatsState } from "../../store/nats/inspect.js";
import { dblinkSchema, eventTriggers, wrapperNames } from "../../store/nats/objects.js";
import { newDblinkSql, usageSql } from "../../store/nats/shortfalls.js";
import type { Check } from "../examine.js";
import type { Facts } from "../facts.js";
import type { Finding, Verdict } from "../finding.js";
import { catalogCheck, someOf } from "./catalog-check.js";
import { compareFunctions, gatewayCallSignature, versionIn } from "./function-versions.js";

const { escapeIdentifier: identifier } = pg;

/** In their order. */
export function installationChecks(facts: Facts): Check[] {
  return [
    catalogCheck("nats-from-sql", () => isWanted(facts), { needs: ["version"] }),
    catalogCheck("dblink", () => dblink(facts), { needs: ["nats-from-sql"] }),
    catalogCheck("functions", () => functions(facts), { needs: ["nats-from-sql"], explainedBy: ["dblink"] }),
    catalogCheck("foreign-data", () => foreignData(facts), { needs: ["nats-from-sql"] }),
  ];
}

async function isWanted(facts: Facts): Promise<Verdict> {
  if (await facts.wantsNats()) return { seen: "NATS from SQL is installed" };
  return { absent: true, seen: "NATS from SQL is not installed: the database is for peers" };
}

async function dblink(facts: Facts): Promise<Verdict> {
  const state = await facts.natsState();
  const who = identifier(state.owner ?? state.role);
  if (state.dblink === undefined) {
    return {
      findings: [
        {
          severity: "error",
          code: "not_supported",
          what: state.dblinkAvailable
            ? "dblink is not installed: the SQL functions reach the gateway through it"
            : "dblink is not installed, and Postgres does not have it: it is one of its contrib modules",
          remedy: `${state.dblinkAvailable ? "As" : "Install the contrib modules of Postgres; then, as"} a superuser: ${newDblinkSql(state, who)}; then run \`hawser init\``,
        },
      ],
    };
  }
  const cutOff = [...new Set(state.functions.filter((fn) => fn.isOurs && !fn.reachesDblink).map(({ owner }) => owner))];
  const findings: Finding[] = cutOff.map((owner) => ({
    severity: "error",
    code: "not_permitted",
    what: `"${owner}", whom SQL functions belong to, may not use dblink in the schema "${state.dblink!.schema}"`,
    remedy: `As a superuser: ${usageSql(identifier(state.dblink!.schema), identifier(owner))}`,
  }));
  return { findings: [...findings, ...sharing(state)], seen: `dblink is in the schema "${state.dblink.schema}"` };
}

function sharing({ dblink: found, openFunctions, dblinkUsers }: NatsState): Finding[] {
  if (openFunctions.length > 0) {
    const where = found === undefined || found.isBare ? "" : ` in the schema "${found.schema}"`;
    const others = openFunctions.filter(({ isMember }) => !isMember).map(({ signature }) => signature);
    const remedies = [
      ...(openFunctions.length > others.length ? [`ALTER EXTENSION dblink SET SCHEMA ${dblinkSchema}`] : []),
      ...(others.length > 0 ? [`REVOKE EXECUTE ON FUNCTION ${others.join(", ")} FROM PUBLIC`] : []),
    ];
    return [
      {
        severity: "warning",
        what: `every role may call dblink${where}, and with it use or replace the gateway's connection of a session that it shares`,
        remedy: `As a superuser: ${remedies.join("; ")}; then run \`hawser init\``,
      },
    ];
  }
  if (dblinkUsers.length === 0) return [];
  return [
    {
      severity: "warning",
      what: `${someOf(dblinkUsers.map((role) => `"${role}"`))} may call dblink, and with it use or replace the gateway's connection of a session that is theirs`,
      remedy: `Where it is not needed: REVOKE USAGE ON SCHEMA ${identifier(found!.schema)} FROM ${dblinkUsers.map(identifier).join(", ")}`,
    },
  ];
}

async function functions(facts: Facts): Promise<Verdict> {
  const state = await facts.natsState();
  const schema = await facts.functionsSchema();
  const calls = await facts.rows<{ body: string }>(
    "SELECT p.prosrc AS body FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = 'hawser' AND p.proname = 'gateway_call'",
  );
  const places = { schema, dblinkSchema: state.dblink?.schema ?? dblinkSchema };
  const { missing, outdated } = compareFunctions(state.functions, calls[0]?.body, places);
  const findings: Finding[] = [];
  if (missing.length > 0) {
    findings.push({
      severity: "error",
      what: `${missing.length === 1 ? "the SQL function" : `${missing.length} SQL functions are missing:`} ${someOf(missing)}${missing.length === 1 ? " is missing" : ""}`,
      remedy:
        "Run `hawser init` as the owner of the schema hawser, or as a superuser; rename first what is not Hawser's and stands in its place",
    });
  }
  const own = versionIn(publicFunctions(places).find(({ name }) => name === versionFunction)!.body);
  if (outdated.length > 0) {
    const present = versionIn(state.functions.find(({ name }) => name === versionFunction)?.body ?? "");
    const other = present === undefined || present === own ? "another build of it" : `version ${present}`;
    const isOne = outdated.length === 1;
    findings.push({
      severity: outdated.includes(gatewayCallSignature) ? "error" : "warning",
      what: `${isOne ? "the SQL function" : `${outdated.length} SQL functions,`} ${someOf(outdated)}${isOne ? "" : ","} ${isOne ? "is" : "are"} of ${other}, and this program is version ${own}`,
      remedy: "Run `hawser init` of the newer version, and let `hawser serve` be of the same",
    });
  }
  const lacking = state.functions.find((fn) => fn.isOurs && fn.lacking.length > 0);
  if (lacking !== undefined) {
    findings.push({
      severity: "error",
      code: "not_permitted",
      what: `"${lacking.owner}", whom SQL functions belong to, lacks ${lacking.lacking.join(", ")}`,
      remedy: `As a superuser: GRANT ${identifier(state.owner ?? "hawser_owner")} TO ${identifier(lacking.owner)}, or run \`hawser init\``,
    });
  }
  return { findings, seen: `the SQL functions in the schema "${schema}" are of version ${own}` };
}

/** Tells the version of all. */
const versionFunction = "litmus_pgnats_version";

async function foreignData(facts: Facts): Promise<Verdict> {
  const state = await facts.natsState();
  const missing = eventTriggers.filter(
    ({ name }) => !state.eventTriggers.some((one) => one.name === name && one.isCurrent),
  );
  const disabled = state.eventTriggers.filter(({ isCurrent, enabled }) => isCurrent && !enabled);
  const noWrapper = wrapperNames.filter(
    (name) => !state.wrappers.some((wrapper) => wrapper.name === name && wrapper.isOurs),
  );
  const findings: Finding[] = [
    ...(missing.length === 0
      ? []
      : [
          {
            severity: "note" as const,
            what: `without the event trigger${missing.length === 1 ? "" : "s"} ${missing.map(({ name }) => name).join(" and ")}, changes of the foreign server are seen within seconds instead of at once`,
            remedy: "Run `hawser init` as a superuser, who alone may make them",
          },
        ]),
    ...disabled.map(({ name }) => ({
      severity: "warning" as const,
      what: `the event trigger ${name} is disabled: changes of the foreign server are seen within seconds instead of at once`,
      remedy: `As a superuser: ALTER EVENT TRIGGER ${name} ENABLE`,
    })),
    ...(noWrapper.length === 0
      ? []
      : [
          {
            severity: "note" as const,
            what: `without the foreign data wrapper${noWrapper.length === 1 ? "" : "s"} ${noWrapper.join(" and ")}, CREATE SERVER cannot say which NATS server is used`,
            remedy: "Use SELECT hawser.set_nats_server('{…}'), or run `hawser init` as a superuser",
          },
        ]),
  ];
  return { findings, seen: "changes of the foreign server are seen at once" };
}
