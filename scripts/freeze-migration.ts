/**
 * `npm run freeze-migration`, before a release: writes the step that followed the spec until now to a file in
 * `schema/migrations/`, which is never edited again, and the functions and views of the release to
 * `schema/released-functions.txt`.
 */
import { rmSync, writeFileSync } from "node:fs";
import { readReleasedObjects, releasedObjectsFile, releasedObjectsText } from "../codegen/sql/released-objects.js";
import { nextMigration } from "../generated/ts/sql/migrations.js";
import { functionsChecksum, migrations, programSchema } from "../src/jobs-and-peers/migrations/index.js";

const last = migrations.at(-1)!;
if (nextMigration === undefined) {
  process.stdout.write(
    `Nothing to freeze: migration ${last.id} (${last.name}) is the last one, and is already frozen.\n`,
  );
} else {
  const path = `schema/migrations/${last.id}-${last.name.replaceAll(" ", "-")}`;
  writeFileSync(`${path}.sql`, last.sql);
  rmSync(`${path}.next.sql`);
  writeFileSync(
    releasedObjectsFile,
    releasedObjectsText(readReleasedObjects(), last.id, functionsChecksum(programSchema), programSchema.functions),
  );
  process.stdout.write(
    `Migration ${last.id} (${last.name}) is frozen in ${path}.sql. Now: npm run generate && npm run verify\n`,
  );
}
