/**
 * Files: those that users name, and the one that says which version this is.
 */
export { readSmallFile, readSmallFileSync } from "./small-file.js";
export { version } from "./version.js";
