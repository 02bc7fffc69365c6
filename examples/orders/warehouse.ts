/**
 * The warehouse. It books each order that it is told of, in the transaction that acknowledges the message: once, whatever
 * happens to it.
 */
import { Peer } from "../../src/jobs-and-peers/peer/index.js";

const peer = new Peer({ name: "warehouse-1" });

async function stop(): Promise<void> {
  await peer.stop();
  process.exit();
}

for (const event of ["SIGINT", "SIGTERM", "disconnect"]) process.once(event, stop);

await peer.handle("warehouse", { transactional: true }, async (message) => {
  const { id, what } = message.json();
  await message.client.query("INSERT INTO bookings (order_id, what) VALUES ($1, $2)", [id, what]);
});
await peer.start();
console.log("books orders");
