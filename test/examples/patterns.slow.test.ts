/**
 * The example patterns, each participant in a process of its own: they end by themselves, and everybody has received
 * what the pattern says.
 */
import { describe, expect, it } from "vitest";
import { patterns } from "../../examples/patterns.js";
import { testDatabase } from "../support/database.js";
import { rowsOf } from "../support/on-server.js";
import { startProgram } from "../support/program.js";

const program = "examples/example.ts";

/** Runs a pattern and resolves with what its participants printed, by name. */
async function perform(pattern: string, databaseUrl: string | undefined, ...more: string[]) {
  const args = [pattern, "--interval-ms", "20", ...more];
  const env = { HAWSER_DATABASE_URL: databaseUrl, NO_COLOR: "1", FORCE_COLOR: undefined };
  const { status, stdout, stderr } = await startProgram(program, args, { env }).ended;
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  const lines: Record<string, string[]> = {};
  for (const [, name, text] of stdout.matchAll(/^(\S+) +│ (.*)$/gm)) (lines[name!] ??= []).push(text!);
  return lines;
}

/** The last lines of the clients. */
function received(lines: Record<string, string[]>): (string | undefined)[] {
  return ["client-1", "client-2", "client-3"].map((name) => lines[name]?.at(-1));
}

const timed = Array.from({ length: 10 }, (_, n) =>
  expect.stringMatching(new RegExp(`^cycle ${n + 1}: sent and confirmed in [\\d.]+ ms$`)),
);

describe("npm run example --", { timeout: 300_000, concurrent: true }, () => {
  it("one-to-one: the other one receives 1,000 in each of 10 cycles", async () => {
    await using database = await testDatabase();
    const lines = await perform("one-to-one", database.url);
    expect(lines["client-1"]).toEqual(timed);
    expect(lines["client-2"]).toEqual([...timed.map((_, n) => `cycle ${n + 1}: received 1000`), "received 10000"]);
  });

  it("one-to-one-for-many: three of one topic receive 34, 33 and 33, in turn", async () => {
    await using database = await testDatabase();
    const lines = await perform("one-to-one-for-many", database.url);
    expect(lines["server-1"]).toEqual(timed);
    expect(received(lines).sort()).toEqual(["received 33", "received 33", "received 34"]);
  });

  it("many-to-many: three of one topic receive all 100 of both servers each", async () => {
    await using database = await testDatabase();
    const lines = await perform("many-to-many", database.url);
    expect(lines["server-1"]).toEqual(timed);
    expect(lines["server-2"]).toEqual(timed);
    expect(received(lines)).toEqual(Array(3).fill("received 200: 100 from server-1, 100 from server-2"));
  });

  it("producer-consumer: each receives 100 of its own, and 34, 33 and 33 of the shared ones", async () => {
    await using database = await testDatabase();
    const lines = await perform("producer-consumer", database.url);
    expect(lines["server-1"]).toEqual(timed);
    expect(received(lines).sort()).toEqual(
      [33, 33, 34].map((shared) => `received 100 of its own, ${shared} of the shared ones`),
    );
  });

  it("one-to-many: three of one topic receive all 100 each, also where earlier runs and others have left things", async () => {
    await using database = await testDatabase();
    await using never = await testDatabase();
    const first = await perform("one-to-many", database.url);
    expect(first["server-1"]).toEqual(timed);
    expect(received(first)).toEqual(Array(3).fill("received 100"));
    const row =
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name) VALUES ('clients', '127.0.0.1:1', 'gone-1')";
    await rowsOf(database.url, row);
    // What the option names goes before the variable.
    const lines = await perform("one-to-many", never.url, "--database-url", database.url);
    expect(received(lines)).toEqual(Array(3).fill("received 100"));
    expect(await rowsOf(database.url, "SELECT 1 FROM hawser_peer_data.listeners")).toEqual([]);
    expect(await rowsOf(never.url, "SELECT 1 FROM hawser_peer_data.peers")).toEqual([]);
  });

  it("needs no database of anybody's: without one it starts its own", async () => {
    expect(received(await perform("one-to-many", undefined))).toEqual(Array(3).fill("received 100"));
  });

  it("stops everybody when it is told to in the middle", async () => {
    await using database = await testDatabase();
    const env = { HAWSER_DATABASE_URL: database.url, NO_COLOR: "1", FORCE_COLOR: undefined };
    const example = startProgram(program, ["one-to-one", "--interval-ms", "3600000"], { env });
    await new Promise<void>((resolve) => {
      let seen = "";
      example.child.stdout!.on("data", (chunk: Buffer) => {
        seen += chunk.toString();
        if (seen.includes("client-1 │ cycle 1")) resolve();
      });
      void example.ended.then(() => resolve());
    });
    example.child.kill("SIGTERM");
    // Its output ends when the last process that holds it has ended.
    const { status, stdout, stderr } = await example.ended;
    expect({ status, stderr }).toEqual({ status: 143, stderr: expect.stringContaining("ended by SIGTERM") });
    expect(stdout).not.toContain("cycle 2");
  });

  it("says what is wrong, and which patterns there are", async () => {
    const { status, stdout, stderr } = await startProgram(program, ["one-to-none"]).ended;
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
    expect(stderr).toContain('There is no pattern "one-to-none".');
    for (const pattern of Object.keys(patterns)) expect(stderr).toContain(pattern);
  });
});
