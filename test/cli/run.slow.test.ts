import { existsSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { nodeCommand } from "../support/built-programs.js";
import { testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";
import { startCommand } from "../support/program.js";
import { hawser, hawserProcess, jsonLines } from "./support/hawser.js";
import { startShell } from "./support/pipeline.js";

describe("hawser", () => {
  it("ends by itself when a command that looks or changes a little is done", async () => {
    await using database = await testDatabase({ nats: false });
    const { url: databaseUrl } = database;
    const reassign = ["peers", "reassign", "nobody-1", "nobody-2"];
    const once = [
      ["topics"],
      ["peers"],
      ["pending"],
      ["secret", "rotate"],
      ["dead", "list"],
      ["dead", "retry", "--all"],
    ];
    const ends = await Promise.all([...once, reassign].map((args) => hawserProcess(args, { databaseUrl })));
    for (const { status, signal, stderr } of ends.slice(0, -1)) {
      expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: expect.any(String) });
    }
    // There is no such listener.
    expect(ends.at(-1)).toMatchObject({ signal: null, status: expect.any(Number) });
  });

  it.runIf(existsSync("/dev/full"))("says once that the disk is full", async () => {
    const script = '"$@" >/dev/full; echo "status $?" >&2';
    const command = [...nodeCommand("src/operating/cli/main.ts"), "--help"];
    const { stderr } = await startCommand("sh", ["-c", script, "sh", ...command]).ended;
    expect(stderr).toMatch(/^hawser: could not write the output: ENOSPC.* \[output_failed\]\nstatus 70\n$/);
  });

  it("takes no directory for an empty input", async () => {
    const command = [...nodeCommand("src/operating/cli/main.ts"), "enqueue", "orders"];
    expect(await startCommand("sh", ["-c", '"$@" </', "sh", ...command]).ended).toMatchObject({
      status: 64,
      stdout: "",
      stderr: "hawser: standard input is a directory; give a file or a pipe with the message [invalid_argument]\n",
    });
  });

  it("ends in good order when the reader of a long list leaves", async () => {
    await using database = await testDatabase({ nats: false });
    await onServer(
      database.url,
      "INSERT INTO hawser_peer_data.peers (name, epoch) SELECT 'peer-' || n, 1 FROM generate_series(1, 5000) AS n",
    );
    const all = await hawser(["peers", "--json"], { databaseUrl: database.url });
    expect(jsonLines(all.stdout)).toHaveLength(5000);
    for (const form of ["--json", ""]) {
      const script = `{ "$@" peers ${form}; echo "status $?" >&2; } | head -n 2`;
      const pipeline = startShell(script, [], database.url);
      expect(await pipeline.ended).toMatchObject({ status: 0, stderr: "status 0\n" });
    }
  });
});
