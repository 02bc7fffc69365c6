/**
 * Files that users name.
 */
export { readSmallFile, readSmallFileSync } from "./small-file.js";
