import pg from "pg";
import { expect } from "vitest";
import { rowsOf } from "../support/on-server.js";

/** AuthenticationSASL: what a server answers that asks for SCRAM. */
const sasl = 10;

/**
 * The server lets in nobody but who knows the password: no role, neither the superuser, for no database, nor for replication,
 * and by no socket.
 *
 * @param url connects as superuser
 */
export async function expectPasswordIsNeeded(url: string): Promise<void> {
  const rules = await rowsOf(url, "SELECT DISTINCT coalesce(auth_method, error) AS method FROM pg_hba_file_rules");
  expect(rules).toEqual([{ method: "scram-sha-256" }]);
  expect(await rowsOf(url, "SHOW unix_socket_directories")).toEqual([{ unix_socket_directories: "" }]);
  for (const options of [{}, { replication: "true" }, { database: "template1" }]) {
    for (const password of [undefined, "", "wrong", "postgres"]) {
      expect(await attempt(url, options, password)).toEqual({ asked: sasl, isIn: false });
    }
  }
}

/** Which authentication the server asks for (0: none), and whether it lets in. */
async function attempt(
  url: string,
  options: { readonly database?: string; readonly replication?: string },
  password: string | undefined,
): Promise<{ asked: number | undefined; isIn: boolean }> {
  const { hostname, port } = new URL(url);
  const client = new pg.Client({
    host: hostname,
    port: Number(port),
    user: "postgres",
    database: "postgres",
    ...options,
    // Not from the environment or a file.
    password: () => password as string,
  });
  client.on("error", () => undefined);
  let asked: number | undefined;
  client.connection.on("authenticationOk", () => (asked ??= 0));
  client.connection.on("authenticationSASL", () => (asked ??= sasl));
  try {
    await client.connect();
    return { asked, isIn: true };
  } catch {
    return { asked, isIn: false };
  } finally {
    await client.end().catch(() => undefined);
  }
}
