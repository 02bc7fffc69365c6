/**
 * A peer that listens: it answers orders with invoices and takes payments, until it is told to stop.
 */
import { Peer } from "../../src/jobs-and-peers/peer/index.js";

const peer = new Peer({
  name: "billing-1",
  topic: "billing",
});

async function stop(): Promise<void> {
  await peer.stop();
  console.log("stopped in good order");
  process.exit();
}

process.once("SIGINT", stop);
process.once("SIGTERM", stop);
// Whoever started this program is gone.
process.once("disconnect", stop);

await peer.handle("billing", async (message) => {
  const text = message.text();
  console.log(`got "${text}" from ${message.sender}`);
  if (text.startsWith("order")) await message.reply(`invoice for ${text}`);
});
await peer.start();
console.log(`listens on ${peer.localAddress}, topic "billing"`);
