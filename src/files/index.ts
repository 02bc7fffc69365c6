/** Files: small files that users name, private files, and the version of the package. */
export { openPrivate, writePrivate } from "./private-file.js";
export { readSmallFile, readSmallFileSync, tlsFileMaxBytes } from "./small-file.js";
export { version } from "./version.js";
