/**
 * What Postgres keeps in place of the password of the login that calls functions for NATS.
 */
import { createHash, createHmac, pbkdf2Sync } from "node:crypto";
import { expect } from "vitest";
import { rowsOf } from "../../support/on-server.js";

/** Expects that the login has a verifier of its password (RFC 5803) in place of the password. */
export async function expectVerifier(databaseUrl: string): Promise<void> {
  const [row] = await rowsOf(
    databaseUrl,
    "SELECT l.password, a.rolpassword AS verifier FROM hawser_bridge_data.executor_login AS l JOIN pg_authid AS a ON a.rolname = l.user_name",
  );
  const { password, verifier } = row as { password: string; verifier: string };
  const [, iterations, salt, storedKey, serverKey] = /^SCRAM-SHA-256\$(\d+):(.+)\$(.+):(.+)$/.exec(verifier)!;
  const salted = pbkdf2Sync(password, Buffer.from(salt!, "base64"), Number(iterations), 32, "sha256");
  const keyed = (words: string) => createHmac("sha256", salted).update(words).digest();
  expect(storedKey).toBe(createHash("sha256").update(keyed("Client Key")).digest("base64"));
  expect(serverKey).toBe(keyed("Server Key").toString("base64"));
}
