/** Files that entry points load before anything is called: each costs time and memory in every process of a user. */
import { describe, expect, it } from "vitest";
import { nodeCommand } from "../support/built-programs.js";
import { startCommand } from "../support/program.js";

/** Folders of the project from which a module of `src/` loads files, and the number of these files. */
async function loadedBy(...args: readonly string[]): Promise<{ readonly folders: string[]; readonly files: number }> {
  const [node, ...program] = nodeCommand("test/package/programs/loaded.ts");
  const { status, stderr } = await startCommand(node!, [...program, ...args]).ended;
  expect(status).toBe(0);
  const own = (JSON.parse(stderr) as string[]).flatMap((path) => {
    const [, inside] = /\/(?:src|generated\/ts)\/((?!.*\/node_modules\/).*)$/.exec(path) ?? [];
    return inside === undefined ? [] : [path.includes("/generated/ts/") ? `generated/${inside}` : inside];
  });
  const folders = own.map((path) =>
    path
      .split("/")
      .slice(0, path.startsWith("generated/") ? 2 : 1)
      .join("/"),
  );
  return { folders: [...new Set(folders)].sort(), files: own.length };
}

describe("hawser", () => {
  it("loads no sockets, no store and no SQL of the schema before a peer starts", async () => {
    const { folders, files } = await loadedBy("peer/index.js");
    expect(folders.filter((folder) => !folder.startsWith("generated/"))).toEqual([
      "channel",
      "errors",
      "files",
      "peer",
      "postgres",
      "runtime",
      "tls",
      "typed",
      "wire",
    ]);
    expect(folders).not.toContain("generated/sql");
    expect(files).toBeLessThanOrEqual(150);
  });
});

describe("the command", () => {
  it("loads no command for the list of commands", async () => {
    const { folders, files } = await loadedBy("cli/run.js", "--help");
    expect(folders).toEqual(["cli", "errors", "files", "generated/errors"]);
    expect(files).toBeLessThanOrEqual(20);
  });
});
