/**
 * `npm run freeze-migration`, before a release: writes the step that followed the spec until now to a file in
 * `schema/migrations/`, which is never edited again.
 */
import { rmSync, writeFileSync } from "node:fs";
import { nextMigration } from "../generated/ts/sql/migrations.js";
import { migrations } from "../src/store/index.js";

const last = migrations.at(-1)!;
if (nextMigration === undefined) {
  process.stdout.write(
    `Nothing to freeze: migration ${last.id} (${last.name}) is the last one, and is already frozen.\n`,
  );
} else {
  const path = `schema/migrations/${last.id}-${last.name.replaceAll(" ", "-")}`;
  writeFileSync(`${path}.sql`, last.sql);
  rmSync(`${path}.next.sql`);
  process.stdout.write(
    `Migration ${last.id} (${last.name}) is frozen in ${path}.sql. Now: npm run generate && npm run verify\n`,
  );
}
