/**
 * Log of `hawser serve` with fast and slow readers, and the end of the process after a defect.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { errorTable } from "../../generated/ts/errors/errors.js";
import { maxLogBufferBytes } from "../../src/operating/cli/log-output.js";
import { nodeCommand, nodeProgram } from "../support/built-programs.js";
import { type TestDatabase, testDatabase, testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { type Program, startCommand } from "../support/program.js";
import { slowIt } from "../support/slow-it.js";
import { jsonLines } from "./support/hawser.js";

/** In a process of its own, in which signals cause defects. Resolves when it answers. */
async function startServer(databaseUrl: string, level: string): Promise<Program> {
  const preloaded = pathToFileURL(nodeProgram("test/cli/programs/defect-on-signal.ts").file).href;
  const { execArgv, file } = nodeProgram("src/operating/cli/main.ts");
  const command = [file, "serve", "--log-level", level];
  const program = startCommand(
    process.execPath,
    [...execArgv, "--import", preloaded, ...command, "--listen", "127.0.0.1:0"],
    { env: { HAWSER_DATABASE_URL: databaseUrl }, stdin: "ignore" },
  );
  onTestFinished(async () => {
    program.child.kill("SIGKILL");
    await program.ended;
  });
  await program.firstLine;
  return program;
}

describe("hawser serve", () => {
  let database: TestDatabase;

  beforeAll(async () => {
    database = await testDatabase();
    const { hostname: host, port } = new URL(testNatsUrl());
    const server = JSON.stringify({ host, port });
    await onServer(database.url, `SELECT hawser.set_nats_server('${server}')`);
  });
  afterAll(() => database.drop());

  it("has written its last lines when it has ended in order", async () => {
    const program = await startServer(database.url, "info");
    program.child.kill("SIGTERM");
    const { status, stdout, stderr } = await program.ended;
    expect(status).toBe(0);
    // Without a terminal both outputs are JSON.
    expect(jsonLines(stdout)).toEqual([{ gatewayUrl: expect.stringContaining("postgres://") }]);
    const told = jsonLines(stderr).map(({ msg }) => msg);
    expect(told).toContain("stopping; waiting for pending calls");
    expect(told.at(-1)).toBe("has stopped");
    expect(told.filter((line) => /Postgres is a|the role of Postgres/.test(line as string))).toHaveLength(1);
  });

  slowIt.each([
    ["a rejection that nobody handled", "SIGUSR2", "unhandledRejection"],
    ["an exception that nobody caught", "SIGPIPE", "uncaughtException"],
  ] as const)("logs %s as a defect, stops, and ends with the status of internal", async (_, signal, origin) => {
    const program = await startServer(database.url, "info");
    program.child.kill(signal);
    const { status, stderr } = await program.ended;
    expect(status).toBe(errorTable.internal.exitStatus);
    const lines = stderr.split("\n").filter((line) => line !== "");
    expect(lines).toContainEqual(expect.stringContaining("uncaught error, a defect of Hawser"));
    const logged = jsonLines(lines.filter((line) => line.startsWith("{")).join("\n"));
    expect(logged).toContainEqual(
      expect.objectContaining({ level: 50, origin, err: expect.objectContaining({ message: "a defect for a test" }) }),
    );
    // The end in order is given two seconds, which a busy machine may need for less.
    if (!logged.some(({ msg }) => msg === "has stopped")) return;
    await eventually("its address is gone", async () => {
      return (await rowsOf(database.url, "SELECT FROM hawser_bridge_data.gateways")).length === 0;
    });
  });
});

describe("the log", () => {
  /** The program of a flood, whose standard error nobody reads until the test does. */
  async function flood() {
    const [node, ...program] = nodeCommand("test/cli/programs/log-flood.ts");
    const child = spawn(node!, program);
    const closed = once(child, "close") as Promise<[number | null]>;
    onTestFinished(async () => {
      child.stderr.resume();
      child.kill("SIGKILL");
      await closed;
    });
    const [worked] = await once(child.stdout, "data");
    expect(`${worked}`).toBe("worked\n");
    return { child, exited: once(child, "exit") as Promise<[number | null]> };
  }

  slowIt("does not hold up the work where nobody reads it, nor the end", async () => {
    const { child, exited } = await flood();
    child.stdin.write("end");
    expect(await exited).toEqual([0, null]);
  });

  it("tells whoever reads late how many lines are lost", async () => {
    const { child } = await flood();
    const lines: Record<string, unknown>[] = [];
    const reading = (async () => {
      for await (const line of createInterface(child.stderr)) {
        const parsed = JSON.parse(line) as Record<string, unknown>;
        lines.push(parsed);
        if ("dropped" in parsed) child.stdin.write("end");
      }
    })();
    await reading;
    const written = lines.filter(({ msg }) => msg === "flood").length;
    const dropped = lines.find((line) => "dropped" in line)!["dropped"] as number;
    expect(written + dropped).toBe(100_000);
    expect(written * 60).toBeLessThan(2 * maxLogBufferBytes);
    expect(lines.at(-1)).toMatchObject({ msg: "last" });
  });
});
