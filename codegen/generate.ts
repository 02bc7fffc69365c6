import { readFileSync } from "node:fs";
import { generateAlertsPage } from "./alerts.js";
import { generateCodecs } from "./codecs/generate.js";
import { generateDocs } from "./docs/generate.js";
import { generateErrors } from "./errors/generate.js";
import { generateGatewayDocs, generateGatewayTypescript } from "./gateway/generate.js";
import { generateMetrics } from "./metrics/generate.js";
import type { Spec } from "./model/spec.js";
import { printDocs } from "./nats-options/print-docs.js";
import { optionsFunctionsSql } from "./nats-options/print-sql.js";
import { printTypeScript } from "./nats-options/print-typescript.js";
import { readOptionsSchema } from "./nats-options/read.js";
import type { GeneratedFile, Generator } from "./plugin.js";
import { generateRows } from "./rows/generate.js";
import { generateSettings } from "./settings/generate.js";
import { generateSql } from "./sql/generate.js";
import { generateMigrations } from "./sql/migrations.js";
import { generateValidateOptions } from "./validate-options/generate.js";
import { generateValidators } from "./validators/generate.js";

/** Generators by the folder below `generated/` that their files go to. */
const generators: Readonly<Record<string, Generator>> = {
  // Checks of the rules, for frames and for columns.
  "ts/rules": generateValidators,
  // Settings with defaults and ranges, and constants.
  "ts/settings": generateSettings,
  // The tables of metrics.
  "ts/metrics": generateMetrics,
  // The error table.
  "ts/errors": generateErrors,
  // The descriptor of the rules that users set on their messages.
  "ts/validate-options": generateValidateOptions,
  // Reference pages.
  docs: generateDocs,
  // The codec of the frames, with its checks.
  "ts/wire": generateCodecs,
  // Tables, functions and grants of the schema `hawser`: the SQL that `hawser init` runs.
  "ts/sql": generateSql,
  // Row types, column lists, and a typed client of the SQL functions.
  "ts/rows": generateRows,
  // The SQL functions that reach NATS, the readers of their calls, the interface of their handlers, their typed client.
  "ts/nats-functions": generateGatewayTypescript,
  "docs/nats-functions": generateGatewayDocs,
};

/** Path relative to the working directory: buf runs plugins in the root of the project. */
const schemaFile = "schema/nats-server-options.schema.json";

/** Generates the files that depend on the proto files alone. */
function generateFromSpec(spec: Spec): GeneratedFile[] {
  return Object.entries(generators).flatMap(([folder, generate]) => inFolder(folder, generate(spec)));
}

/**
 * Generates all of `generated/` except the types of the frames, from the proto files, the migrations, the JSON Schema of
 * the NATS server's options, and the alerts.
 */
export async function generateAll(spec: Spec): Promise<GeneratedFile[]> {
  const model = readOptionsSchema(readFileSync(schemaFile, "utf8"), schemaFile);
  return [
    ...generateFromSpec(spec),
    // The steps of schema/migrations/.
    ...inFolder("ts/sql", generateMigrations(spec, optionsFunctionsSql(model))),
    // Types, the options and their rules as data, the validator in SQL.
    ...inFolder("ts/nats-options", await printTypeScript(model)),
    ...inFolder("docs/nats-options", printDocs(model)),
    ...inFolder("docs", [generateAlertsPage()]),
  ];
}

function inFolder(folder: string, files: readonly GeneratedFile[]): GeneratedFile[] {
  return files.map(({ path, content }) => ({ path: `${folder}/${path}`, content }));
}
