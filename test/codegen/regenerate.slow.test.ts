/**
 * `npx buf generate` as a whole: the plugins as processes, ts-proto and protoc-gen-es among them.
 */
import { execFile } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { compareTrees } from "../../scripts/verify/trees.js";
import { projectDirectory } from "../support/program.js";

const schemaPath = "schema/nats-server-options.schema.json";
/** Files that are written anew; all others are those of the project. */
const copied = ["deploy", "proto", "schema", "buf.yaml", "buf.gen.yaml"];
const left = ["generated", ".git", "dist"];

vi.setConfig({ testTimeout: 300_000 });

/** A copy of the project with a schema that may be changed. */
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "hawser-regenerate-"));
  for (const name of await readdir(projectDirectory)) {
    if (copied.includes(name)) {
      await cp(join(projectDirectory, name), join(folder, name), { recursive: true });
    } else if (!left.includes(name)) {
      await symlink(join(projectDirectory, name), join(folder, name));
    }
  }
});

afterAll(() => rm(folder, { recursive: true, force: true }));

async function generate(): Promise<void> {
  await promisify(execFile)(join(projectDirectory, "node_modules/.bin/buf"), ["generate"], { cwd: folder });
}

it("makes the committed files, wherever it runs", async () => {
  await generate();
  for (const name of ["generated", "deploy/chart/dashboards"]) {
    expect(await compareTrees(join(projectDirectory, name), join(folder, name), name)).toEqual([]);
  }
});

/** Leaves in buf.gen.yaml only this project's own plugin: the others take most of the time. */
async function leaveOwnPlugin(): Promise<void> {
  const all = await readFile(join(projectDirectory, "buf.gen.yaml"), "utf8");
  const [head, ...entries] = all.split(/^(?= {2}- local:)/m);
  const own = entries.filter((entry) => entry.includes("codegen/main.ts"));
  expect(own).toHaveLength(1);
  await writeFile(join(folder, "buf.gen.yaml"), [head, ...own].join(""));
}

it("fails on a bad schema, and where there is none, and names the file and the element", async () => {
  await leaveOwnPlugin();
  const schema = JSON.parse(await readFile(join(folder, schemaPath), "utf8"));
  schema.properties.port.default = 0;
  await writeFile(join(folder, schemaPath), JSON.stringify(schema));
  await expect(generate()).rejects.toThrow(`${schemaPath}: #/properties/port/default: must be >= 1`);
  await rm(join(folder, schemaPath));
  await expect(generate()).rejects.toThrow(`${schemaPath}: #: cannot be read`);
});

it("fails on a spec that a plugin refuses, and prints what it says", async () => {
  await leaveOwnPlugin();
  await cp(join(projectDirectory, schemaPath), join(folder, schemaPath));
  const path = "hawser/peer/v1/catalog.proto";
  const proto = await readFile(join(folder, "proto", path), "utf8");
  await writeFile(join(folder, "proto", path), proto.replace(/type: "\w+"/, 'type: "money"'));
  await expect(generate()).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(
      /hawser\/peer\/v1\/catalog\.proto: message \w+\.\w+: unknown column type "money"; use one of smallint, integer,/,
    ),
  });
});
