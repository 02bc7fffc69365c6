/**
 * The plugins of buf.gen.yaml that are this project's own, run within the test's process.
 */
import { readFileSync } from "node:fs";
import type { CodeGeneratorRequest } from "@bufbuild/protobuf/wkt";
import { generateDocs } from "../../../codegen/docs/generate.js";
import { generateErrors } from "../../../codegen/errors/generate.js";
import {
  generateGatewayDocs,
  generateGatewaySql,
  generateGatewayTypescript,
} from "../../../codegen/gateway/generate.js";
import type { Printer } from "../../../codegen/nats-options/plugin.js";
import { printDocs } from "../../../codegen/nats-options/print-docs.js";
import { printSql } from "../../../codegen/nats-options/print-sql.js";
import { printTypeScript } from "../../../codegen/nats-options/print-typescript.js";
import { readOptionsSchema } from "../../../codegen/nats-options/read-schema.js";
import type { Generator } from "../../../codegen/plugin.js";
import { generateRows } from "../../../codegen/rows/generate.js";
import { generateSettings } from "../../../codegen/settings/generate.js";
import { generateSql } from "../../../codegen/sql/generate.js";
import { generateSqlText } from "../../../codegen/sql-text/generate.js";
import { generateValidators } from "../../../codegen/validators/generate.js";
import { generated } from "./request.js";

/** What each plugin of the spec runs. */
const generators: Readonly<Record<string, Generator>> = {
  "codegen/sql/plugin.ts": generateSql,
  "codegen/sql-text/plugin.ts": generateSqlText,
  "codegen/rows/plugin.ts": generateRows,
  "codegen/validators/plugin.ts": generateValidators,
  "codegen/settings/plugin.ts": generateSettings,
  "codegen/errors/plugin.ts": generateErrors,
  "codegen/docs/plugin.ts": generateDocs,
  "codegen/gateway/plugin-ts.ts": generateGatewayTypescript,
  "codegen/gateway/plugin-sql.ts": generateGatewaySql,
  "codegen/gateway/plugin-docs.ts": generateGatewayDocs,
};

const printers: Readonly<Record<string, Printer>> = {
  "codegen/nats-options/plugin-ts.ts": printTypeScript,
  "codegen/nats-options/plugin-sql.ts": printSql,
  "codegen/nats-options/plugin-docs.ts": printDocs,
};

const schemaFile = "schema/nats-server-options.schema.json";

/** An entry of buf.gen.yaml. */
export interface Plugin {
  /** Such as `codegen/sql/plugin.ts`. */
  readonly script: string;
  /** The folder of its files. */
  readonly out: string;
  readonly parameter: string;
}

/** This project's own entries of buf.gen.yaml, and the folders of the others. */
export function pluginsOf(bufGenYaml: string): { own: Plugin[]; foreign: string[] } {
  const entries = bufGenYaml.split(/^ {2}- local: /m).slice(1);
  const plugins = entries.map((entry) => ({
    script: /codegen\/\S+\.ts/.exec(entry)?.[0] ?? "",
    out: /^ {4}out: (\S+)$/m.exec(entry)?.[1] ?? "",
    parameter: /^ {4}opt: \[(.*)\]$/m.exec(entry)?.[1] ?? "",
  }));
  return {
    own: plugins.filter(({ script }) => script !== ""),
    foreign: plugins.filter(({ script }) => script === "").map(({ out }) => out),
  };
}

/** What a plugin makes, by path from the root of the project. */
export async function filesOf(
  { script, out, parameter }: Plugin,
  requestWith: (parameter: string) => CodeGeneratorRequest,
): Promise<Record<string, string>> {
  const print = printers[script];
  const files =
    print === undefined
      ? generated(requestWith(parameter), generators[script]!)
      : Object.fromEntries(
          (await print(readOptionsSchema(readFileSync(schemaFile, "utf8"), schemaFile))).map((file) => [
            file.path,
            file.content,
          ]),
        );
  return Object.fromEntries(Object.entries(files).map(([path, content]) => [`${out}/${path}`, content]));
}
