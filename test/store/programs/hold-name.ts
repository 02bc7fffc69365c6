/** Takes a name and holds it until it is killed. Argument: the name. The database is that of HAWSER_DATABASE_URL. */
import { openStore } from "../../../src/jobs-and-peers/peer-store/store.js";

const [name] = process.argv.slice(2) as [string];
const store = await openStore({ databaseUrl: process.env["HAWSER_DATABASE_URL"] });
await store.takeName(name, { waitMs: 0 });
console.log("held");
