/** SQL made of proto files, as `buf generate` makes it. */
import type { FileRegistry } from "@bufbuild/protobuf";
import { generateMessageSql } from "../../../codegen/message-sql/generate.js";
import { compileSchemas } from "../../typed/support/compile.js";

/** Generated SQL, and its schemas. */
export interface Made {
  readonly registry: FileRegistry;
  readonly sql: string;
}

/** Compiles protos and makes the SQL of those below `acme/`, with options as in `buf.gen.yaml`. */
export async function madeOf(protos: Readonly<Record<string, string>>, parameter = ""): Promise<Made> {
  const registry = await compileSchemas(protos);
  return { registry, sql: sqlOf(registry, parameter) };
}

/** Makes the SQL of what was compiled. */
export function sqlOf(registry: FileRegistry, parameter = ""): string {
  const files = [...registry.files].filter((file) => file.name.startsWith("acme/"));
  return generateMessageSql(registry, files, parameter)
    .map(({ content }) => content)
    .join("");
}
