/**
 * Two send to a topic that three share, and each message goes to all of them.
 *
 *     server-1, server-2 ── sendAll ──▶ topic "clients" ──▶ client-1, client-2 and client-3        10 × 100 B a cycle each
 *
 * Each of the three receives 100 from either server.
 */
import { Peer } from "../src/jobs-and-peers/peer/index.js";
import { allTaken, type Participant } from "./processes/participant.js";

async function client({ name, databaseUrl, everybody, say }: Participant): Promise<void> {
  await using peer = new Peer({ name, topic: "clients", databaseUrl });
  await peer.clearStored();
  await peer.clearAddresses();
  await everybody("has cleared");

  const received: Record<string, number> = { "server-1": 0, "server-2": 0 };
  await peer.handle("clients", ({ sender = "" }) => {
    received[sender] = (received[sender] ?? 0) + 1;
  });
  await peer.start();
  await everybody("runs");

  await everybody("is done");
  const sum = Object.values(received).reduce((one, other) => one + other);
  const bySender = Object.entries(received).map(([sender, count]) => `${count} from ${sender}`);
  say(`received ${sum}: ${bySender.join(", ")}`);
}

async function server({ name, databaseUrl, everybody, cycles }: Participant): Promise<void> {
  await using peer = new Peer({ name, topic: name, databaseUrl });
  await peer.clearStored();
  await peer.clearAddresses();
  await everybody("has cleared");

  await peer.start();
  await everybody("runs");

  const message = Buffer.alloc(100, "x");
  await cycles(async () => {
    const receipts = await Promise.all(Array.from({ length: 10 }, () => peer.sendAll("clients", message)));
    for (const receipt of receipts.flat()) if ("error" in receipt) throw receipt.error;
  });
  await allTaken(peer);
  await everybody("is done");
}

export const parts = {
  "client-1": client,
  "client-2": client,
  "client-3": client,
  "server-1": server,
  "server-2": server,
};
