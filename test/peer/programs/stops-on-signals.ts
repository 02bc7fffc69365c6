/**
 * A peer in a process of its own that stops at a signal. The database is that of HAWSER_DATABASE_URL.
 */
import { Peer } from "../../../src/jobs-and-peers/peer/index.js";

const peer = new Peer({ name: "a-1", stopOnSignals: true });
await peer.handle("a", () => undefined);
await peer.start();
console.log("running");
await peer.closed;
console.log("closed");
