/**
 * One sends to a topic that three share, and each message goes to all of them.
 *
 *     server-1 ── sendAll ──▶ topic "clients" ──▶ client-1, client-2 and client-3        10 × 100 B a cycle
 *
 * Each of the three receives all 100.
 */
import { Peer } from "../src/jobs-and-peers/peer/index.js";
import { allTaken, type Participant } from "./processes/participant.js";

async function client({ name, databaseUrl, everybody, say }: Participant): Promise<void> {
  await using peer = new Peer({ name, topic: "clients", databaseUrl });
  await peer.clearStored();
  await peer.clearAddresses();
  await everybody("has cleared");

  let received = 0;
  await peer.handle("clients", () => {
    received += 1;
  });
  await peer.start();
  await everybody("runs");

  await everybody("is done");
  say(`received ${received}`);
}

async function server({ name, databaseUrl, everybody, cycles }: Participant): Promise<void> {
  await using peer = new Peer({ name, topic: "server-1", databaseUrl });
  await peer.clearStored();
  await peer.clearAddresses();
  await everybody("has cleared");

  await peer.start();
  await everybody("runs");

  const message = Buffer.alloc(100, "x");
  await cycles(async () => {
    const receipts = await Promise.all(Array.from({ length: 10 }, () => peer.sendAll("clients", message)));
    // One receipt for each listener; what could not be sent to one of them does not keep it from the others.
    for (const receipt of receipts.flat()) if ("error" in receipt) throw receipt.error;
  });
  await allTaken(peer);
  await everybody("is done");
}

export const parts = { "client-1": client, "client-2": client, "client-3": client, "server-1": server };
