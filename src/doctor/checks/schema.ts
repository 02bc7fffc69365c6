/**
 * The schema `hawser`: whether this login may use it, whether it is that of this version, and whether this server takes
 * changes at all.
 */
import pg from "pg";
import { StoreError } from "../../errors/index.js";
import { missingSteps } from "../../store/migrate.js";
import { schemaLookSql } from "../../store/schema-trust.js";
import type { Check } from "../examine.js";
import type { Facts } from "../facts.js";
import { catalogCheck } from "./catalog-check.js";

const loginSql = `
  SELECT current_user AS role, current_database() AS database, n.oid IS NOT NULL AS "exists",
         coalesce(has_schema_privilege(n.oid, 'USAGE'), false) AS usable, pg_get_userbyid(n.nspowner) AS owner,
         coalesce(has_table_privilege(m.oid, 'SELECT'), false) AS readable
    FROM (SELECT) AS one
    LEFT JOIN pg_namespace AS n ON n.nspname = 'hawser'
    LEFT JOIN pg_class AS m ON m.relnamespace = n.oid AND m.relname = 'migrations'`;

interface Login {
  readonly role: string;
  readonly database: string;
  readonly exists: boolean;
  readonly usable: boolean;
  readonly owner: string | null;
  readonly readable: boolean;
}

/** In their order. */
export function schemaChecks(facts: Facts): Check[] {
  return [
    catalogCheck("schema", () => schemaIsThere(facts), { needs: ["database"] }),
    catalogCheck("login", () => loginMayUseIt(facts), { needs: ["schema"] }),
    catalogCheck("version", () => versionOf(facts), { needs: ["login"] }),
    catalogCheck("replica", () => replica(facts), { needs: ["version"] }),
  ];
}

async function lookAtLogin(facts: Facts): Promise<Login> {
  return (await facts.rows<Login>(loginSql))[0]!;
}

async function schemaIsThere(facts: Facts) {
  const [look] = await facts.rows<{ migrated: boolean }>(schemaLookSql);
  if (look!.migrated) return { seen: "the schema hawser is there" };
  const { database } = await lookAtLogin(facts);
  return {
    findings: [
      {
        severity: "error",
        code: "schema_missing",
        what: `the database "${database}" has no schema hawser`,
        remedy: "Run `hawser init` on it, or name the right database",
      },
    ],
  } as const;
}

async function loginMayUseIt(facts: Facts) {
  const { role, usable } = await lookAtLogin(facts);
  if (usable) return { seen: `"${role}" may use the schema hawser` };
  const login = pg.escapeIdentifier(role);
  return {
    findings: [
      {
        severity: "error",
        code: "not_permitted",
        what: `the login "${role}" is in no role of Hawser, and may not use the schema hawser`,
        remedy: `As whom it is for: GRANT hawser_bridge TO ${login} (\`hawser serve\`), hawser_peer (a peer), or hawser_nats (who calls the SQL functions)`,
      },
    ],
  } as const;
}

async function versionOf(facts: Facts) {
  const { readable, owner } = await lookAtLogin(facts);
  if (!readable)
    return { notChecked: "this login may not read hawser.migrations: GRANT hawser_bridge or hawser_peer to it" };
  try {
    const { steps } = await missingSteps(facts.client);
    if (steps.length === 0) return { seen: "the schema is that of this version" };
    const names = steps.map(({ id, name }) => `${id} (${name})`).join(", ");
    return {
      findings: [
        {
          severity: "error",
          code: "schema_missing",
          what: `the schema hawser is older than this program: it lacks migration ${names}`,
          remedy: `Run \`hawser init\` as its owner, "${owner}"`,
        },
      ],
    } as const;
  } catch (error) {
    if (!StoreError.is(error)) throw error;
    const { code, message, entry } = error;
    return { findings: [{ severity: "error", code, what: message, remedy: entry.remedy }] } as const;
  }
}

async function replica(facts: Facts) {
  const [row] = await facts.rows<{ is_replica: boolean }>("SELECT pg_is_in_recovery() AS is_replica");
  if (!row!.is_replica) return { seen: "this server is a primary" };
  return {
    findings: [
      {
        severity: "note",
        what: "this server is a replica: subscriptions and responders run on the primary only, and changes are made there",
        remedy: "Name the primary to examine that one: hawser doctor --database-url …",
      },
    ],
  } as const;
}
