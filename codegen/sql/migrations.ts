import { readdirSync, readFileSync } from "node:fs";
import type { Spec } from "../model/spec.js";
import { SchemaError } from "../model/spec-error.js";
import type { GeneratedFile } from "../plugin.js";
import { docstring, filesByArea, hasSql, stringLiteral, templateLiteral, typescriptHead } from "../print.js";
import { sqlConstants } from "./body.js";
import { droppedObjects, readReleasedObjects, releasedObjectsFile } from "./released-objects.js";
import { inSchema, schemaSql } from "./schema.js";
import { tableComments, tableStatements } from "./table.js";

/** Folder of the migrations, relative to the working directory: buf runs plugins in the root of the project. */
const folder = "schema/migrations";

/** Line between the parts of a step; generated statements go into the last part. */
const partLine = "-- Next part.\n";

interface MigrationFile {
  readonly path: string;
  readonly id: number;
  readonly name: string;
  /** True for the unreleased step, whose file has only the statements that do not follow from the spec. */
  readonly isNext: boolean;
  readonly text: string;
  readonly oldestProgram: number;
}

const docs = {
  type: "Step, as in its file in schema/migrations/.",
  released: "Released steps, in order. Their texts never change.",
  next: "Step of the next release: changes of old tables, and new tables.",
  dropped: "Functions and views of released versions that this one lacks, or declares otherwise. Views come first.",
  checksum: "SHA-256 of the functions, views and grants of the last release; undefined before the first one.",
} as const;

/**
 * Generates `migrations.ts`: the released steps unchanged; the next step from its hand-written part, the tables that no
 * released step creates, and the comments of all other tables; the functions and views that are dropped.
 *
 * @param optionsFunctions SQL of the functions that do not come from the spec
 */
export function generateMigrations(spec: Spec, optionsFunctions: string): GeneratedFile[] {
  const files = migrationFiles();
  const released = files.filter(({ isNext }) => !isNext);
  const next = files.find(({ isNext }) => isNext);
  const entries = released.map((file) => `  ${entry(file, file.text)},\n`);
  const objects = readReleasedObjects();
  const dropped = droppedObjects(objects, `${functionsOf(spec)}\n${optionsFunctions}`);
  const content = [
    typescriptHead("codegen/sql", [...files.map(({ path }) => path), releasedObjectsFile]),
    `${docstring(docs.type)}interface MigrationText {\n  readonly id: number;\n  readonly name: string;\n  readonly oldestProgram: number;\n  readonly sql: string;\n}\n`,
    `${docstring(docs.released)}export const releasedMigrations: readonly MigrationText[] = [\n${entries.join("")}];\n`,
    `${docstring(docs.next)}export const nextMigration: MigrationText | undefined = ${
      next === undefined ? "undefined" : entry(next, nextSql(spec, released, next))
    };\n`,
    `${docstring(docs.dropped)}export const droppedObjects: readonly { readonly step: number; readonly last: boolean; readonly sql: string }[] = [\n${dropped
      .map(({ step, last, sql }) => `  { step: ${step}, last: ${last}, sql: ${stringLiteral(sql)} },\n`)
      .join("")}];\n`,
    `${docstring(docs.checksum)}export const releasedFunctionsChecksum: string | undefined = ${
      objects.checksum === undefined ? "undefined" : stringLiteral(objects.checksum)
    };\n`,
  ].join("\n");
  return [{ path: "migrations.ts", content }];
}

function entry({ id, name, oldestProgram }: MigrationFile, sql: string): string {
  return `{ id: ${id}, name: ${stringLiteral(name)}, oldestProgram: ${oldestProgram}, sql: ${templateLiteral(sql)} }`;
}

/** Functions and views of the spec. */
function functionsOf(spec: Spec): string {
  const areas = filesByArea(spec).map(([, files]) => files);
  const constants = sqlConstants(spec.files, spec.namedRules);
  return areas.map((files) => schemaSql(files.filter(hasSql), constants).functions ?? "").join("\n");
}

/**
 * Number of the last step that the oldest program knows which can work with the step: `-- Oldest program: 3.` in its file.
 *
 * @throws SchemaError for another form, or a number that cannot be
 */
function oldestProgramOf(path: string, id: number, text: string): number {
  const [declared, second] = [...text.matchAll(/^-- *oldest program\b.*$/gim)].map(([line]) => line);
  if (declared === undefined) return id;
  const number = Number(/^-- Oldest program: (\d+)\.$/.exec(declared)?.[1]);
  if (second === undefined && number >= 1 && number <= id) return number;
  throw new SchemaError(
    path,
    "",
    `has the line ${JSON.stringify(second ?? declared)}; one line -- Oldest program: N. may say the number of a step from 1 to ${id}`,
  );
}

function nextSql(spec: Spec, released: readonly MigrationFile[], next: MigrationFile): string {
  const created = new Set(
    released.flatMap(({ text }) =>
      [...text.matchAll(/^CREATE TABLE hawser\w*_data\.(\w+)/gm)].map(([, name]) => name!),
    ),
  );
  const tables = spec.files.flatMap((file) => file.tables);
  const parts = next.text.split(partLine);
  const last = inSchema([
    parts.at(-1)!,
    ...tables.map((table) => (created.has(table.name) ? tableComments(table) : tableStatements(table))),
  ]);
  return [...parts.slice(0, -1), last].join(partLine);
}

/** Migration files in their order. @throws SchemaError if a file has an invalid name, or a number is missing */
function migrationFiles(): MigrationFile[] {
  const files = readdirSync(folder).map((file): MigrationFile => {
    const path = `${folder}/${file}`;
    const [, id, name, next] = /^(\d+)-([a-z0-9-]+)(\.next)?\.sql$/.exec(file) ?? [];
    if (id === undefined || name === undefined) {
      throw new SchemaError(
        path,
        "",
        "is not named <number>-<words>.sql, or <number>-<words>.next.sql for the next step",
      );
    }
    const text = readFileSync(path, "utf8").replaceAll("\r\n", "\n");
    const oldestProgram = oldestProgramOf(path, Number(id), text);
    return { path, id: Number(id), name: name.replaceAll("-", " "), isNext: next !== undefined, text, oldestProgram };
  });
  files.sort((one, other) => one.id - other.id);
  for (const [n, { path, id, isNext }] of files.entries()) {
    if (id !== n + 1) throw new SchemaError(path, "", `has the number ${id}; the next one would be ${n + 1}`);
    if (isNext && n + 1 < files.length) {
      throw new SchemaError(path, "", "is not released, and is not the last one; only the last one can be .next.sql");
    }
  }
  return files;
}
