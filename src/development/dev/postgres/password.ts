/**
 * Password of a cluster's superuser: random, and stored in a file of the data directory, so that it stays with the
 * data.
 *
 * The password is needed although the server listens on 127.0.0.1 only: every account of the machine can reach a server at 127.0.0.1, and a superuser of Postgres can start programs as the
 * server's account (`COPY … FROM PROGRAM`).
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { HawserError } from "../../../foundation/errors/index.js";
import { writePrivate } from "../../../foundation/runtime/index.js";
import type { Account } from "../server-process.js";
import type { PostgresBinaries } from "./binaries.js";

/** Authentication rules of every cluster. The server listens on 127.0.0.1 only, so no other rules are needed. */
const hostRules = `# Written by Hawser. The password of the role postgres is in the file hawser-password beside this one.
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
`;

/** Password without characters that a URL, SQL or a password file would have to quote. */
export function randomPassword(): string {
  return randomBytes(24).toString("base64url");
}

export function passwordFileOf(dataDirectory: string): string {
  return join(dataDirectory, "hawser-password");
}

/** Password of the cluster; undefined if it has none yet. */
export function readPassword(dataDirectory: string): string | undefined {
  try {
    return readFileSync(passwordFileOf(dataDirectory), "utf8").trim() || undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Writes the cluster's authentication rules, which require the password, and the password file. The cluster already has
 * the password.
 */
export function storePassword(dataDirectory: string, password: string, account: Account | undefined): void {
  writePrivate(join(dataDirectory, "pg_hba.conf"), hostRules, account);
  // Last, because the file marks a cluster that requires the password.
  writePrivate(passwordFileOf(dataDirectory), `${password}\n`, account);
}

/**
 * Sets a password in a stopped cluster that has none: an earlier Hawser created it without authentication. The server
 * that runs the statement accepts no connections.
 *
 * @throws HawserError `dev_server_failed`
 */
export async function setPassword(
  dataDirectory: string,
  { postgres }: PostgresBinaries,
  env: Record<string, string>,
  account: Account | undefined,
  signal: AbortSignal | undefined,
): Promise<string> {
  const password = randomPassword();
  const settings = {
    password_encryption: "scram-sha-256",
    exit_on_error: "on",
    // The statement contains the password.
    log_statement: "none",
    log_min_duration_statement: "-1",
    log_min_error_statement: "panic",
  };
  const args = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  try {
    const running = promisify(execFile)(postgres, ["--single", "-D", dataDirectory, ...args, "postgres"], {
      cwd: "/",
      env,
      ...account,
      ...(signal && { signal }),
    });
    // If the server ends without reading the statement, its exit reports why.
    running.child.stdin?.on("error", () => undefined).end(`ALTER ROLE postgres PASSWORD '${password}'\n`);
    await running;
  } catch (cause) {
    signal?.throwIfAborted();
    const reason = (cause as { stderr?: string }).stderr?.trim() || (cause as Error).message;
    throw new HawserError(
      "dev_server_failed",
      `The role postgres of the cluster in ${dataDirectory} could not be given a password, which its servers require: ` +
        `${reason}. Fix the cause, or name another directory.`,
      { cause },
    );
  }
  storePassword(dataDirectory, password, account);
  return password;
}
