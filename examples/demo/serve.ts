/**
 * What `hawser serve` runs: it answers the SQL functions of the database, until it is told to stop.
 */
import { Serve } from "../../src/serve/index.js";

const serve = await Serve.start({
  gatewayListen: "127.0.0.1:0",
});

async function stop(): Promise<void> {
  await serve.stop();
  console.log("stopped in good order");
  process.exit();
}

process.once("SIGINT", stop);
process.once("SIGTERM", stop);

console.log("answers the SQL functions");
