/**
 * Packaging as a Postgres extension: `CREATE EXTENSION litmus_pgnats`.
 */
export { extensionName } from "./control.js";
export {
  type ExtensionReport,
  extensionFiles,
  installExtension,
  uninstallExtension,
} from "./files.js";
export { findServerDirectories, type ServerDirectories } from "./server-directories.js";
