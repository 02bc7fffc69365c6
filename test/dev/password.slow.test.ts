/**
 * A stack seen by other users of the machine: servers that ask for a password, and files that they cannot read.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { type DevStack, startDevStack } from "../../src/development/dev/index.js";
import { findPostgres } from "../../src/development/dev/postgres/binaries.js";
import { serverAccount } from "../../src/development/dev/server-process.js";
import { announced, dev } from "../cli/support/dev.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { temporaryDirectory } from "../support/temporary.js";
import { expectPasswordIsNeeded } from "./password.js";

async function start(directory: string): Promise<DevStack> {
  const stack = await startDevStack({ directory, nats: false });
  onTestFinished(() => stack.stop());
  return stack;
}

const passwordOf = (url: string) => decodeURIComponent(new URL(url).password);
const passwordFileOf = (directory: string) => join(directory, "postgres/hawser-password");
const modeOf = (path: string) => `0${(statSync(path).mode & 0o777).toString(8)}`;

/** The modes of a directory's entries, and of the files that decide who is let in. */
function modesIn(directory: string): Record<string, string> {
  const entries = [...readdirSync(directory), "postgres/pg_hba.conf", "postgres/hawser-password"];
  return Object.fromEntries(entries.map((name) => [name, modeOf(join(directory, name))]));
}

/** Result of {@link modesIn} while a stack runs. */
const privateModes = {
  "hawser-dev.json": "0600",
  nats: "0700",
  "nats-ports": "0700",
  "nats.log": "0600",
  postgres: "0700",
  "postgres.log": "0600",
  "postgres/hawser-password": "0600",
  "postgres/pg_hba.conf": "0600",
  "serve.log": "0600",
};

/** The command lines of all processes. */
function commandLines(): string {
  return execFileSync("ps", ["-axwwo", "args="], { encoding: "utf8", maxBuffer: 2 ** 26 });
}

