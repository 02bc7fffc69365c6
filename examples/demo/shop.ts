/**
 * A peer that sends and receives: it places orders, waits for an invoice for each, and ends.
 */
import { Peer } from "../../src/jobs-and-peers/peer/index.js";

const orders = ["order 1: 20 m of rope", "order 2: 3 shackles", "order 3: a bollard"];

await using peer = new Peer({
  name: "shop-1",
  topic: "shop",
});

let invoices = 0;
let done!: () => void;
const allInvoices = new Promise<void>((resolve) => {
  done = resolve;
});

await peer.handle("shop", (message) => {
  console.log(`got "${message.text()}" from ${message.sender}`);
  invoices += 1;
  if (invoices === orders.length) done();
});
await peer.start();

for (const order of orders) {
  const receipt = await peer.send("billing", order);
  console.log(`sent "${order}": ${receipt.outcome} (${receipt.peer})`);
}
await allInvoices;
