/**
 * Checks of the schema `hawser`, the roles and NATS from SQL: they must match this version, and this login must be able
 * to read them. `src/operating/installation` detects the faults; each check here reports a part of them.
 */
import pg from "pg";
import { HawserError } from "../../foundation/errors/index.js";
import { version } from "../../foundation/runtime/index.js";
import {
  behindSequences,
  grantedRoles,
  inspectSchema,
  missingSteps,
  schemaInspectionSql,
} from "../../jobs-and-peers/migrations/index.js";
import { dblinkSchema, faultsOf, hasNats } from "../installation/index.js";
import { catalogCheck, failed, faultCheck } from "./check.js";
import type { Check, Verdict } from "./examine.js";
import { type Facts, findingOf } from "./facts.js";

const loginSql = `
  SELECT current_user AS role, current_database() AS database, n.oid IS NOT NULL AS "exists",
         coalesce(has_schema_privilege(n.oid, 'USAGE'), false) AS usable, pg_get_userbyid(n.nspowner) AS owner,
         coalesce(has_schema_privilege(m.pronamespace, 'USAGE') AND has_function_privilege(m.oid, 'EXECUTE'), false) AS readable
    FROM (SELECT) AS one
    LEFT JOIN pg_namespace AS n ON n.nspname = 'hawser'
    LEFT JOIN pg_proc AS m ON m.pronamespace = to_regnamespace('hawser') AND m.proname = 'applied_migrations'`;

interface Login {
  readonly role: string;
  readonly database: string;
  readonly exists: boolean;
  readonly usable: boolean;
  readonly owner: string | null;
  readonly readable: boolean;
}

const ofNats = { needs: ["nats-from-sql"] } as const;

/** Checks of the installation, in the order in which they run. */
export function installationChecks(facts: Facts): Check[] {
  return [
    catalogCheck("schema", () => schemaIsThere(facts), { needs: ["database"] }),
    catalogCheck("login", () => loginMayUseIt(facts), { needs: ["schema"] }),
    catalogCheck("version", () => versionOf(facts), { needs: ["login"] }),
    faultCheck(facts, "schema-objects", "all objects of the schemas match this version", {
      needs: ["version"],
    }),
    catalogCheck("sequences", () => sequences(facts), { needs: ["version"] }),
    catalogCheck("replica", () => replica(facts), { needs: ["version"] }),
    catalogCheck("roles", () => roles(facts), { needs: ["version"] }),
    faultCheck(facts, "grants", ({ privileges }) => `${privileges.wanted} grants`, { needs: ["version"] }),
    catalogCheck("excess-privileges", () => excessGrants(facts), { needs: ["schema-objects"] }),
    catalogCheck("nats-from-sql", () => natsFromSql(facts), { needs: ["version"] }),
    faultCheck(facts, "dblink", ({ dblink: { found } }) => `dblink is in the schema "${found?.schema}"`, ofNats),
    faultCheck(
      facts,
      "functions",
      ({ schema }) => `the SQL functions in the schema "${schema}" are of version ${version}`,
      { ...ofNats, explainedBy: ["dblink"] },
    ),
    faultCheck(facts, "foreign-data", "changes of the foreign server are seen at once", ofNats),
  ];
}

async function inspectLogin(facts: Facts): Promise<Login> {
  return (await facts.rows<Login>(loginSql))[0]!;
}

async function schemaIsThere(facts: Facts): Promise<Verdict> {
  const [found] = await facts.rows<{ migrated: boolean }>(schemaInspectionSql);
  if (found!.migrated) return { seen: "the schema hawser exists" };
  const fault = await inspectSchema(facts.client).catch((error: unknown) => error);
  if (fault instanceof HawserError) return failedBy(fault);
  const { database } = await inspectLogin(facts);
  return failed({
    code: "schema_missing",
    what: `the database "${database}" has no schema hawser`,
    remedy: "Run `hawser init` on it, or name the right database",
  });
}