/** A directory as Hawser left it when it made clusters that let everybody in. */
function directoryWithoutPassword(statements: readonly string[]): string {
  const directory = join(temporaryDirectory(), "data");
  const data = join(directory, "postgres");
  mkdirSync(data, { recursive: true });
  const account = serverAccount();
  chmodSync(directory, 0o711);
  chmodSync(data, 0o700);
  if (account !== undefined) chownSync(data, account.uid, account.gid);
  const { initdb, postgres } = findPostgres(account, temporaryDirectory());
  const options = {
    cwd: "/",
    env: { PATH: "/usr/bin:/bin", TZ: "UTC", LC_ALL: "C" },
    ...account,
    stdio: "pipe",
  } as const;
  execFileSync(initdb, ["-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "-D", data], options);
  const single = ["--single", "-D", data, "-c", "exit_on_error=on", "postgres"];
  execFileSync(postgres, single, { ...options, input: `${statements.join("\n")}\n` });
  writeFileSync(join(directory, "hawser-dev.json"), "{}", { mode: 0o644 });
  for (const log of ["postgres.log", "nats.log", "serve.log"]) writeFileSync(join(directory, log), "", { mode: 0o644 });
  mkdirSync(join(directory, "nats"), { mode: 0o755 });
  return directory;
}

describe("a stack", () => {
  it("lets nobody in without the password, which is in no command line and no log", async () => {
    const directory = join(temporaryDirectory(), "data");
    const program = dev(["--json", "--directory", directory]);
    const { databaseUrl } = await announced(program);
    await expectPasswordIsNeeded(databaseUrl);
    const password = passwordOf(databaseUrl);
    expect(password).toMatch(/^[\w-]{32}$/);
    expect(commandLines()).not.toContain(password);
    for (const log of ["postgres.log", "nats.log", "serve.log"]) {
      expect(readFileSync(join(directory, log), "utf8")).not.toContain(password);
    }
    program.child.kill("SIGTERM");
    expect(await program.ended).toMatchObject({ status: 0, stderr: expect.not.stringContaining(password) });
  });

  it("has a password of its own, and keeps that of a directory", async () => {
    const directory = join(temporaryDirectory(), "data");
    const first = await start(directory);
    await first.stop();
    const again = await start(directory);
    expect(again.databaseUrl.replace(/:\d+\//, "")).toBe(first.databaseUrl.replace(/:\d+\//, ""));
    const other = await start(join(temporaryDirectory(), "data"));
    expect(passwordOf(other.databaseUrl)).not.toBe(passwordOf(first.databaseUrl));
  });

  it("keeps its files to itself, also those that an earlier Hawser left open to others", async () => {
    const directories = [join(temporaryDirectory(), "data"), directoryWithoutPassword(["SELECT 1"])];
    for (const directory of directories) {
      const program = dev(["--json", "--directory", directory]);
      await announced(program);
      expect(modesIn(directory)).toEqual(privateModes);
      // The account of Postgres, if it is another one, passes through by its group.
      const account = serverAccount();
      expect(modeOf(directory)).toBe(account === undefined ? "0700" : "0710");
      if (account !== undefined) expect(statSync(directory).gid).toBe(account.gid);
      program.child.kill("SIGTERM");
      expect(await program.ended).toMatchObject({ status: 0 });
    }
  });
});

describe("a directory of an earlier Hawser, whose server let everybody in", () => {
  it("is given a password at the next start, and keeps its data", async () => {
    const directory = directoryWithoutPassword([
      "CREATE TABLE kept AS SELECT 7 AS n",
      // The settings of the user are not to bring the password into the log.
      "ALTER SYSTEM SET log_statement = 'all'",
      "ALTER SYSTEM SET log_min_duration_statement = 0",
    ]);
    const first = await start(directory);
    await expectPasswordIsNeeded(first.databaseUrl);
    expect(await rowsOf(first.databaseUrl, "SELECT n FROM kept")).toEqual([{ n: 7 }]);
    expect(readFileSync(passwordFileOf(directory), "utf8").trim()).toBe(passwordOf(first.databaseUrl));
    expect(readFileSync(join(directory, "postgres.log"), "utf8")).not.toContain(passwordOf(first.databaseUrl));
    await first.stop();
    const second = await start(directory);
    expect(passwordOf(second.databaseUrl)).toBe(passwordOf(first.databaseUrl));
    await expectPasswordIsNeeded(second.databaseUrl);
    expect(await rowsOf(second.databaseUrl, "SELECT n FROM kept")).toEqual([{ n: 7 }]);
  });

  it("is given one after a start that was killed before the file was written", async () => {
    const directory = join(temporaryDirectory(), "data");
    const first = await start(directory);
    await onServer(first.databaseUrl, "CREATE TABLE kept AS SELECT 7 AS n");
    await first.stop({ immediately: true });
    execFileSync("rm", [passwordFileOf(directory), join(directory, "postgres/pg_hba.conf")]);
    const second = await start(directory);
    await expectPasswordIsNeeded(second.databaseUrl);
    expect(await rowsOf(second.databaseUrl, "SELECT n FROM kept")).toEqual([{ n: 7 }]);
  });
});

it("a password that the user has changed is named with the remedy, and the remedy works", async () => {
  const directory = join(temporaryDirectory(), "data");
  const first = await start(directory);
  await onServer(first.databaseUrl, "ALTER ROLE postgres PASSWORD 'of/my@own'");
  await first.stop();
  await expect(startDevStack({ directory, nats: false })).rejects.toMatchObject({
    code: "dev_server_failed",
    message: expect.stringContaining(`write it into ${passwordFileOf(directory)}`),
  });
  writeFileSync(passwordFileOf(directory), "of/my@own\n");
  const second = await start(directory);
  expect(passwordOf(second.databaseUrl)).toBe("of/my@own");
  await expectPasswordIsNeeded(second.databaseUrl);
});
