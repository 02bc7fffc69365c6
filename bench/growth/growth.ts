/**
 * The suite `growth`: what a message costs as more and more of everything is there.
 */
import { channelsOf } from "../channels/channels.js";
import { type BenchServers, withServers } from "../servers.js";
import type { Suite, SuiteContext, SuiteOutcome, SuitePage, Target } from "../suite.js";
import { byChannels } from "./channels.js";
import { byPeers, peersOf, wantedConnections } from "./peers.js";
import { byStoredMessages, storedOf } from "./stored.js";
import { bySubscriptions, subscriptionsOf } from "./subscriptions.js";
import { byTopics, topicsOf } from "./topics.js";

const payloadBytes = 100;

/** Limit on the cost at the greatest size, as a multiple of the cost at the smallest one. */
const mostGrowth = 1.5;

const page: SuitePage = {
  title: "As work grows",
  text: `What a message of 100 bytes costs while more and more of something is there; each size beside the smallest one. **time** is
from the first send to the last receipt, divided by the messages; **CPU** is the processors' time of our own processes,
without Postgres and nats-server, which the time includes. **idle CPU** is what processes use that have nothing to do.

- **Channels**: so many senders, each a peer with a name and a connection of its own, in two processes, send to one
  listener. The same number of messages is under way at each size. What rises with the channels is the share of each
  message in what is done for many of one channel: a read of the socket, a frame, a turn of the handler, an Ack. With one
  channel thousands of messages share these, with 1,000 a few dozen, with 5,000 a few.
- **Topics**: one sender sends to so many topics of one listener, one after another. A frame is of one topic, so each message
  has its own, at every size. The idle CPU is the poll: every five seconds a sender reads the listeners of all its topics.
- **Peers**: so many use the database, and two more exchange messages. A tenth are real; the others are simulated: rows,
  channels, lease and notifications, in a session of their own each, and what an idle peer asks every five seconds.
  **store** is the time of messages that are stored because the listener is away; **start** is that of its start. Each start
  and each announcement is a NOTIFY, for which Postgres wakes every session of the database that listens.
- **Stored messages**: so many wait for a listener that is away, in rows of many. **store** is the time of 50,000 more; **drain**
  is the time until all are handled and deleted. What is deleted is in the index until a vacuum; commits do not read it.
- **Subscriptions**: so many SQL functions are subscribed with \`nats_subscribe\`; messages go to one of them, or *to all* in
  turn. Messages of one subscription share a transaction. With messages to all, each subscription has its own. The idle
  process reads all subscriptions every five seconds. **subscribe** is the time of one call of \`nats_subscribe\`.

**What is in the way.** Channels: some 260,000 messages are under way in all, so with 1,000 channels each has 262, in windows
of 32, and with 5,000 it has 52, in windows of 6. A frame, a system call on either side, an Ack and an entry in the commit's statement
are then for 6 messages instead of a thousand. Peers, **store**: what is stored is announced with a NOTIFY, which wakes each session
that listens; with 1,000 peers that is some 40 ms of both processors, whatever the number of messages, here spread over 20,000.
Stored messages, **store**: ten million are measured once, right after they were stored, while Postgres still writes them out;
two runs found 1.5 and 2.2 times. Subscriptions, **to all**: with 5,000 a transaction has one message, and mostly one that its session has not had before: Postgres
compiles and plans the wrapper and the function for each session.`,
  charts: [
    { title: "CPU by channels", results: ["listener CPU by channels"] },
    { title: "Drain by stored messages", results: ["drain by stored messages"] },
    { title: "CPU by subscriptions", results: ["CPU by subscriptions"] },
  ],
};

const flat = (name: string, variantOf: (size: number) => string, smallest: number, ...sizes: number[]): Target[] =>
  sizes.map((size) => ({
    name,
    payloadBytes,
    variant: variantOf(size),
    baseline: variantOf(smallest),
    atMost: mostGrowth,
  }));

/** The suite. */
export const growth: Suite = {
  name: "growth",
  summary: "µs a message with ever more channels, topics, peers, stored messages and subscriptions",
  seconds: 780,
  page,
  targets: [
    ...flat("listener CPU by channels", channelsOf, 1, 100, 1_000, 5_000),
    ...flat("CPU by topics", topicsOf, 10, 100, 1_000, 10_000),
    ...flat("CPU by peers", peersOf, 10, 100, 1_000),
    ...flat("store by peers", peersOf, 10, 100, 1_000),
    ...flat("store by stored messages", storedOf, 100_000, 1_000_000, 10_000_000),
    ...flat("drain by stored messages", storedOf, 100_000, 1_000_000, 10_000_000),
    ...flat("CPU by subscriptions", subscriptionsOf, 10, 100, 1_000, 5_000),
  ],
  run: (context) => withServers(context, (servers) => measure(context, servers), { maxConnections: wantedConnections }),
};

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const channels = await byChannels(context, servers, payloadBytes);
  const topics = await byTopics(context, servers, payloadBytes);
  const peers = await byPeers(context, servers, payloadBytes);
  const subscriptions = await bySubscriptions(context, servers, payloadBytes);
  // Last: how many there are depends on the time that is left.
  const stored = await byStoredMessages(context, servers, payloadBytes, context.endBy);
  return {
    results: [...channels, ...topics, ...peers.results, ...stored.results, ...subscriptions],
    notes: [peers.note, ...stored.notes],
  };
}
