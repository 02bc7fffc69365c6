/** Prints what `postgresBinaries` says of the package in the first argument, with the second for a private copy. */
import { postgresBinaries } from "../../../src/development/dev/postgres/binaries.js";

const [packaged, privateDirectory] = process.argv.slice(2);
console.log(JSON.stringify(postgresBinaries(undefined, privateDirectory!, packaged!)));
