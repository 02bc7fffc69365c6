/**
 * What tests of `serve` share: a look at which NATS server the SQL functions reach, and definitions of servers.
 */
import type { TestGateway } from "../support/gateway.js";
import { onServer } from "../support/on-server.js";

/** The server that the functions reach, or the SQLSTATE that they fail with, each time in the same database session. */
export async function reached(
  gateway: TestGateway,
): Promise<{ readonly port: number; readonly clientId: string } | string> {
  try {
    const { rows } = await gateway.client.query("SELECT port, client_id FROM nats_get_server_info()");
    return { port: rows[0].port, clientId: rows[0].client_id };
  } catch (error) {
    return (error as { readonly code: string }).code;
  }
}

/** The connection of the gateway, by the number that the NATS server gave it. */
export async function connectionOf(gateway: TestGateway): Promise<string> {
  const found = await reached(gateway);
  if (typeof found === "string") throw new Error(`the functions fail with ${found}`);
  return found.clientId;
}

/** Options as CREATE SERVER takes them. */
function optionList(options: Readonly<Record<string, string>>): string {
  return Object.entries(options)
    .map(([name, value]) => `${name} '${value}'`)
    .join(", ");
}

/** Whereto: as options of a server. */
export function placeOf(natsUrl: string): { readonly host: string; readonly port: string } {
  const { hostname, port } = new URL(natsUrl);
  return { host: hostname, port };
}

/** Defines a server by SQL, as a user does. */
export function createServer(natsUrl: string, options: Readonly<Record<string, string>> = {}): string {
  return `CREATE SERVER nats_main FOREIGN DATA WRAPPER pgnats_fdw OPTIONS (${optionList({ ...placeOf(natsUrl), ...options })})`;
}

/** A login that is in hawser_bridge and nothing else, and its URL. Dropped with `drop`. */
export async function bridgeLogin(databaseUrl: string): Promise<{ name: string; url: string; drop(): Promise<void> }> {
  const url = new URL(databaseUrl);
  const name = `bridge_of_${url.pathname.slice(1)}`;
  await onServer(databaseUrl, `CREATE ROLE ${name} LOGIN PASSWORD 'bridge' IN ROLE hawser_bridge`);
  url.username = name;
  url.password = "bridge";
  return { name, url: url.href, drop: () => onServer(databaseUrl, `DROP OWNED BY ${name}`, `DROP ROLE ${name}`) };
}
