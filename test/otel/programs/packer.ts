/**
 * A peer that packs orders in its transaction. With `hang` it reports the order and waits until it is killed; with `fail` it
 * throws at the first attempt in this process.
 */
import { NodeSDK } from "@opentelemetry/sdk-node";
import { Peer } from "../../../src/jobs-and-peers/peer/index.js";
import { instrument } from "../../../src/operating/otel/index.js";

new NodeSDK({ serviceName: "packer" }).start();
instrument();
const how = process.argv[2];
let attempts = 0;
const peer = new Peer({ name: "packer-1", databaseUrl: process.env["HAWSER_DATABASE_URL"], nameWaitMs: 60_000 });
await peer.handle("packing", { transactional: true, retry: { attempts: 5, delayMs: 1 } }, async (message) => {
  attempts += 1;
  if (how === "hang") {
    console.log("handling");
    await new Promise(() => undefined);
  }
  if (attempts === 1) throw new Error("no paper");
  await message.client.query("INSERT INTO packed (text) VALUES ($1)", [message.text()]);
});
await peer.start();
console.log("running");
