/**
 * A peer that only sends: one payment, at least once, and it is gone. Whether billing runs is no concern of it.
 */
import { Peer } from "../../src/peer/index.js";

await using peer = new Peer({
  name: "shop-1",
  topic: "shop",
  listen: "127.0.0.1:0",
});

await peer.start();
const payment = "payment of 180.00 for order 1";
const { outcome } = await peer.send("billing", payment);
console.log(`sent "${payment}": ${outcome}`);
