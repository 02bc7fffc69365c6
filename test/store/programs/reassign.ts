/**
 * Hands the channels of one listener over to another. Arguments: the two names. The database is that of
 * HAWSER_DATABASE_URL.
 */
import { openStore } from "../../../src/store/index.js";

const [from, to] = process.argv.slice(2) as [string, string];
await using store = await openStore({ databaseUrl: process.env["HAWSER_DATABASE_URL"] });
await store.reassign({ from, to });
