/**
 * One sends to one: 1,000 small messages a cycle. The receiver says when a cycle's last has come.
 *
 *     client-1 ── send ──▶ topic "client-2" ──▶ client-2        1,000 a cycle
 */
import { Peer } from "../src/jobs-and-peers/peer/index.js";
import { allTaken, type Participant } from "./processes/participant.js";

const messagesPerCycle = 1_000;

async function sender({ name, databaseUrl, everybody, cycles }: Participant): Promise<void> {
  await using peer = new Peer({ name, topic: "client-1", databaseUrl });
  await peer.clearStored();
  await peer.clearAddresses();
  await everybody("has cleared");

  await peer.start();
  await everybody("runs");

  const message = Buffer.alloc(10, "x");
  await cycles(() => Promise.all(Array.from({ length: messagesPerCycle }, () => peer.send("client-2", message))));
  await allTaken(peer);
  await everybody("is done");
}

async function receiver({ name, databaseUrl, everybody, say }: Participant): Promise<void> {
  await using peer = new Peer({ name, topic: "client-2", databaseUrl });
  await peer.clearStored();
  await peer.clearAddresses();
  await everybody("has cleared");

  let received = 0;
  await peer.handle("client-2", () => {
    received += 1;
    if (received % messagesPerCycle === 0) say(`cycle ${received / messagesPerCycle}: received ${messagesPerCycle}`);
  });
  await peer.start();
  await everybody("runs");

  await everybody("is done");
  say(`received ${received}`);
}

export const parts = { "client-1": sender, "client-2": receiver };
