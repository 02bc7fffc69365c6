/** Takes a name and holds it until it is killed. Arguments: the database's URL, the name. */
import { openStore } from "../../../src/store/index.js";

const [databaseUrl, name] = process.argv.slice(2) as [string, string];
const store = await openStore({ databaseUrl });
await store.takeName(name, { waitMs: 0 });
console.log("held");
