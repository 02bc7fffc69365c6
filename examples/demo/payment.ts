/**
 * A peer that only sends: one payment, at least once, and it is gone. Whether billing runs is no concern of it.
 */
import { Peer } from "../../src/jobs-and-peers/peer/index.js";

await using peer = new Peer({
  name: "shop-1",
  topic: "shop",
});

await peer.start();
const payment = "payment of 180.00 for order 1";
const { outcome } = await peer.send("billing", payment);
console.log(`sent "${payment}": ${outcome}`);
