/** Lines of the log that long-running commands write. serve-log.test.ts has slow readers. */
import { readFileSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { HawserError } from "../../src/foundation/errors/index.js";
import type { Logger } from "../../src/foundation/runtime/index.js";
import { LogOutput, type logLevels } from "../../src/operating/cli/log-output.js";
import { temporaryDirectory } from "../support/temporary.js";

/** Lines that a program logs to a file. */
async function logged(level: (typeof logLevels)[number], program: (logger: Logger) => void): Promise<object[]> {
  const file = join(temporaryDirectory(), "serve.log");
  const log = new LogOutput(level, file);
  program(log.logger);
  await log.close();
  log.logger.error({}, "after the end");
  expect(statSync(file).mode & 0o777).toBe(0o600);
  const text = readFileSync(file, "utf8");
  return text === ""
    ? []
    : (text
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line)) as object[]);
}

it("has the fields of each line, and those of its own between them", async () => {
  const [line] = await logged("info", (logger) => logger.info({ client: "subscriptions", position: 7n }, "reads"));
  expect(Object.keys(line!)).toEqual(["level", "time", "pid", "hostname", "name", "client", "position", "msg"]);
  expect(line).toMatchObject({ level: 30, pid: process.pid, hostname: hostname(), name: "hawser", position: 7 });
});

it.each([
  ["debug", [20, 30, 40, 50]],
  ["warn", [40, 50]],
  ["silent", []],
] as const)("from %s on has the levels %j", async (level, levels) => {
  const lines = await logged(level, (logger) => {
    for (const method of ["debug", "info", "warn", "error"] as const) logger[method]({}, method);
  });
  expect(lines.map((line) => (line as { level: number }).level)).toEqual(levels);
});

it("has an error with its code, its causes, and their stacks", async () => {
  const cause = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED", port: 5432 });
  const err = new HawserError("store_failed", "could not reach Postgres", { cause });
  const [line] = await logged("info", (logger) => logger.error({ err }, "is away"));
  expect(line).toMatchObject({
    err: {
      type: "HawserError",
      message: "could not reach Postgres: connect ECONNREFUSED",
      stack: expect.stringMatching(/^HawserError: could not.*\ncaused by: Error: connect/s),
      code: "store_failed",
    },
  });
  expect(line).not.toHaveProperty("err.cause");
});

it("has no control character of a terminal, and none that turns the direction of a text", async () => {
  const file = join(temporaryDirectory(), "serve.log");
  const log = new LogOutput("info", file);
  log.logger.info({ topic: "a\u009b31m\u202eb\u2028" }, "handles \u009d");
  await log.close();
  const text = readFileSync(file, "utf8");
  expect(text).toContain(String.raw`"topic":"a\u009b31m\u202eb\u2028","msg":"handles \u009d"`);
  expect(JSON.parse(text)).toMatchObject({ topic: "a\u009b31m\u202eb\u2028", msg: "handles \u009d" });
});

it("has details that are no JSON as text", async () => {
  const circle: Record<string, unknown> = {};
  circle["self"] = circle;
  const [line] = await logged("info", (logger) => logger.warn({ circle }, "odd"));
  expect(line).toMatchObject({ msg: "odd", details: expect.stringContaining("[Circular *1]") });
});

it("has all lines of a moment, in order", async () => {
  const lines = await logged("info", (logger) => {
    for (let number = 0; number < 5_000; number++) logger.info({ number }, "line");
  });
  expect(lines.map((line) => (line as { number: number }).number)).toEqual([...Array(5_000).keys()]);
});
