/**
 * The example of docs/rpc.md, in a user's own project: generated, type-checked and run as it stands.
 */
import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { readPage } from "../readme/pages.js";
import { blocksOf, filesOf } from "../readme/snippets.js";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { projectDirectory } from "../support/program.js";
import { sampleProject, startIn } from "../testing/sample-project.js";

const blocks = blocksOf(readPage("docs/rpc.md"));
const contentOf = (info: string): string => blocks.find((each) => each.info === info)?.content ?? "";

it("can be generated, type-checked and run as the page shows it", async () => {
  const programs = filesOf(readPage("docs/rpc.md"));
  expect(programs.map(({ name }) => name)).toEqual(["routes.ts", "over-peers.ts", "over-nats.ts"]);
  const compilerOptions = {
    ...{ target: "ES2022", lib: ["ES2023", "ESNext.Disposable"], module: "NodeNext", types: ["node"] },
    ...{ strict: true, noEmit: true, skipLibCheck: true },
    // The package as it was compiled for this run has no declarations: its sources have the same types.
    paths: {
      hawser: [join(projectDirectory, "src/jobs-and-peers/peer/index.ts")],
      "hawser/connect": [join(projectDirectory, "src/protobuf/connect/index.ts")],
    },
  };
  const project = sampleProject({
    ...Object.fromEntries(programs.map(({ name, content }) => [name, content])),
    "proto/acme/warehouse/v1/warehouse.proto": contentOf("proto"),
    "buf.gen.yaml": contentOf("yaml"),
    "tsconfig.json": JSON.stringify({ compilerOptions, include: ["*.ts"] }),
  });
  for (const name of ["@connectrpc", "@bufbuild"]) {
    symlinkSync(join(projectDirectory, "node_modules", name), join(project, "node_modules", name));
  }
  const env = { PATH: `${join(projectDirectory, "node_modules/.bin")}:${process.env["PATH"]}` };
  const run = async (...args: string[]) => {
    await using database = await testDatabase({ nats: false });
    const servers = { HAWSER_DATABASE_URL: database.url, NATS_URL: testNatsUrl() };
    const { status, stdout, stderr } = await startIn(project, args, { ...env, ...servers }).ended;
    expect(status, `${args.join(" ")}: ${stdout}${stderr}`).toBe(0);
    return stdout;
  };
  await run("node_modules/@bufbuild/buf/bin/buf", "generate", "proto");
  expect(await run("node_modules/typescript/bin/tsc", "-p", ".")).toBe("");
  for (const { name, prints } of programs) {
    if (prints !== undefined) expect(await run("--import", "tsx", name), name).toBe(prints);
  }
});
