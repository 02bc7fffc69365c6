/**
 * A whole system that is healthy: a database of a Postgres that asks for passwords, NATS, and `hawser serve` between them.
 *
 * The Postgres is of the test file's own, because all databases of a server share their roles, which are looked at.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { expect } from "vitest";
import { type HawserServer, type ServeOptions, serve as startServer } from "../../../src/nats/serve/index.js";
import type { DoctorOptions } from "../../../src/operating/doctor/index.js";
import { type DoctorReport, doctor, type NamedFinding } from "../../../src/operating/doctor/index.js";
import { install } from "../../../src/operating/installation/index.js";
import { type OwnPostgres, ownPostgres } from "../../faults/support/own-postgres.js";
import { testNatsUrl } from "../../support/database.js";
import { eventually } from "../../support/eventually.js";
import { onServer, rowsOf } from "../../support/on-server.js";

/** Database that `startSystem` copies instead of installing. */
const template = "doctor_template";

/** Starts such a Postgres. */
export async function postgresWithPasswords(): Promise<OwnPostgres> {
  const postgres = await ownPostgres();
  await onServer(
    postgres.url,
    "ALTER SYSTEM SET fsync = off",
    "SELECT pg_reload_conf()",
    `CREATE DATABASE ${template}`,
  );
  // As it is since Postgres 15.
  await onServer(urlOf(postgres, template), "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
  await install({ databaseUrl: urlOf(postgres, template) });
  return postgres;
}

/** Parts of the system to start. */
export interface SystemOptions extends Omit<ServeOptions, "databaseUrl"> {
  /** Default: the NATS of the run. */
  readonly natsUrl?: string;
  /** Further options of it; false: no server is defined. */
  readonly natsOptions?: Readonly<Record<string, string>> | false;
  /** False: nobody serves. */
  readonly serve?: boolean;
}

/** A running one. */
export interface System extends AsyncDisposable {
  /** Connects as the login of `hawser serve`, which is in hawser_nats and hawser_peer, too. */
  readonly url: string;
  readonly login: string;
  /** The login that runs subscribed functions. */
  readonly executor: string;
  /** Connects as superuser. */
  readonly superuserUrl: string;
  readonly name: string;
  readonly serve: HawserServer | undefined;
  /** Runs statements as superuser. */
  run(...statements: readonly string[]): Promise<void>;
  /** Resolves when somebody leads, which is so some time after there is a connection to NATS. */
  led(): Promise<void>;
  /** Examines it, by default as its login. */
  examine(options?: Partial<DoctorOptions>): Promise<DoctorReport>;
}

/** Makes one. Where it is served, its gateway has connected to NATS, if that one lets it. */
export async function startSystem(postgres: OwnPostgres, options: SystemOptions = {}): Promise<System> {
  const { natsUrl = testNatsUrl(), natsOptions = {}, serve: isServed = true, ...serveOptions } = options;
  const name = `doctor_${randomBytes(4).toString("hex")}`;
  const login = `bridge_${name}`;
  const executor = `hawser_executor_${name}`;
  await onServer(postgres.url, `CREATE DATABASE ${name} TEMPLATE ${template}`);
  const superuserUrl = urlOf(postgres, name);
  const [own] = await rowsOf(superuserUrl, "SELECT password FROM hawser_bridge_data.executor_login");
  const url = urlOf(postgres, name, { user: login, password: "right" });
  const run = (...statements: readonly string[]) => onServer(superuserUrl, ...statements);
  await run(
    `CREATE ROLE ${login} LOGIN PASSWORD 'right' IN ROLE hawser_bridge, hawser_nats, hawser_peer`,
    `GRANT CREATE ON SCHEMA public TO ${login}`,
    `CREATE ROLE ${executor} LOGIN PASSWORD '${own!["password"]}' IN ROLE hawser_executor`,
    `GRANT ${executor} TO hawser_bridge`,
    `UPDATE hawser_bridge_data.executor_login SET user_name = '${executor}'`,
  );
  if (natsOptions !== false) {
    const { hostname: host, port } = new URL(natsUrl);
    await run(`SELECT hawser.set_nats_server(${pg.escapeLiteral(JSON.stringify({ host, port, ...natsOptions }))})`);
  }
  const serve = isServed ? await startServer({ listen: "127.0.0.1:0", ...serveOptions, databaseUrl: url }) : undefined;
  if (serve !== undefined) await run("SELECT litmus_pgnats_reload_conf()").catch(() => undefined);
  const leader = "SELECT FROM hawser.bridge_lead WHERE owner IS NOT NULL";
  return {
    url,
    login,
    executor,
    superuserUrl,
    name,
    serve,
    run,
    led: () => eventually("somebody leads", async () => (await rowsOf(superuserUrl, leader)).length === 1),
    examine: (more = {}) => doctor({ databaseUrl: url, secretsDirectories: [], ...more }),
    [Symbol.asyncDispose]: async () => {
      await serve?.stop();
      await run(`DROP OWNED BY ${login}`);
      await onServer(postgres.url, `DROP DATABASE ${name} WITH (FORCE)`, `DROP ROLE ${login}`);
      await onServer(postgres.url, `DROP ROLE IF EXISTS ${executor}`);
    },
  };
}

/** @param login default: the superuser */
function urlOf(
  { url }: OwnPostgres,
  database: string,
  login?: { readonly user: string; readonly password: string },
): string {
  const whole = new URL(url);
  whole.pathname = `/${database}`;
  if (login !== undefined) Object.assign(whole, { username: login.user, password: login.password });
  return whole.href;
}

/** Shortens the findings of a report. */
export function found({ findings }: DoctorReport): Pick<NamedFinding, "check" | "severity" | "code">[] {
  return findings.map(({ check, severity, code }) => ({ check, severity, ...(code !== undefined && { code }) }));
}

/** The one finding. */
export function onlyFinding(report: DoctorReport): NamedFinding {
  const [finding, ...others] = report.findings;
  if (finding === undefined || others.length > 0) {
    throw new Error(`not one finding, but: ${JSON.stringify(report.findings, undefined, 1)}`);
  }
  return finding;
}

/** The statement of a remedy. */
const statementOf = (remedy: string): string => remedy.replace(/^[^:]*: /, "").replace(/;.*$/, "");

/** A fault that is found alone. */
export interface Fault {
  /** Description of the fault. */
  readonly fault?: string;
  /** Statements that cause the fault, as superuser. */
  readonly seed: readonly string[] | ((system: System) => readonly string[]);
  /** The finding. */
  readonly finding: Partial<Record<keyof NamedFinding, unknown>>;
  /** Statements that undo the fault. Default: the remedy of the finding, which must undo it. */
  readonly undo?: readonly string[] | ((system: System) => readonly string[] | Promise<unknown>);
}

/** Seeds the fault in a system that is well, expects to find it, and undoes it. */
export async function expectFault(system: System, { seed, finding, undo }: Fault): Promise<void> {
  await system.run(...(typeof seed === "function" ? seed(system) : seed));
  let found: NamedFinding | undefined;
  try {
    found = onlyFinding(await system.examine());
    expect(found).toMatchObject(finding);
  } finally {
    const wanted = typeof undo === "function" ? undo(system) : (undo ?? (found ? [statementOf(found.remedy)] : []));
    if (wanted instanceof Promise) await wanted;
    else await system.run(...(wanted as readonly string[]));
  }
  await eventually("all is well again", async () => (await system.examine()).findings.length === 0);
}

/** A function, and a subscription to it. */
export const subscribing = (subject: string): string[] => [
  "CREATE FUNCTION public.take(bytea) RETURNS void LANGUAGE sql AS ''",
  `SELECT nats_subscribe('${subject}', 'public.take'::regproc)`,
];
