/**
 * Three clients, each with a topic of its own, handle one more topic, which they share. The server sends to each
 * client's own topic and to the shared one, whose messages go to one of them, in turn.
 *
 *     server-1 ── send ──▶ topic "client-1" ──▶ client-1
 *              ── send ──▶ topic "client-2" ──▶ client-2
 *              ── send ──▶ topic "client-3" ──▶ client-3
 *              ── send ──▶ topic "work"     ──▶ client-1, client-2 or client-3        10 × 100 B a cycle to each topic
 *
 * Each client receives 100 of its own; of the 100 shared ones the first in turn receives 34, the others 33 each.
 */
import { Peer } from "../src/jobs-and-peers/peer/index.js";
import { allTaken, type Participant } from "./processes/participant.js";

const sharedTopic = "work";

async function consumer({ name, databaseUrl, everybody, say }: Participant): Promise<void> {
  await using peer = new Peer({ name, topic: name, databaseUrl });
  await peer.clearStored();
  await peer.clearAddresses();
  await everybody("has cleared");

  let own = 0;
  let shared = 0;
  await peer.handle(name, () => {
    own += 1;
  });
  await peer.handle(sharedTopic, () => {
    shared += 1;
  });
  await peer.start();
  await everybody("runs");

  await everybody("is done");
  say(`received ${own} of its own, ${shared} of the shared ones`);
}

async function producer({ name, databaseUrl, everybody, cycles }: Participant): Promise<void> {
  await using peer = new Peer({ name, topic: "server-1", databaseUrl });
  await peer.clearStored();
  await peer.clearAddresses();
  await everybody("has cleared");

  await peer.start();
  await everybody("runs");

  const message = Buffer.alloc(100, "x");
  const topics = ["client-1", "client-2", "client-3", sharedTopic];
  await cycles(async () => {
    const round = () => topics.map((topic) => peer.send(topic, message));
    await Promise.all(Array.from({ length: 10 }, round).flat());
  });
  await allTaken(peer);
  await everybody("is done");
}

export const parts = { "client-1": consumer, "client-2": consumer, "client-3": consumer, "server-1": producer };
