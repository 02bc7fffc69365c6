/**
 * Database objects that `hawser init` creates: one list of objects, and operations over it. See README.md.
 */

export { danglesSql, functionNameSql, mayBindSql, wrapperJoinSql } from "./binding-sql.js";
export { dblinkSchema, usedDblinkFunctions } from "./dblink.js";
export {
  type ExtensionReport,
  extensionFiles,
  extensionName,
  findServerDirectories,
  installExtension,
  type ServerDirectories,
  uninstallExtension,
} from "./extension/index.js";
export { optionsPollMs } from "./foreign-data.js";
export { publicFunctionCount } from "./functions.js";
export {
  type InstallOptions,
  type InstallReport,
  install,
  type MissingPrivilege,
  type UninstallReport,
  uninstall,
} from "./install.js";
export { someOf } from "./object.js";
export { faultsOf, hasNats, inspect } from "./objects.js";
export type { Fault, State } from "./state.js";
