import assert from "node:assert/strict";
import { after, test } from "node:test";
import { eventually, testStack } from "hawser/testing";
import pg from "pg";
import { placeOrder, startService } from "./service.js";

const stack = await testStack();
const service = await startService(stack.databaseUrl);
const pool = new pg.Pool({ connectionString: stack.databaseUrl });
after(async () => {
  await pool.end();
  await service.stop();
  await stack.drop();
});

test("books an order that was placed", async () => {
  const id = await placeOrder(pool, "buoy");
  await eventually(async () => {
    const { rows } = await pool.query("SELECT order_id, article FROM bookings");
    assert.deepEqual(rows, [{ order_id: id, article: "buoy" }]);
  });
});
