/**
 * Once for a whole run: real servers, and a migrated database for the test files to copy.
 *
 * Workers find them in the environment (HAWSER_TEST_DATABASE_URL, HAWSER_TEST_NATS_URL, HAWSER_TEST_TEMPLATE), as the
 * processes they start do, and by vitest's `inject`.
 */
import { randomBytes } from "node:crypto";
import type { TestProject } from "vitest/node";
import { startDevStack } from "../src/dev/index.js";
import { migrate } from "../src/store/index.js";
import { onServer } from "./support/on-server.js";

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
  try {
    await makeTemplate(databaseUrl, template);
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
    await stack.stop();
  };
}

/** Makes the migrated database that `testDatabase` copies. Nobody may connect to it: that would forbid copying it. */
async function makeTemplate(databaseUrl: string, name: string): Promise<void> {
  await onServer(databaseUrl, `CREATE DATABASE ${name} IS_TEMPLATE true`);
  const url = new URL(databaseUrl);
  url.pathname = `/${name}`;
  await migrate({ databaseUrl: url.href });
  await onServer(databaseUrl, `ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
}
