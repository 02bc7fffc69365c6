/**
 * Files: those that users name, private ones, and the one that says which version this is.
 */
export { openPrivate, writePrivate } from "./private-file.js";
export { readSmallFile, readSmallFileSync } from "./small-file.js";
export { version } from "./version.js";
