/**
 * The generators, for programs that run them by themselves: what the package exports as `hawser/codegen`. docs/codegen.md
 * tells of the plugins that `buf generate` runs.
 */
export {
  type ErrorCode,
  type ErrorEntry,
  type ErrorOutcome,
  HawserError,
  type HawserErrorOptions,
  TypedError,
} from "../src/errors/index.js";
export { generateMessageSql } from "./message-sql/generate.js";
export { OptionError } from "./message-sql/options.js";
export { SpecError } from "./model/spec-error.js";
export type { GeneratedFile } from "./plugin.js";
export { generateSpecParts } from "./spec-parts.js";
