/**
 * Login that runs subscribed functions: it must exist, be able to connect to this very database, and have no other
 * rights.
 */
import pg from "pg";
import { tables } from "../../../generated/ts/rows/nats.js";
import { DatabaseAddress, isServerError } from "../../foundation/postgres/index.js";
import {
  type DatabaseIdentity,
  differenceOf,
  identitySql,
  isSameDatabase,
  sameDatabaseRemedy,
} from "../../nats/bridge/index.js";
import { someOf } from "../installation/index.js";
import { catalogCheck } from "./check.js";
import type { Check, Finding, Verdict } from "./examine.js";
import { close, type Facts, open } from "./facts.js";

const { escapeIdentifier: identifier } = pg;

/** Memberships of the login and of hawser_executor, except the membership of the former in the latter. */
const memberships = `pg_auth_members AS a JOIN pg_roles AS m ON m.oid = a.member JOIN pg_roles AS g ON g.oid = a.roleid
            WHERE a.member IN (r.oid, e.oid) AND a.roleid <> e.oid`;

const loginSql = `
  SELECT r.rolcanlogin AS "canLogin", coalesce(r.rolvaliduntil < clock_timestamp(), false) AS "isExpired",
         pg_has_role(r.oid, e.oid, 'MEMBER') AS "isExecutor",
         has_database_privilege(r.oid, current_database(), 'CONNECT') AS connects,
         coalesce(pg_has_role('hawser_bridge', r.oid, 'MEMBER'), false) AS "isBridged",
         ARRAY(
           SELECT a.name FROM (VALUES
             ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole), ('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls)
           ) AS a (name, held) WHERE a.held
         ) AS attributes,
         ARRAY(SELECT g.rolname::text FROM ${memberships} ORDER BY 1) AS roles,
         ARRAY(SELECT format('REVOKE %I FROM %I', g.rolname, m.rolname) FROM ${memberships} ORDER BY 1) AS revokes
    FROM pg_roles AS r JOIN pg_roles AS e ON e.rolname = 'hawser_executor'
   WHERE r.rolname = $1`;

interface Login {
  readonly canLogin: boolean;
  readonly isExpired: boolean;
  readonly isExecutor: boolean;
  readonly connects: boolean;
  readonly isBridged: boolean;
  readonly attributes: readonly string[];
  readonly roles: readonly string[];
  /** Statements that revoke the memberships. */
  readonly revokes: readonly string[];
}

/** Connects with the login and checks its rights. */
export function executorCheck(facts: Facts): Check {
  return catalogCheck("executor-login", (signal) => executor(facts, signal), { needs: ["nats-from-sql"] });
}

async function executor(facts: Facts, signal: AbortSignal): Promise<Verdict> {
  const { executorUrl } = facts.options;
  if ((await facts.rows("SELECT FROM pg_roles AS r WHERE r.rolname = 'hawser_executor'")).length === 0) {
    return { notChecked: "the role hawser_executor is missing" };
  }
  if (executorUrl !== undefined) {
    const address = DatabaseAddress.of(executorUrl);
    return examine(facts, address.described.role, address, signal);
  }
  if (!(await facts.mayRead(tables.executorLogin))) {
    return { notChecked: `this login may not read ${tables.executorLogin}: run it as the login of \`hawser serve\`` };
  }
  const [own] = await facts.rows<{ user: string; password: string }>(
    `SELECT l.user_name AS "user", l.password FROM ${tables.executorLogin} AS l`,
  );
  return examine(facts, own!.user, facts.address.withLogin(own!), signal);
}

