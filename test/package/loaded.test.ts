/** Files that entry points load before anything is called: each costs time and memory in every process of a user. */
import { describe, expect, it } from "vitest";
import { nodeCommand } from "../support/built-programs.js";
import { startCommand } from "../support/program.js";
import { manifest } from "./pack.js";

/** Files that a module of `src/` loads: rooms and folders of generated/ in which they are, their number, and packages. */
interface Loaded {
  readonly folders: string[];
  readonly files: number;
  readonly packages: string[];
}

async function loadedBy(...args: readonly string[]): Promise<Loaded> {
  const [node, ...program] = nodeCommand("test/package/programs/loaded.ts");
  const { status, stderr } = await startCommand(node!, [...program, ...args]).ended;
  expect(status).toBe(0);
  const paths = JSON.parse(stderr) as string[];
  const packages = paths.flatMap((path) => /.*\/node_modules\/((?:@[^/]+\/)?[^/.][^/]*)\//.exec(path)?.[1] ?? []);
  const own = paths.flatMap((path) => {
    const [, inside] = /\/(?:src|generated\/ts)\/((?!.*\/node_modules\/).*)$/.exec(path) ?? [];
    return inside === undefined ? [] : [path.includes("/generated/ts/") ? `generated/${inside}` : inside];
  });
  // Of src/ the rooms, whatever their wings.
  const folders = own.map((path) =>
    path
      .split("/")
      .slice(path.startsWith("generated/") ? 0 : 1, 2)
      .join("/"),
  );
  return { folders: [...new Set(folders)].sort(), files: own.length, packages: [...new Set(packages)].sort() };
}

describe("hawser", () => {
  it("loads neither sockets, store and SQL of the schema nor node-postgres before a peer starts, and no Protobuf before a schema is used", async () => {
    const { folders, files, packages } = await loadedBy("jobs-and-peers/peer/index.js");
    expect(folders.filter((folder) => !folder.startsWith("generated/"))).toEqual([
      "channel",
      "errors",
      "handlers",
      "monitor",
      "payloads",
      "peer",
      "queue",
      "runtime",
      "sql-clients",
      "tls",
      "wire",
      "worker",
    ]);
    expect(folders).not.toContain("generated/sql");
    expect(files).toBeLessThanOrEqual(135);
    expect(packages).toEqual(["pg-connection-string"]);
  });
});

describe("the command", () => {
  it("loads no command for the list of commands", async () => {
    const { folders, files } = await loadedBy("operating/cli/run.js", "--help");
    expect(folders).toEqual(["cli", "errors", "generated/errors", "generated/rules", "generated/settings", "runtime"]);
    expect(files).toBeLessThanOrEqual(32);
  });

  it("loads no package that users may leave out for the help of mcp, which needs one", async () => {
    const { packages } = await loadedBy("operating/cli/run.js", "mcp", "--help");
    expect(packages).toContain("pg");
    expect(packages.filter((name) => name in manifest.peerDependencies)).toEqual([]);
  });
});
