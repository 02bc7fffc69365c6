import { readFileSync } from "node:fs";
import type { DescFile, FileRegistry } from "@bufbuild/protobuf";
import { generateDocs } from "./docs/generate.js";
import { generateErrors } from "./errors/generate.js";
import { generateGatewayDocs, generateGatewayTypescript } from "./gateway/generate.js";
import { readSpec, type Spec } from "./model/spec.js";
import { printDocs } from "./nats-options/print-docs.js";
import { printTypeScript } from "./nats-options/print-typescript.js";
import { readOptionsSchema, refuseOtherRules } from "./nats-options/read-schema.js";
import { SchemaError } from "./nats-options/schema-node.js";
import type { GeneratedFile, Generator } from "./plugin.js";
import { generateRows } from "./rows/generate.js";
import { generateSettings } from "./settings/generate.js";
import { generateSql } from "./sql/generate.js";
import { generateMigrations } from "./sql/migrations.js";
import { generateValidators } from "./validators/generate.js";

/** What is made of the proto files, by the folder below `generated/` that it goes to. */
const generators: Readonly<Record<string, Generator>> = {
  // Tables, functions and grants of the schema `hawser`: the SQL that the program runs.
  "ts/sql": generateSql,
  // Row types, column lists, and a typed client of the SQL functions.
  "ts/rows": generateRows,
  // Rules as checks, for frames and for columns.
  "ts/rules": generateValidators,
  // Settings with defaults and ranges, and constants.
  "ts/settings": generateSettings,
  // The error table.
  "ts/errors": generateErrors,
  // The SQL functions that reach NATS, the readers of their calls, the interface of the handlers, their typed client.
  "ts/nats-functions": generateGatewayTypescript,
  // Reference pages.
  docs: generateDocs,
  "docs/nats-functions": generateGatewayDocs,
};

/** Relative to the working directory, which buf makes the root of the project. */
const schemaFile = "schema/nats-server-options.schema.json";

/** What is made of the proto files alone. */
export function generateFromSpec(spec: Spec): GeneratedFile[] {
  return Object.entries(generators).flatMap(([folder, generate]) => inFolder(folder, generate(spec)));
}

/**
 * What users can have made of protos of their own with the options of `hawser.spec.v1`: settings, rules, errors, and pages
 * about them. Tables and SQL functions are left out: theirs is the schema `hawser`, which belongs to Hawser.
 *
 * @param files those of the registry that it is made of
 * @throws SpecError for a mistake in the protos
 */
export function generateSpecParts(registry: FileRegistry, files: readonly DescFile[]): GeneratedFile[] {
  const spec = readSpec(registry, files);
  return ["ts/rules", "ts/settings", "ts/errors", "docs"].flatMap((folder) =>
    inFolder(folder, generators[folder]!(spec)),
  );
}

/**
 * All of `generated/` but the codecs of the frames: what is made of the proto files, of the migrations, and of the JSON
 * Schema of the options of the NATS server.
 */
export function generateAll(spec: Spec): GeneratedFile[] {
  const model = readOptionsSchema(readSchemaFile(), schemaFile);
  refuseOtherRules(model, spec.namedRules);
  return [
    ...generateFromSpec(spec),
    // The steps of schema/migrations/.
    ...inFolder("ts/sql", generateMigrations(spec)),
    // Types, validators in TypeScript and SQL, the resolver of the authentication mode.
    ...inFolder("ts/nats-options", printTypeScript(model)),
    ...inFolder("docs/nats-options", printDocs(model)),
  ];
}

function inFolder(folder: string, files: readonly GeneratedFile[]): GeneratedFile[] {
  return files.map(({ path, content }) => ({ path: `${folder}/${path}`, content }));
}

function readSchemaFile(): string {
  try {
    return readFileSync(schemaFile, "utf8");
  } catch (error) {
    throw new SchemaError(schemaFile, "", `cannot be read: ${(error as Error).message}`);
  }
}
