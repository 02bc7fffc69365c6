/**
 * The roles of Hawser: whether they are there, have what they are to have, and nothing beyond it.
 */

import { tables } from "../../../generated/ts/rows/nats.js";
import type { Grant } from "../../store/grants.js";
import { grantedRoles } from "../../store/grants.js";
import { lackingGrants } from "../../store/lacking-grants.js";
import { natsRoles } from "../../store/nats/install-nats.js";
import { dblinkSchema, runSchema } from "../../store/nats/objects.js";
import { pathWarnings } from "../../store/path-warnings.js";
import { roleWarnings } from "../../store/role-warnings.js";
import { surplusGrants } from "../../store/surplus-grants.js";
import type { Check } from "../examine.js";
import type { Facts } from "../facts.js";
import type { Finding, Verdict } from "../finding.js";
import { catalogCheck, findingOf } from "./catalog-check.js";

/** More than these are given by `hawser init` in one go. */
const mostStatements = 3;

/** In their order. */
export function rightsChecks(facts: Facts): Check[] {
  return [
    catalogCheck("roles", () => roles(facts), { needs: ["version"] }),
    catalogCheck("grants", () => lacking(facts), { needs: ["version"] }),
    catalogCheck("surplus-grants", () => surplus(facts), { needs: ["version"] }),
  ];
}

async function roles(facts: Facts): Promise<Verdict> {
  const names = [...new Set([...grantedRoles, ...natsRoles])];
  const missing = await facts.rows<{ name: string }>(
    "SELECT w.name FROM unnest($1::text[]) AS w (name) WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = w.name)",
    [names],
  );
  const lines = withoutExecutor(await roleWarnings(facts.client, names), await executorOf(facts));
  const findings: Finding[] = [
    ...missing.map(
      ({ name }): Finding => ({
        severity: "warning",
        what: `the role ${name} is missing: nobody can be given its rights`,
        remedy: `As a role that may make roles: CREATE ROLE ${name} NOLOGIN; then run \`hawser init\``,
      }),
    ),
    // Whoever installs without being a superuser has to be such a member.
    ...lines.map((line) => findingOf(line, line.includes("is a member of hawser_owner") ? "note" : "warning")),
    ...(await pathWarnings(facts.client)).map((line) => findingOf(line, "warning")),
  ];
  return { findings, seen: `${names.length - missing.length} roles of Hawser` };
}

/** The login of this database; undefined if this login may not read that. */
async function executorOf(facts: Facts): Promise<string | undefined> {
  if (!(await facts.mayRead(tables.executorLogin))) return undefined;
  const [row] = await facts.rows<{ name: string }>(`SELECT l.user_name AS name FROM ${tables.executorLogin} AS l`);
  return row?.name;
}

/** What the check of that login tells is told there. */
function withoutExecutor(lines: readonly string[], executor: string | undefined): string[] {
  if (executor === undefined) return [...lines];
  return lines.filter((line) => ![executor, "hawser_executor"].some((name) => line.startsWith(`"${name}", as which`)));
}

async function lacking(facts: Facts): Promise<Verdict> {
  const wanted = [...(await facts.wantedGrants()), ...(await schemaGrants(facts))];
  // What is not there lacks nothing: that is another finding.
  const byRole = await lackingGrants(facts.client, wanted);
  return {
    findings: byRole.map((grants): Finding => {
      const { role, privilege, kind, object } = grants[0]!;
      const more = grants.length === 1 ? "" : ` and ${grants.length - 1} more`;
      const statements = grants.map((one) => `GRANT ${one.privilege} ON ${one.kind} ${one.object} TO ${one.role}`);
      return {
        severity: "error",
        code: "not_permitted",
        what: `${role} lacks ${privilege} on ${kind.toLowerCase()} ${object}${more}: a login that has only ${role} cannot do its work`,
        remedy:
          grants.length > mostStatements
            ? "Run `hawser init` as the owner of the schema hawser"
            : `As the owner of the schema hawser: ${statements.join("; ")}`,
      };
    }),
    seen: `${wanted.length} grants`,
  };
}

async function surplus(facts: Facts): Promise<Verdict> {
  const all = await surplusGrants(facts.client, await facts.wantedGrants());
  const { openFunctions, dblinkUsers } = await facts.natsState();
  // What the check of dblink tells, with what it means.
  const isToldBefore = openFunctions.length + dblinkUsers.length > 0;
  const lines = all.filter((line) => !(isToldBefore && line.includes(` on schema ${dblinkSchema},`)));
  return { findings: lines.map(surplusFinding), seen: "nobody has more than Hawser has given" };
}

/** Lines about what subscribed functions could read: then `hawser serve` runs none. */
const readByExecutor = /^(?:every role|"hawser_executor(?:_[0-9a-f]{12})?") has [^:]*\bSELECT\b[^:]* on table hawser\./;

function surplusFinding(line: string): Finding {
  const finding = findingOf(line, "warning");
  if (!readByExecutor.test(line)) return finding;
  const what = `${finding.what}: subscribed functions could read it, and so \`hawser serve\` calls none`;
  return { ...finding, severity: "error", code: "executor_login", what };
}

/** What `hawser init` grants besides, on schemas whose names it is told or that are not hawser. */
async function schemaGrants(facts: Facts): Promise<Grant[]> {
  const { functions } = await facts.natsState();
  const on = (object: string, role: string, privilege: string): Grant => ({ role, kind: "SCHEMA", object, privilege });
  const [row] = await facts.rows<{ name: string }>("SELECT quote_ident($1) AS name", [await facts.functionsSchema()]);
  return [
    ...(functions.some(({ isOurs }) => isOurs) ? [on(row!.name, "hawser_nats", "USAGE")] : []),
    on(runSchema, "hawser_nats", "USAGE"),
    on(runSchema, "hawser_nats", "CREATE"),
    on(runSchema, "hawser_executor", "USAGE"),
  ];
}
