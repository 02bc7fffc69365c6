/** The programs of docs/orms.md. */
import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { transform } from "esbuild";
import { expect, type TestContext } from "vitest";
import type { filesOf } from "../../readme/snippets.js";
import { testDatabase } from "../../support/database.js";
import { onServer, rowsOf } from "../../support/on-server.js";
import { projectDirectory, startCommand } from "../../support/program.js";
import { temporaryDirectory } from "../../support/temporary.js";

/** Runs a program in a process of its own. */
export async function expectRowAndMessage(
  { content, name }: ReturnType<typeof filesOf>[number],
  context: TestContext,
): Promise<void> {
  await using database = await testDatabase();
  await onServer(database.url, "CREATE TABLE orders (id bigserial PRIMARY KEY, what text)");
  const directory = temporaryDirectory(context);
  symlinkSync(join(projectDirectory, "node_modules"), join(directory, "node_modules"));
  writeFileSync(join(directory, "package.json"), JSON.stringify({ type: "module" }));
  const prisma = join(directory, "generated/prisma/client.js");
  mkdirSync(dirname(prisma), { recursive: true });
  copyFileSync(join(projectDirectory, "test/queue/prisma-client.mjs"), prisma);
  const hawser = JSON.stringify(join(process.env["HAWSER_TEST_PROGRAMS"]!, "src/jobs-and-peers/peer/index.js"));
  const { code } = await transform(content, { loader: "ts", target: "node20" });
  const file = join(directory, name.replace(".ts", ".js"));
  writeFileSync(file, code.replace('"hawser"', hawser));
  const program = startCommand(process.execPath, [file], { env: { HAWSER_DATABASE_URL: database.url } });
  expect(await program.ended).toMatchObject({ stderr: "", status: 0 });
  const id = /id: (\d+)/.exec(content)![1]!;
  expect(await rowsOf(database.url, "SELECT * FROM orders")).toEqual([{ id, what: "20 m of rope" }]);
  expect(
    await rowsOf(database.url, "SELECT topic, key, convert_from(payload, 'UTF8') AS payload FROM hawser_data.queue"),
  ).toEqual([{ topic: "picking", key: `order-${id}`, payload: `{"id":${id}}` }]);
}
