/** Users' migrations: their files, the detection of changes, and their execution. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { HawserError } from "../../foundation/errors/index.js";
import { withClient } from "./user-client.js";

/** Preparation of test databases after Hawser's installation. */
export type Migrations = string | readonly string[] | MigrationProgram;

/** Migrations that are more than SQL files. */
interface MigrationProgram {
  /** Files and folders that `run` reads. If one of them has changed, the template is prepared again. */
  readonly files: string | readonly string[];
  /**
   * Prepares the database of the URL. Called once for all stacks with the same files; it must close its connections.
   */
  readonly run: (databaseUrl: string) => unknown;
}

/** Migrations that have been read. */
export interface ReadMigrations {
  /** Key that is equal for the same files with the same content. */
  readonly key: string;
  run(databaseUrl: string): Promise<void>;
}

interface ReadFile {
  readonly path: string;
  readonly content: Buffer;
}

/** @throws HawserError `invalid_argument` */
export function readMigrations(migrations: Migrations): ReadMigrations {
  const isProgram = typeof migrations === "object" && "run" in migrations;
  const paths = [isProgram ? migrations.files : migrations].flat() as string[];
  const files = paths.flatMap((path) => filesBelow(path, isProgram ? "" : ".sql"));
  const hash = createHash("sha256");
  if (isProgram) hash.update(String(migrations.run));
  for (const { path, content } of files) hash.update(`\0${path}\0${content.length}\0`).update(content);
  const run = isProgram
    ? async (databaseUrl: string) => void (await migrations.run(databaseUrl))
    : (databaseUrl: string) => runSql(files, databaseUrl);
  return { key: hash.digest("hex").slice(0, 12), run };
}

/** Reads a file, or the files of a folder with the ending, in the order of their paths. */
function filesBelow(path: string, ending: string): ReadFile[] {
  if (typeof path !== "string" || path === "") {
    throw new HawserError("invalid_argument", `migrations ${JSON.stringify(path)}: name a file or a folder`);
  }
  const absolute = resolve(path);
  const stat = statSync(absolute, { throwIfNoEntry: false });
  if (stat === undefined) {
    throw new HawserError(
      "invalid_argument",
      `migrations "${path}": there is no ${absolute}. Paths are relative to the working directory of the tests.`,
    );
  }
  if (!stat.isDirectory()) return [{ path: absolute, content: readFileSync(absolute) }];
  const names = readdirSync(absolute, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(ending));
  const files = names
    .map((name) => join(absolute, name))
    .filter((file) => statSync(file).isFile())
    .sort();
  if (files.length === 0) {
    throw new HawserError(
      "invalid_argument",
      `migrations "${path}": the folder ${absolute} has no file${ending && ` *${ending}`}.`,
    );
  }
  return files.map((file) => ({ path: file, content: readFileSync(file) }));
}

/** Runs each file as one query: a single transaction, unless the file contains transaction commands. */
async function runSql(files: readonly ReadFile[], databaseUrl: string): Promise<void> {
  await withClient(databaseUrl, async (client) => {
    for (const { path, content } of files) {
      try {
        await client.query(content.toString());
      } catch (cause) {
        throw new HawserError("invalid_argument", `the migration ${path} failed: ${(cause as Error).message}`, {
          cause,
        });
      }
    }
  });
}
