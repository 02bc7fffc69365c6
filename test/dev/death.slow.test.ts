/**
 * Remains of a stack whose starting process has died.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, copyFileSync, existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { findNatsServer } from "../../src/development/dev/nats/binary.js";
import type { Account } from "../../src/development/dev/server-process.js";
import { sweepLeftovers } from "../../src/development/dev/sweep.js";
import { answers } from "../support/answers.js";
import { eventually } from "../support/eventually.js";
import { giveTo, ordinaryUser } from "../support/other-user.js";
import { type Program, type ProgramOptions, startProgram } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";

/** Output of `run-stack.ts`. */
interface Started {
  readonly directory: string;
  readonly databaseUrl: string;
  readonly natsUrl: string;
}

afterEach(() => {
  vi.unstubAllEnvs();
});

async function startStackProcess(options: ProgramOptions = {}): Promise<{ program: Program; stack: Started }> {
  const program = startProgram("test/dev/programs/run-stack.ts", [], options);
  onTestFinished(() => void program.child.kill("SIGKILL"));
  return { program, stack: JSON.parse(await program.firstLine) as Started };
}

async function expectNothingLeft(stack: Started): Promise<void> {
  await eventually("Postgres has stopped", async () => !(await answers(stack.databaseUrl)));
  await eventually("nats-server has stopped", async () => !(await answers(stack.natsUrl)));
  await eventually("the directory is gone", () => !existsSync(stack.directory));
}

async function startUserStack(user: Account, home: string): Promise<{ program: Program; stack: Started }> {
  // Its own home has an empty cache; fetching another nats-server would only take time.
  const programs = temporaryDirectory();
  const copy = join(programs, "nats-server");
  copyFileSync((await findNatsServer()).program, copy);
  chmodSync(copy, 0o755);
  return startStackProcess({
    ...user,
    cwd: "/",
    env: {
      HOME: home,
      TMPDIR: home,
      PATH: `${programs}:${process.env["PATH"]}`,
      XDG_CACHE_HOME: undefined,
      HAWSER_CACHE_DIR: undefined,
    },
  });
}

/** The watchdog of a process: its child that runs `watchdog.ts`. */
function watchdogOf(parent: number): number {
  const pid = readdirSync("/proc").find((entry) => {
    if (!/^\d+$/.test(entry)) return false;
    try {
      const isChild = readFileSync(`/proc/${entry}/stat`, "utf8").split(") ")[1]!.split(" ")[1] === String(parent);
      return isChild && readFileSync(`/proc/${entry}/cmdline`, "utf8").includes("src/development/dev/watchdog");
    } catch {
      return false;
    }
  });
  return Number(pid);
}

describe("when the process that started a stack", () => {
  it.each(["SIGKILL", "SIGTERM"] as const)("ends by %s, its servers stop and its directory goes", async (signal) => {
    const { program, stack } = await startStackProcess();
    expect(await answers(stack.databaseUrl)).toBe(true);
    program.child.kill(signal);
    expect((await program.ended).signal).toBe(signal);
    await expectNothingLeft(stack);
  });

  it.runIf(process.platform === "linux")("is killed with its watchdog, the next start clears up", async () => {
    const directory = temporaryDirectory();
    const { program, stack } = await startStackProcess({ env: { TMPDIR: directory } });
    process.kill(watchdogOf(program.pid), "SIGKILL");
    program.child.kill("SIGKILL");
    await program.ended;
    expect(existsSync(stack.directory)).toBe(true);
    vi.stubEnv("TMPDIR", directory);
    expect(await sweepLeftovers()).toContain(stack.directory);
    await expectNothingLeft(stack);
  });

  it("has died before its watchdog watches, that one clears up at once", async () => {
    const directory = temporaryDirectory();
    // Without a channel, as it is after the death of the process at its other end.
    const watchdog = startProgram("src/development/dev/watchdog.ts", [directory, "temporary"]);
    expect(await watchdog.ended).toMatchObject({ status: 0, stderr: "" });
    expect(existsSync(directory)).toBe(false);
  });
});

describe.runIf(ordinaryUser() !== undefined)("as an ordinary user", () => {
  it("is cleared up after, though another user runs a program with the arguments of a server", async () => {
    const user = ordinaryUser()!;
    const home = giveTo(user, temporaryDirectory());
    const { program, stack } = await startUserStack(user, home);
    // Of root, which the watchdog may not end.
    const other = spawn(process.execPath, [
      "-e",
      "setInterval(() => undefined, 1000)",
      "--",
      "-D",
      join(stack.directory, "postgres"),
      "",
    ]);
    onTestFinished(() => void other.kill("SIGKILL"));
    await once(other, "spawn");
    program.child.kill("SIGKILL");
    await expectNothingLeft(stack);
    expect(other.exitCode).toBeNull();
  });

  it("starts, and is cleared up after when it is killed", async () => {
    const user = ordinaryUser()!;
    const home = giveTo(user, temporaryDirectory());
    const { program, stack } = await startUserStack(user, home);
    expect(stack.directory.startsWith(home)).toBe(true);
    expect(await answers(stack.databaseUrl)).toBe(true);
    program.child.kill("SIGKILL");
    await expectNothingLeft(stack);
  });
});
