/**
 * Hands the channels of one listener over to another. Arguments: the database's URL, the two names.
 */
import { openStore } from "../../../src/store/index.js";

const [databaseUrl, from, to] = process.argv.slice(2) as [string, string, string];
await using store = await openStore({ databaseUrl });
await store.reassign({ from, to });
