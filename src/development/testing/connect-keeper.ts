/**
 * Connects a process to the keeper of its run: the process that owns the servers and stacks of all test processes of
 * the run. Starts the keeper if there is none.
 */
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { HawserError } from "../../foundation/errors/index.js";
import { type ProcessIdentity, startDetached, tailOf } from "../dev/index.js";
import { Caller } from "./calls.js";
import { filesOf, ownerOfRun, type RunFiles } from "./run.js";

/**
 * Time after which a keeper that refuses connections counts as killed: it listens as soon as it has bound its socket.
 */
const refusalMs = 1_000;
/** Time after which the user is informed: the very first start may have to fetch nats-server. */
const informAfterMs = 5_000;

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
  const caller = new Caller(await connectOrStart(files, owner), () => endOfLog(files));
  const timer = setTimeout(() => {
    process.stderr.write(
      `hawser/testing: waiting for Postgres and nats-server. Their log, until the tests have ended: ${files.log}\n`,
    );
  }, informAfterMs);
  try {
    await caller.call("ready");
    return caller;
  } finally {
    clearTimeout(timer);
  }
}

async function connectOrStart(files: RunFiles, owner: ProcessIdentity): Promise<Socket> {
  for (let wasRefused = false; ; ) {
    try {
      const socket = connect(files.socket);
      await once(socket, "connect");
      return socket;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT" && code !== "ECONNREFUSED") throw error;
      if (code === "ENOENT" && (await startKeeper(files, owner))) continue;
      if (code === "ECONNREFUSED" && !wasRefused) {
        wasRefused = true;
        await delay(refusalMs);
        continue;
      }
    }
    throw new HawserError(
      "dev_server_failed",
      `The process that keeps the servers of this run does not answer at ${files.socket}. ${endOfLog(files)}`,
    );
  }
}

/** Starts a keeper that outlives this process. @returns false if there is no keeper then */
async function startKeeper(files: RunFiles, owner: ProcessIdentity): Promise<boolean> {
  const log = openSync(files.log, "a", 0o600);
  const { NODE_OPTIONS: _, NODE_TEST_CONTEXT: __, NODE_V8_COVERAGE: ___, ...env } = process.env;
  try {
    const args = [files.socket, JSON.stringify(owner)];
    const keeper = await startDetached(new URL("../testing/keeper.js", import.meta.url), args, env, log);
    // A keeper that ends with status 0 was too late: there is another one.
    return keeper.signalCode === null && !keeper.exitCode;
  } catch {
    return false;
  } finally {
    closeSync(log);
  }
}

function endOfLog({ log }: RunFiles): string {
  const lines = tailOf(log);
  return lines === "" ? "" : `The end of its log:\n${lines}`;
}