async function loginMayUseIt(facts: Facts): Promise<Verdict> {
  const { role, usable } = await inspectLogin(facts);
  if (usable) return { seen: `"${role}" may use the schema hawser` };
  const login = pg.escapeIdentifier(role);
  return failed({
    code: "not_permitted",
    what: `the login "${role}" is not a member of any role of Hawser, and may not use the schema hawser`,
    remedy: `For its task: GRANT hawser_bridge TO ${login} (\`hawser serve\`), hawser_peer (a peer), or hawser_nats (a caller of the SQL functions)`,
  });
}

async function versionOf(facts: Facts): Promise<Verdict> {
  const { readable, owner } = await inspectLogin(facts);
  if (!readable)
    return {
      notChecked: "this login may not call hawser.applied_migrations: GRANT hawser_bridge or hawser_peer to it",
    };
  try {
    const missing = await missingSteps(facts.client);
    const { steps, newer } = missing;
    if (newer !== undefined) {
      return {
        seen: `the schema has migration ${newer.id} (${newer.name}) of a newer version, with which this program works`,
      };
    }
    if (missing.isComplete) return { seen: "the schema has this version" };
    const lacks = `lacks migration ${steps.map(({ id, name }) => `${id} (${name})`).join(", ")}`;
    return failed({
      code: "schema_missing",
      what: `the schema hawser is older than this program: it ${steps.length > 0 ? lacks : "has other functions"}`,
      remedy: `Run \`hawser init\` as its owner, "${owner}"`,
    });
  } catch (error) {
    if (!(error instanceof HawserError)) throw error;
    return failedBy(error);
  }
}

function failedBy({ code, message, remedy }: HawserError): Verdict {
  return failed({ code, what: message, remedy });
}

async function replica(facts: Facts) {
  const [row] = await facts.rows<{ is_replica: boolean }>("SELECT pg_is_in_recovery() AS is_replica");
  if (!row!.is_replica) return { seen: "this server is a primary" };
  return {
    findings: [
      {
        severity: "note",
        what: "this server is a standby: subscriptions and responders run on the primary only, which also makes all changes",
        remedy: "Name the primary to examine it: hawser doctor --database-url …",
      },
    ],
  } as const;
}

async function sequences(facts: Facts): Promise<Verdict> {
  const behind = await behindSequences({ query: async (text) => ({ rows: await facts.rows(text) }) });
  const remedy = "Run `hawser init`, or restart a peer or `hawser serve`: each raises it";
  return {
    findings: behind.map((what) => ({ severity: "error", code: "store_failed", what, remedy })),
    seen: "no sequence is behind the numbers in its table",
  };
}

async function roles(facts: Facts): Promise<Verdict> {
  const { roles: found, bindings } = await facts.state();
  // The check `executor-login` reports faults of the executor, unless this login may not read which role is the
  // executor.
  const ofExecutor = bindings.login === null ? [] : ["hawser_executor", bindings.login.name];
  const faults = faultsOf(await facts.state()).filter(
    ({ check, subject }) => check === "roles" && (subject === undefined || !ofExecutor.includes(subject)),
  );
  return {
    findings: faults.map(findingOf),
    seen: `${grantedRoles.length - found.missing.length} roles of Hawser`,
  };
}

async function excessGrants(facts: Facts): Promise<Verdict> {
  const state = await facts.state();
  // The check `dblink` has then reported who may use dblink, with the consequences.
  const isReported = state.dblink.open.length + state.dblink.users.length > 0;
  const faults = state.privileges.excess.filter(({ subject }) => !(isReported && subject === dblinkSchema));
  return { findings: faults.map(findingOf), seen: "no role has more privileges than Hawser grants" };
}

async function natsFromSql(facts: Facts): Promise<Verdict> {
  if (hasNats(await facts.state())) return { seen: "NATS from SQL is installed" };
  return { absent: true, seen: "NATS from SQL is not installed: the database is for peers" };
}
