/** Packaging as a Postgres extension: `CREATE EXTENSION litmus_pgnats`. */
export {
  type ExtensionReport,
  extensionFiles,
  installExtension,
  uninstallExtension,
} from "./files.js";
export { extensionName } from "./script.js";
export { findServerDirectories, type ServerDirectories } from "./server-directories.js";
