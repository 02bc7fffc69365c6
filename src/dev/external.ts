/**
 * Servers that somebody else runs: HAWSER_DATABASE_URL and HAWSER_NATS_URL take the place of the embedded ones.
 */
import type pg from "pg";
import { DevError } from "../errors/index.js";
import { DatabaseAddress, openSession } from "../postgres/index.js";
import { natsAnswers } from "./nats/server.js";

const CONNECT_TIMEOUT_MS = 10_000;

/** The Postgres of HAWSER_DATABASE_URL and its version; undefined if the variable is not set. */
export async function externalPostgres(): Promise<{ url: string; version: string } | undefined> {
  const url = process.env["HAWSER_DATABASE_URL"];
  if (!url) return undefined;
  let client: pg.Client | undefined;
  try {
    ({ client } = await openSession(DatabaseAddress.of(url), { connectTimeoutMs: CONNECT_TIMEOUT_MS }));
    const { rows } = await client.query<{ server_version: string }>("SHOW server_version");
    return { url, version: rows[0]!.server_version };
  } catch (cause) {
    throw unreachable("HAWSER_DATABASE_URL", url, "Postgres", cause);
  } finally {
    await client?.end().catch(() => undefined);
  }
}

/** The nats-server of HAWSER_NATS_URL; undefined if the variable is not set. */
export async function externalNats(): Promise<{ url: string } | undefined> {
  const url = process.env["HAWSER_NATS_URL"];
  if (!url) return undefined;
  if (!URL.canParse(url) || !(await natsAnswers(url))) throw unreachable("HAWSER_NATS_URL", url, "nats-server");
  return { url };
}

function unreachable(variable: string, url: string, server: string, cause?: unknown): DevError {
  return new DevError(
    "dev_server_failed",
    `No ${server} can be used at ${withoutPassword(url)}, the value of ${variable}. ` +
      "Correct it, or unset it to use an embedded server.",
    { cause },
  );
}

/** The URL with its password left out, for messages. */
function withoutPassword(url: string): string {
  return url.replace(/^([a-z]+:\/\/[^/@]*?):[^/]*@/i, "$1:***@");
}
