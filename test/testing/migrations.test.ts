import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { readMigrations } from "../../src/development/testing/migrations.js";
import { testDatabase } from "../support/database.js";
import { rowsOf } from "../support/on-server.js";
import { temporaryDirectory } from "../support/temporary.js";

function folderOf(files: Readonly<Record<string, string>>): string {
  const folder = temporaryDirectory();
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(join(folder, path, ".."), { recursive: true });
    writeFileSync(join(folder, path), content);
  }
  return folder;
}

it("runs the SQL files of a folder in the order of their paths, and no others", async () => {
  await using database = await testDatabase({ migrated: false });
  const folder = folderOf({
    "2-more/1.sql": "INSERT INTO steps VALUES ('more')",
    "1.sql": "CREATE TABLE steps (name text); INSERT INTO steps VALUES ('first')",
    "README.md": "no SQL",
    "3.sql": "INSERT INTO steps VALUES ('last')",
  });
  await readMigrations(folder).run(database.url);
  expect(await rowsOf(database.url, "SELECT name FROM steps")).toEqual(
    ["first", "more", "last"].map((name) => ({ name })),
  );
});

it("has another key when a file changes, or the program", () => {
  const folder = folderOf({ "schema.prisma": "model A" });
  const one = readMigrations({ files: folder, run: () => 1 }).key;
  expect(readMigrations({ files: folder, run: () => 1 }).key).toBe(one);
  expect(readMigrations({ files: folder, run: () => 2 }).key).not.toBe(one);
  writeFileSync(join(folder, "schema.prisma"), "model B");
  expect(readMigrations({ files: folder, run: () => 1 }).key).not.toBe(one);
});

it("names the file that fails", async () => {
  await using database = await testDatabase({ migrated: false });
  const file = join(folderOf({ "1.sql": "SELECT 1/0" }), "1.sql");
  await expect(readMigrations([file]).run(database.url)).rejects.toThrow(
    `the migration ${file} failed: division by zero`,
  );
});

it("refuses what is not there", () => {
  expect(() => readMigrations("nowhere")).toThrow(/migrations "nowhere": there is no \/.*nowhere. Paths are relative/);
  expect(() => readMigrations(folderOf({ "a.txt": "" }))).toThrow("has no file *.sql");
  expect(() => readMigrations("")).toThrow('migrations "": name a file or a folder');
});