async function examine(facts: Facts, name: string, address: DatabaseAddress, signal: AbortSignal): Promise<Verdict> {
  const reached = await reach(address, signal);
  if (!(reached instanceof Error)) {
    const [own] = await facts.rows<DatabaseIdentity>(identitySql);
    // The catalogs of this server say nothing about a login that reaches another database.
    if (!isSameDatabase(reached, own!)) return { findings: [elsewhere(facts, name, reached, own!)] };
  }
  const [login] = await facts.rows<Login>(loginSql, [name]);
  const fault = login === undefined ? await missing(facts, name) : faultOf(name, login);
  if (fault !== undefined) return { findings: [fault] };
  if (reached instanceof Error)
    return {
      findings: [
        error(
          `the login "${name}", which runs subscribed functions, cannot connect: ${reached.message}`,
          remedyOf(reached, name),
        ),
      ],
    };
  const findings: Finding[] = login!.isBridged || facts.options.executorUrl !== undefined ? [] : [notBridged(name)];
  return { findings, seen: `"${name}" connects, and is a member of hawser_executor only` };
}

/** Finding for a missing login; an error only if there are functions to run. */
async function missing(facts: Facts, name: string): Promise<Finding> {
  const counts = await facts.handlerCounts();
  const isNeeded = counts === undefined || counts.subscriptions + counts.responders > 0;
  return {
    ...error(
      `the login "${name}", which runs subscribed functions, is missing`,
      "Run `hawser init` as a role that may create roles, or name a login with --executor-url, for `hawser serve` too",
    ),
    severity: isNeeded ? "error" : "warning",
  };
}

function faultOf(name: string, login: Login): Finding | undefined {
  const who = `the login "${name}", which runs subscribed functions,`;
  const role = identifier(name);
  if (login.attributes.length > 0) {
    const taken = login.attributes.map((attribute) => `NO${attribute}`).join(" ");
    return error(
      `${who} has more rights than it should: it has ${login.attributes.join(", ")}`,
      `ALTER ROLE ${role} ${taken}`,
    );
  }
  if (login.roles.length > 0) {
    const roles = someOf(
      login.roles.map((one) => `"${one}"`),
      3,
    );
    return error(`${who} has more rights than it should: it is a member of ${roles}`, login.revokes.join("; "));
  }
  if (!login.canLogin) return error(`${who} may not log in`, `ALTER ROLE ${role} LOGIN`);
  if (login.isExpired) return error(`${who} has expired`, `ALTER ROLE ${role} VALID UNTIL 'infinity'`);
  if (!login.isExecutor) return error(`${who} is not a member of hawser_executor`, `GRANT hawser_executor TO ${role}`);
  if (login.connects) return undefined;
  return error(`${who} may not connect to this database`, "Run `hawser init`, which grants CONNECT to it");
}

function notBridged(name: string): Finding {
  return {
    severity: "warning",
    what: `hawser_bridge is not a member of "${name}": a process that takes over cannot end the sessions of its predecessor`,
    remedy: `GRANT ${identifier(name)} TO hawser_bridge`,
  };
}

function elsewhere(facts: Facts, name: string, reached: DatabaseIdentity, own: DatabaseIdentity): Finding {
  return error(
    `the login "${name}", which runs subscribed functions, reaches ${differenceOf(reached, own)}`,
    sameDatabaseRemedy(facts.options.executorUrl),
  );
}

/** Identifies the database that the address reaches, or returns the error of the connection. */
async function reach(address: DatabaseAddress, signal: AbortSignal): Promise<DatabaseIdentity | Error> {
  let client: pg.Client | undefined;
  try {
    ({ client } = await open(address, signal));
    return (await client.query<DatabaseIdentity>(identitySql)).rows[0]!;
  } catch (cause) {
    if (!(cause instanceof Error)) throw cause;
    return cause;
  } finally {
    if (client !== undefined) close(client);
  }
}

function remedyOf(refusal: Error, name: string): string {
  if (isServerError(refusal) && refusal.code === "28P01") {
    const role = identifier(name);
    return `Recreate it: DROP OWNED BY ${role}; DROP ROLE ${role}; then run \`hawser init\``;
  }
  return `Allow it: add a line to pg_hba.conf for "${name}" with scram-sha-256, as for the login of \`hawser serve\``;
}

function error(what: string, remedy: string): Finding {
  return { severity: "error", code: "executor_login", what, remedy };
}
