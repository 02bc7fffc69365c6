/**
 * Once for a whole run: real servers, databases for the test files to copy, and the programs that tests start.
 *
 * Workers find them in the environment (HAWSER_TEST_DATABASE_URL, HAWSER_TEST_NATS_URL, HAWSER_TEST_TEMPLATE), as the
 * processes they start do, and by vitest's `inject`.
 *
 * HAWSER_TEST_INSTALLER says who installs what is in that database: without it the superuser; `limited` a role that is
 * none, for which a superuser has made dblink and the roles; `limited-createrole` such a role that makes the roles itself.
 */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import type { TestProject } from "vitest/node";
import { startDevStack } from "../src/development/dev/index.js";
import { grantedRoles, migrate } from "../src/jobs-and-peers/migrations/index.js";
import { install } from "../src/operating/installation/index.js";
import { buildPrograms } from "./support/built-programs.js";
import { initdbArguments, prepareCluster } from "./support/cluster.js";
import { type Installer, makeInstaller } from "./support/limited-installer.js";
import { onServer, rowsOf } from "./support/on-server.js";

declare module "vitest" {
  export interface ProvidedContext {
    /** The server's database `postgres`, as superuser. Tests make databases of their own: see `testDatabase`. */
    databaseUrl: string;
    /** A NATS that needs no credentials, with JetStream. It is shared: use subjects and streams of your own. */
    natsUrl: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const memory = process.env["TMPDIR"] === undefined ? memoryDirectory() : undefined;
  if (memory !== undefined) process.env["TMPDIR"] = memory;
  const programs = await buildPrograms();
  const stack = await startDevStack({ initdb: initdbArguments, onProgress: say }).catch((error: unknown) => {
    programs.remove();
    throw error;
  });
  for (const { name, version, origin } of stack.servers) say(`${name} ${version ?? ""} from ${origin}`);
  const { databaseUrl } = stack;
  const natsUrl = stack.natsUrl!;
  let templates: Templates;
  try {
    // Commits do not wait for the disk: nothing of a run outlives it, and the tests that kill Postgres have one of their own.
    if (process.env["HAWSER_DATABASE_URL"] === undefined) {
      await prepareCluster(databaseUrl, ["fsync = off", "full_page_writes = off"]);
      await makeLoginsCheap(databaseUrl);
    }
    templates = await makeTemplates(databaseUrl, `hawser_template_${randomBytes(4).toString("hex")}`);
  } catch (error) {
    await stack.stop();
    programs.remove();
    throw error;
  }
  // Tests that start servers mean servers of their own.
  delete process.env["HAWSER_DATABASE_URL"];
  delete process.env["HAWSER_NATS_URL"];
  process.env["HAWSER_TEST_DATABASE_URL"] = databaseUrl;
  process.env["HAWSER_TEST_NATS_URL"] = natsUrl;
  process.env["HAWSER_TEST_TEMPLATE"] = templates.everything;
  process.env["HAWSER_TEST_PEERS_TEMPLATE"] = templates.peers;
  process.env["HAWSER_TEST_COPY_DATABASE"] = await copyByFiles(databaseUrl);
  process.env["HAWSER_TEST_PROGRAMS"] = programs.directory;
  project.provide("databaseUrl", databaseUrl);
  project.provide("natsUrl", natsUrl);
  return async () => {
    try {
      // A Postgres of HAWSER_DATABASE_URL outlives the run.
      for (const name of [templates.everything, templates.peers]) {
        await onServer(databaseUrl, `ALTER DATABASE ${name} IS_TEMPLATE false`, `DROP DATABASE ${name}`);
      }
      for (const role of templates.roles) await onServer(databaseUrl, `DROP ROLE ${role}`);
    } finally {
      await stack.stop();
      programs.remove();
    }
  };
}

function say(message: string): void {
  console.error(message);
}

/** Bytes that are sufficient for the files of a whole run at once, with a large margin. */
const memoryNeeded = 4 * 2 ** 30;

/**
 * A directory in memory, if there is one with room whose programs may be started. Each test file makes and removes a
 * database of 450 files, which costs a disk's file system several times the processor time that it costs Postgres.
 */
function memoryDirectory(): string | undefined {
  const memory = "/dev/shm";
  let directory: string | undefined;
  try {
    const { bavail, bsize } = statfsSync(memory);
    if (bavail * bsize < memoryNeeded) return undefined;
    directory = mkdtempSync(join(memory, "hawser-probe-"));
    const program = join(directory, "program");
    writeFileSync(program, "#!/bin/sh\n", { mode: 0o755 });
    return spawnSync(program).status === 0 ? memory : undefined;
  } catch {
    return undefined;
  } finally {
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  }
}

/**
 * Passwords are hashed once in place of 4096 times (Postgres 16 and newer): a client computes that for each of the thousands of
 * sessions of a run.
 */
async function makeLoginsCheap(databaseUrl: string): Promise<void> {
  const [row] = await rowsOf(databaseUrl, "SELECT current_setting('scram_iterations', true) AS iterations");
  if (row!["iterations"] === null) return;
  const { password } = new URL(databaseUrl);
  await onServer(
    databaseUrl,
    "ALTER SYSTEM SET scram_iterations = 1",
    "SELECT pg_reload_conf()",
    "SET scram_iterations = 1",
    `ALTER ROLE CURRENT_USER PASSWORD ${pg.escapeLiteral(decodeURIComponent(password))}`,
  );
}

/** Makes CREATE DATABASE copy files instead of pages, which takes half the processor time. */
async function copyByFiles(databaseUrl: string): Promise<string> {
  const [{ version }] = (await rowsOf(databaseUrl, "SELECT current_setting('server_version_num') AS version")) as [
    { version: string },
  ];
  return Number(version) >= 150_000 ? "STRATEGY file_copy" : "";
}

/** The databases that `testDatabase` copies. */
interface Templates {
  /** Holds what `hawser init` makes. */
  readonly everything: string;
  /** Holds what `hawser init --no-nats` makes. */
  readonly peers: string;
  /** Roles that were made for them. */
  readonly roles: readonly string[];
}

/** Makes them. Nobody may connect to them: that would forbid copying them. */
async function makeTemplates(databaseUrl: string, name: string): Promise<Templates> {
  const peers = `${name}_peers`;
  await onServer(databaseUrl, `CREATE DATABASE ${peers} IS_TEMPLATE true`);
  const urlOf = (base: string, database: string): string => {
    const url = new URL(base);
    url.pathname = `/${database}`;
    return url.href;
  };
  // As it is since Postgres 15; before, an installation rightly warns of it.
  await onServer(urlOf(databaseUrl, peers), "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
  const installer = await installerFor(urlOf(databaseUrl, peers));
  const { leftOut } = await migrate({ databaseUrl: installer?.url ?? urlOf(databaseUrl, peers) });
  for (const line of leftOut) say(`Left out of the template: ${line}`);
  // A superuser runs nothing of a role that it has not said it trusts, and some tests install as superuser afterwards.
  if (installer !== undefined) await onServer(databaseUrl, `GRANT hawser_owner TO ${installer.role}`);

  await onServer(databaseUrl, `CREATE DATABASE ${name} TEMPLATE ${peers} IS_TEMPLATE true`);
  const url = urlOf(databaseUrl, name);
  if (installer !== undefined) {
    await onServer(databaseUrl, `GRANT CREATE ON DATABASE ${name} TO ${installer.role}`);
    const { nats, missingPrivileges } = await install({ databaseUrl: urlOf(installer.url, name) });
    if (!nats?.functions) throw new Error(`no functions: ${missingPrivileges.map(({ what }) => what).join("; ")}`);
  }
  // Also what only a superuser may make: foreign data wrappers and event triggers.
  await install({ databaseUrl: url });
  const [executor] = await rowsOf(url, "SELECT user_name AS name FROM hawser_bridge_data.executor_login");
  for (const each of [name, peers]) await onServer(databaseUrl, `ALTER DATABASE ${each} ALLOW_CONNECTIONS false`);
  const roles = [executor!["name"] as string, ...(installer ? [installer.role] : [])];
  return { everything: name, peers, roles };
}

/** Makes the role that HAWSER_TEST_INSTALLER asks for, for a database that the URL connects to as superuser. */
async function installerFor(superuserUrl: string): Promise<Installer | undefined> {
  const wanted = process.env["HAWSER_TEST_INSTALLER"];
  if (!wanted) return undefined;
  if (wanted !== "limited" && wanted !== "limited-createrole") {
    throw new Error(`HAWSER_TEST_INSTALLER is "${wanted}"; it can be "limited" or "limited-createrole".`);
  }
  const createRole = wanted === "limited-createrole";
  if (!createRole) await makeRoles(superuserUrl);
  const installer = await makeInstaller(superuserUrl, { createRole });
  say(`The template is installed by ${installer.role}, which is no superuser`);
  return installer;
}

/** As the remedy says that `hawser init` names to a role that may not make them. */
async function makeRoles(superuserUrl: string): Promise<void> {
  const exist = await rowsOf(superuserUrl, "SELECT rolname AS name FROM pg_roles");
  const missing = grantedRoles.filter((role) => !exist.some(({ name }) => name === role));
  await onServer(superuserUrl, ...missing.map((role) => `CREATE ROLE ${role} NOLOGIN`));
}
