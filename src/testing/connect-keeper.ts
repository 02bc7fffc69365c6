/**
 * Connects a process to the keeper of its run: the process that owns the servers and stacks of all test processes of
 * the run. Starts the keeper if there is none.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { nodeArgs, type ProcessIdentity } from "../dev/index.js";
import { HawserError } from "../errors/index.js";
import { Caller } from "./calls.js";
import { filesOf, ownerOfRun, type RunFiles } from "./run.js";

/** Time in which a keeper must bind its socket, which it does first. */
const bindTimeoutMs = 60_000;
/**
 * Time after which a keeper that refuses connections counts as killed: it listens as soon as it has bound its socket.
 */
const refusalMs = 1_000;
/** Time after which the user is informed: the very first start may have to fetch nats-server. */
const informAfterMs = 5_000;

/** Exit status of a keeper that was killed or could not be started. */
const failed = 1;

let connecting: Promise<Caller> | undefined;

/**
 * Connects to the keeper of this process's run, and resolves when its servers answer.
 *
 * @throws HawserError `dev_server_failed`, `not_supported`, and the errors of an installation
 */
export async function keeperOfRun(): Promise<Caller> {
  const known = await connecting?.catch(() => undefined);
  if (known === undefined || known.hasEnded) connecting = reach();
  return await connecting!;
}

async function reach(): Promise<Caller> {
  if (process.platform === "win32") {
    throw new HawserError("not_supported", "hawser/testing runs on Linux and macOS. On Windows run the tests in WSL.");
  }
  const owner = ownerOfRun();
  const files = filesOf(owner);
  const caller = new Caller(await connectOrStart(files, owner), () => tailOf(files));
  const timer = setTimeout(() => {
    process.stderr.write(`hawser/testing: waiting for Postgres and nats-server; see their log: ${files.log}\n`);
  }, informAfterMs);
  try {
    await caller.call("ready");
    return caller;
  } finally {
    clearTimeout(timer);
  }
}

async function connectOrStart(files: RunFiles, owner: ProcessIdentity): Promise<Socket> {
  const deadline = performance.now() + bindTimeoutMs;
  let started: Promise<number> | undefined;
  let refusedSince: number | undefined;
  while (performance.now() < deadline) {
    try {
      return await connectTo(files.socket);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT" && code !== "ECONNREFUSED") throw error;
      if (code === "ENOENT") {
        refusedSince = undefined;
        started ??= startKeeper(files, owner);
      } else refusedSince ??= performance.now();
      if (refusedSince !== undefined && performance.now() - refusedSince > refusalMs) break;
    }
    // Another keeper was faster (status 0), or this one could not start.
    const status = await Promise.race([delay(20, undefined), started]);
    if (status !== undefined && status !== 0) break;
    if (status === 0) started = undefined;
  }
  throw new HawserError(
    "dev_server_failed",
    `The process that keeps the servers of this run does not answer at ${files.socket}. ${tailOf(files)}`,
  );
}

async function connectTo(path: string): Promise<Socket> {
  const socket = connect(path);
  await once(socket, "connect");
  return socket;
}

/** Starts a keeper that outlives this process. Resolves with its exit status when it has ended. */
async function startKeeper(files: RunFiles, owner: ProcessIdentity): Promise<number> {
  const log = openSync(files.log, "a", 0o600);
  const { NODE_OPTIONS: _, NODE_TEST_CONTEXT: __, NODE_V8_COVERAGE: ___, ...env } = process.env;
  try {
    const args = [...nodeArgs(new URL("./keeper.js", import.meta.url)), files.socket, JSON.stringify(owner)];
    const child = spawn(process.execPath, args, { cwd: "/", detached: true, env, stdio: ["ignore", log, log] });
    child.unref();
    const [status] = (await once(child, "exit")) as [number | null];
    return status ?? failed;
  } catch {
    return failed;
  } finally {
    closeSync(log);
  }
}

function tailOf({ log }: RunFiles): string {
  try {
    const lines = readFileSync(log, "utf8").trimEnd().split("\n").slice(-12).join("\n");
    return lines === "" ? "" : `The end of its log:\n${lines}`;
  } catch {
    return "";
  }
}
