/**
 * One sends to a topic that three share, and each message goes to one of them, in turn.
 *
 *     server-1 ── send ──▶ topic "clients" ──▶ client-1, client-2 or client-3        10 × 100 B a cycle
 *
 * Of the 100 messages the first in turn receives 34, the others 33 each.
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
  await cycles(() => Promise.all(Array.from({ length: 10 }, () => peer.send("clients", message))));
  await allTaken(peer);
  await everybody("is done");
}

export const parts = { "client-1": client, "client-2": client, "client-3": client, "server-1": server };
