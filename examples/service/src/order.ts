import pg from "pg";
import { placeOrder } from "./service.js";

const pool = new pg.Pool({ connectionString: process.env["HAWSER_DATABASE_URL"] });
console.log(`placed order ${await placeOrder(pool, process.argv[2] ?? "20 m of rope")}`);
await pool.end();
