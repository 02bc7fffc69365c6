import { hasSql } from "../areas.js";
import { sqlHead } from "../head.js";
import type { Spec } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { type PluginOptions, specOfPackage } from "../plugin-options.js";
import { sqlConstants } from "./body.js";
import { schemaSql } from "./schema.js";

/**
 * The SQL of one package (`opt: [package=…]`): `schema.sql` and, where the package has something to grant,
 * `grants.sql`.
 */
export function generateSql(spec: Spec, options: PluginOptions): GeneratedFile[] {
  const all = specOfPackage(spec, options).files;
  const files = all.filter(hasSql);
  const { tables, functions, grants } = schemaSql(files, sqlConstants(all));
  const head = sqlHead("codegen/sql", files);
  const schema = [tables, functions].filter((part) => part !== undefined).join("\n");
  return [
    ...(schema === "" ? [] : [{ path: "schema.sql", content: `${head}\n${schema}` }]),
    ...(grants === undefined ? [] : [{ path: "grants.sql", content: `${head}\n${grants}` }]),
  ];
}
