/**
 * What `hawser serve` runs: it answers the SQL functions of the database, until it is told to stop.
 */
import { serve } from "../../src/nats/serve/index.js";

const server = await serve({ listen: "127.0.0.1:0" });

async function stop(): Promise<void> {
  await server.stop();
  console.log("stopped in good order");
  process.exit();
}

process.once("SIGINT", stop);
process.once("SIGTERM", stop);

console.log("answers the SQL functions");
