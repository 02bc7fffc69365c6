/**
 * Once for a whole run: real servers, and a migrated database for the test files to copy.
 *
 * Workers find them in the environment (HAWSER_TEST_DATABASE_URL, HAWSER_TEST_NATS_URL, HAWSER_TEST_TEMPLATE), as the
 * processes they start do, and by vitest's `inject`.
 *
 * HAWSER_TEST_INSTALLER says who installs what is in that database: without it the superuser; `limited` a role that is
 * none, for which a superuser has made dblink and the roles; `limited-createrole` such a role that makes the roles itself.
 */
import { randomBytes } from "node:crypto";
import type { TestProject } from "vitest/node";
import { startDevStack } from "../src/dev/index.js";
import { grantedRoles } from "../src/store/grants.js";
import { migrate } from "../src/store/index.js";
import { natsRoles } from "../src/store/nats/install-nats.js";
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
  const stack = await startDevStack({ onProgress: (message) => console.error(message) });
  for (const { name, version, origin } of stack.servers) console.error(`${name} ${version ?? ""} from ${origin}`);
  const { databaseUrl } = stack;
  const natsUrl = stack.natsUrl!;
  const template = `hawser_template_${randomBytes(4).toString("hex")}`;
  let installer: string | undefined;
  try {
    installer = await makeTemplate(databaseUrl, template);
  } catch (error) {
    await stack.stop();
    throw error;
  }
  // Tests that start servers mean servers of their own.
  delete process.env["HAWSER_DATABASE_URL"];
  delete process.env["HAWSER_NATS_URL"];
  process.env["HAWSER_TEST_DATABASE_URL"] = databaseUrl;
  process.env["HAWSER_TEST_NATS_URL"] = natsUrl;
  process.env["HAWSER_TEST_TEMPLATE"] = template;
  project.provide("databaseUrl", databaseUrl);
  project.provide("natsUrl", natsUrl);
  return async () => {
    // A Postgres of HAWSER_DATABASE_URL outlives the run.
    await onServer(databaseUrl, `ALTER DATABASE ${template} IS_TEMPLATE false`, `DROP DATABASE ${template}`);
    if (installer !== undefined) await onServer(databaseUrl, `DROP ROLE ${installer}`);
    await stack.stop();
  };
}

/**
 * Makes the migrated database that `testDatabase` copies. Nobody may connect to it: that would forbid copying it. Returns
 * the role that was made to install in it, if one was.
 */
async function makeTemplate(databaseUrl: string, name: string): Promise<string | undefined> {
  await onServer(databaseUrl, `CREATE DATABASE ${name} IS_TEMPLATE true`);
  const url = new URL(databaseUrl);
  url.pathname = `/${name}`;
  const installer = await installerFor(url.href);
  // For those who install more in a copy of it.
  if (installer !== undefined) process.env["HAWSER_TEST_INSTALLER_URL"] = installer.url;
  const { leftOut } = await migrate({ databaseUrl: installer?.url ?? url.href });
  for (const line of leftOut) console.error(`Left out of the template: ${line}`);
  // A superuser runs nothing of a role that it has not said it trusts, and some tests install as superuser afterwards.
  if (installer !== undefined) await onServer(databaseUrl, `GRANT hawser_owner TO ${installer.role}`);
  await onServer(databaseUrl, `ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
  return installer?.role;
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
  console.error(`The template is installed by ${installer.role}, which is no superuser`);
  return installer;
}

/** As the remedy says that `hawser init` names to a role that may not make them. */
async function makeRoles(superuserUrl: string): Promise<void> {
  const exist = await rowsOf(superuserUrl, "SELECT rolname AS name FROM pg_roles");
  const missing = [...grantedRoles, ...natsRoles].filter((role) => !exist.some(({ name }) => name === role));
  await onServer(superuserUrl, ...missing.map((role) => `CREATE ROLE ${role} NOLOGIN`));
}
