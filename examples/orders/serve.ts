/**
 * What `hawser serve` runs: it publishes what the shop has enqueued for NATS, and has `audit_order` called for what is in
 * the stream.
 */
import { serve } from "../../src/nats/serve/index.js";

const server = await serve({ listen: "127.0.0.1:0" });

async function stop(): Promise<void> {
  await server.stop();
  process.exit();
}

for (const event of ["SIGINT", "SIGTERM", "disconnect"]) process.once(event, stop);

console.log("relays and audits");
