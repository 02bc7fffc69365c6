/**
 * A session in a process of its own, which runs the statements of its arguments in a transaction and prints what the last one returns. The
 * transaction ends with the process, or is committed by a line on standard input. The database is that of HAWSER_DATABASE_URL.
 */
import { once } from "node:events";
import pg from "pg";

const client = new pg.Client({ connectionString: process.env["HAWSER_DATABASE_URL"] });
// The session is ended by others.
client.on("error", () => process.exit());
await client.connect();
await client.query("BEGIN");
let rows: unknown[] = [];
for (const statement of process.argv.slice(2)) rows = (await client.query(statement)).rows;
console.log(JSON.stringify(rows));
await once(process.stdin, "data");
await client.query("COMMIT");
await client.end();
process.exit();
