/** Migrates a database and prints what it did. Argument: the database's URL. */
import { migrate } from "../../../src/store/index.js";

const [databaseUrl] = process.argv.slice(2) as [string];
console.log(JSON.stringify(await migrate({ databaseUrl })));
