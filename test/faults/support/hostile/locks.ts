/**
 * Any login may take any advisory lock. Here one takes each key that the source names, and stands in line for each that is
 * held.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type pg from "pg";
import { projectDirectory } from "../../../support/built-programs.js";

/** The texts that keys are made of: `hawser:migrate`, or a beginning such as `hawser:fence:`. */
function lockTexts(): string[] {
  const files = ["schema", "src"].flatMap((folder) => {
    const paths = readdirSync(join(projectDirectory, folder), { recursive: true, encoding: "utf8" });
    return paths.filter((path) => /\.(sql|ts)$/.test(path)).map((path) => join(projectDirectory, folder, path));
  });
  const found = files.flatMap((file) =>
    [...readFileSync(file, "utf8").matchAll(/'(hawser:[a-z_:-]+)'/g)].map(([, text]) => text!),
  );
  return [...new Set(found)].sort();
}

/**
 * Takes all of them. A text that ends in ':' is continued by each name.
 *
 * @param connect makes sessions, which have the locks until they end
 */
export async function takeEveryLock(connect: () => Promise<pg.Client>, names: readonly string[]): Promise<string[]> {
  const texts = lockTexts().flatMap((text) => (text.endsWith(":") ? names.map((name) => `${text}${name}`) : [text]));
  const holder = await connect();
  for (const text of texts) {
    const { rows } = await holder.query("SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS held", [text]);
    if (rows[0].held) continue;
    const waiter = await connect();
    // Ends with its session.
    waiter.query("SELECT pg_advisory_lock(hashtextextended($1, 0))", [text]).catch(() => undefined);
  }
  return texts;
}

/** Stands in line for each advisory lock of others, whose keys everybody can see. @returns how many there are */
export async function waitForEveryLock(connect: () => Promise<pg.Client>): Promise<number> {
  const watcher = await connect();
  const { rows } = await watcher.query(
    `SELECT DISTINCT (classid::bigint << 32 | objid::bigint)::text AS key FROM pg_locks
      WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND pid <> pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
  );
  for (const { key } of rows) {
    const waiter = await connect();
    waiter.query("SELECT pg_advisory_lock($1)", [key]).catch(() => undefined);
  }
  return rows.length;
}
