/**
 * Text of a failed command for its user: the remedy, and the database that the error is about.
 */
import { stripVTControlCharacters } from "node:util";
import { describe, expect, it } from "vitest";
import { errorTable, HawserError } from "../../src/foundation/errors/index.js";
import { describeError } from "../../src/operating/cli/output.js";
import { namingDefaults } from "../../src/operating/cli/run.js";
import { hawser } from "./support/hawser.js";

const described = (error: unknown) => stripVTControlCharacters(describeError(error)).split("\n");

describe("the remedy of the error table", () => {
  it("is said where the message has none", () => {
    expect(described(new HawserError("no_listener", 'nobody serves the topic "orders"'))).toEqual([
      'hawser: nobody serves the topic "orders" [no_listener]',
      `  remedy: ${errorTable.no_listener.remedy}`,
    ]);
  });

  it.each([
    ["after a semicolon", "name_in_use", '"a" is running; stop it first'],
    ["in a further sentence", "invalid_argument", "There is no command. Name one."],
    ["as a statement", "name_in_use", 'the role may not do it: GRANT hawser_peer TO "a"'],
  ] as const)("is left out where the message has one of its own, %s", (_, code, message) => {
    expect(described(new HawserError(code, message))).toEqual([`hawser: ${message} [${code}]`]);
  });

  it("is said where the error has a remedy of its own, whatever the message says", () => {
    const error = new HawserError("store_failed", "migration 1 was changed. Nothing was done", { remedy: "Drop it" });
    expect(described(error)).toEqual([
      "hawser: migration 1 was changed. Nothing was done [store_failed]",
      "  remedy: Drop it",
    ]);
  });

  it.each(["store_failed", "startup_failed", "connection_lost", "not_running"] as const)(
    "is left out where it only sends the reader elsewhere, or is for programs: %s",
    (code) => {
      expect(described(new HawserError(code, "it failed"))).toEqual([`hawser: it failed [${code}]`]);
    },
  );
});

describe("a database that nobody named", () => {
  const words = "no --database-url and no HAWSER_DATABASE_URL were given: libpq's defaults were used";
  // Nobody listens on port 1.
  const nowhere = { HAWSER_DATABASE_URL: undefined, PGHOST: "127.0.0.1", PGPORT: "1" };
  const topics = async (args: readonly string[], env: Record<string, string | undefined>) =>
    await hawser(["topics", ...args], { env: { ...nowhere, ...env } });

  it("is said to be libpq's when it cannot be reached", async () => {
    const { status, stderr } = await topics([], {});
    expect(status).toBe(errorTable.store_failed.exitStatus);
    expect(stderr).toContain(`ECONNREFUSED 127.0.0.1:1; ${words} [store_failed]\n`);
    expect(stderr).not.toContain("because:");
  });

  it.each([
    ["an option", ["--database-url", "postgres://127.0.0.1:1/a"], {}],
    ["an option with =", ["--database-url=postgres://127.0.0.1:1/a"], {}],
    ["the variable", [], { HAWSER_DATABASE_URL: "postgres://127.0.0.1:1/a" }],
  ] as const)("is not spoken of when it was named by %s", async (_, args, env) => {
    const { status, stderr } = await topics(args, env);
    expect(status).toBe(errorTable.store_failed.exitStatus);
    expect(stderr).toMatch(/ECONNREFUSED 127\.0\.0\.1:1 \[store_failed\]\n/);
  });

  it("keeps code and outcome of the error, and leaves alone what is not about the database", () => {
    const unknown = new HawserError("store_failed", "could not store", { outcome: "unknown" });
    const saved = process.env["HAWSER_DATABASE_URL"];
    delete process.env["HAWSER_DATABASE_URL"];
    try {
      const named = namingDefaults(unknown, {});
      expect(named instanceof HawserError && named).toMatchObject({
        code: "store_failed",
        outcome: "unknown",
        cause: unknown,
      });
      const other = new HawserError("no_listener", "nobody");
      expect(namingDefaults(other, {})).toBe(other);
      expect(namingDefaults(unknown, { "database-url": "postgres://db/app" })).toBe(unknown);
    } finally {
      if (saved !== undefined) process.env["HAWSER_DATABASE_URL"] = saved;
    }
  });
});
