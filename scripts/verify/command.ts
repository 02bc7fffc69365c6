import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

export interface CommandResult {
  readonly status: number;
  /** stdout and stderr in the order of arrival. */
  readonly output: string;
  readonly stdout: string;
}

/** Root of the project, where every command runs. */
export const projectRoot = fileURLToPath(new URL("../..", import.meta.url));

const bufScript = createRequire(import.meta.url).resolve("@bufbuild/buf/bin/buf");

/** Runs the buf of the project's dependencies. */
export function buf(...args: readonly string[]): Promise<CommandResult> {
  return command(process.execPath, [bufScript, ...args]);
}

export function git(...args: readonly string[]): Promise<CommandResult> {
  return command("git", args);
}

/** Runs a program to its end; rejects only if it cannot be started. */
export function command(program: string, args: readonly string[]): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: projectRoot, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let stdout = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
    child.on("error", reject);
    child.on("close", (status, signal) => resolve({ status: status ?? 1, output: output + (signal ?? ""), stdout }));
  });
}
