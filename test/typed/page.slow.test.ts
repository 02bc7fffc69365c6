/**
 * The examples of docs/typed.md, in a user's own project: generated, type-checked and run as they stand.
 */
import { cpSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { readPage } from "../readme/pages.js";
import { blocksOf, filesOf } from "../readme/snippets.js";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { projectDirectory } from "../support/program.js";
import { sampleProject, startIn } from "../testing/sample-project.js";

const blocks = blocksOf(readPage("docs/typed.md"));
const files = filesOf(readPage("docs/typed.md"));
const contentsOf = (info: string): string[] =>
  blocks.filter((each) => each.info === info).map(({ content }) => content);

it("can be generated, type-checked and run as the page shows them", async () => {
  expect(files.map(({ name }) => name)).toEqual(["orders.ts", "over-nats.ts", "in-a-transaction.ts"]);
  const compilerOptions = {
    ...{ target: "ES2022", lib: ["ES2023", "ESNext.Disposable"], module: "NodeNext", types: ["node"] },
    ...{ strict: true, noUncheckedIndexedAccess: true, noEmit: true, skipLibCheck: true },
    // The package as it was compiled for this run has no declarations: its sources have the same types.
    paths: {
      hawser: [join(projectDirectory, "src/jobs-and-peers/peer/index.ts")],
      "hawser/nats": [join(projectDirectory, "src/nats/client/index.ts")],
    },
  };
  const [bufYaml, bufGenYaml] = contentsOf("yaml");
  const project = sampleProject({
    ...Object.fromEntries(files.map(({ name, content }) => [name, content])),
    "proto/acme/shop/v1/orders.proto": contentsOf("proto")[0]!,
    "buf.yaml": bufYaml!,
    "buf.gen.yaml": bufGenYaml!,
    "tsconfig.json": JSON.stringify({ compilerOptions, include: ["*.ts"] }),
  });
  cpSync(join(projectDirectory, "proto"), join(project, "node_modules/hawser/proto"), { recursive: true });
  symlinkSync(join(projectDirectory, "node_modules/@bufbuild"), join(project, "node_modules/@bufbuild"));
  const env = { PATH: `${join(projectDirectory, "node_modules/.bin")}:${process.env["PATH"]}` };
  const run = async (...args: string[]) => {
    await using database = await testDatabase();
    const servers = { HAWSER_DATABASE_URL: database.url, NATS_URL: testNatsUrl() };
    const { status, stdout, stderr } = await startIn(project, args, { ...env, ...servers }).ended;
    expect(status, `${args.join(" ")}: ${stdout}${stderr}`).toBe(0);
    return stdout;
  };
  await run("node_modules/@bufbuild/buf/bin/buf", "generate");
  expect(await run("node_modules/typescript/bin/tsc", "-p", ".")).toBe("");
  for (const { name, prints } of files) {
    if (prints !== undefined) expect(await run("--import", "tsx", name), name).toBe(prints);
  }
  const printed = (await run("--import", "tsx", "over-nats.ts")).trim().split("\n").sort();
  expect(printed).toEqual(["number 1 in SHOP", "shop.acme.placed: o-17"]);
});
