/**
 * Entry `hawser/codegen`: the generators, for programs that run them without buf. docs/codegen.md describes the plugins
 * that `buf generate` runs.
 */
export { generateMessageSql } from "./message-sql/generate.js";
export { OptionError } from "./message-sql/options.js";
export { SpecError } from "./model/spec-error.js";
export type { GeneratedFile } from "./plugin.js";
export { generateSpecParts } from "./spec-parts.js";
