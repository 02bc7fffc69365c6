import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { printDocs } from "../../codegen/nats-options/print-docs.js";
import { printTypeScript } from "../../codegen/nats-options/print-typescript.js";
import { readOptionsSchema } from "../../codegen/nats-options/read-schema.js";
import type { Answer, OptionsSql } from "./validator-database.js";

/** Output of the printers for a schema. */
export interface MadeOptions {
  readonly files: Readonly<Record<string, string>>;
  check(options: unknown): Answer;
  readonly authModes: readonly string[];
  resolveAuth(options: unknown): unknown;
  readonly connectionOptions: readonly string[];
  readonly sql: OptionsSql;
}

export const smallSchema = readFileSync(new URL("small.schema.json", import.meta.url), "utf8");

/** Prints a schema and loads its TypeScript. */
export async function makeOptions(schema: string, file: string): Promise<MadeOptions> {
  const model = readOptionsSchema(schema, file);
  const typescript = await printTypeScript(model);
  const folder = mkdtempSync(join(tmpdir(), "hawser-options-"));
  try {
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
    for (const { path, content } of typescript) writeFileSync(join(folder, path), content);
    const index = await import(/* @vite-ignore */ pathToFileURL(join(folder, "index.ts")).href);
    return {
      files: Object.fromEntries([...typescript, ...printDocs(model)].map(({ path, content }) => [path, content])),
      check: index[`check${model.title}`],
      authModes: index.authModes,
      resolveAuth: index.resolveAuth,
      connectionOptions: index.connectionOptions,
      sql: {
        functions: index.natsOptionsFunctionsSql,
        grants: index.natsOptionsGrantsSql,
        foreignData: index.natsForeignDataSql,
      },
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
