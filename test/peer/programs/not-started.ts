/**
 * Peers in a process of their own, of which only "forgotten" should have been started. The database is that of
 * HAWSER_DATABASE_URL.
 */
import { Peer } from "../../../src/jobs-and-peers/peer/index.js";

const handled = async (name: string): Promise<Peer> => {
  const peer = new Peer({ name });
  await peer.handle("a", () => undefined);
  return peer;
};

await handled("forgotten");
const started = await handled("started");
await started.start();
await started.stop();
const failed = new Peer({ name: "failed", listen: "no address" });
await failed.handle("a", () => undefined);
await failed.start().catch(() => undefined);
await (await handled("stopped")).stop();
void new Peer({ name: "without-handlers" });
console.log("done");
