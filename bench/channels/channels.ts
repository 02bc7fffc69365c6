/**
 * The suite `channels`: one listener and many senders.
 */
import { orderOf } from "../measure.js";
import { formatValue } from "../report.js";
import { type BenchServers, createDatabase, withServers } from "../servers.js";
import {
  BenchFailure,
  type Measured,
  type Suite,
  type SuiteContext,
  type SuiteOutcome,
  type SuitePage,
} from "../suite.js";
import { Worker } from "../worker.js";
import type { ChannelRequests } from "./process.js";

const payloadBytes = 100;
/** The same amount for all, and enough for 1,000 channels to get under way: with a few messages each, few is all one sees. */
const full = { counts: [1, 10, 100, 1000], passes: 2, rounds: 3, messages: 1_000_000, warmUp: 300_000 };
const quick = { counts: [1, 5], passes: 1, rounds: 1, messages: 1_000, warmUp: 100 };

/** Results that are derived from the {@link MeshCost} of each run. */
const readings: readonly {
  readonly name: string;
  readonly unit: string;
  readonly better: Measured["better"];
  /** Reported without a comparison with a single channel, which would mean little. */
  readonly alone?: true;
  read(cost: MeshCost): number;
}[] = [
  { name: "throughput", unit: "messages/s", better: "higher", read: ({ messages, seconds }) => messages / seconds },
  {
    name: "listener statements",
    unit: "per 1,000 messages",
    better: "lower",
    read: ({ listenerStatements, messages }) => (listenerStatements / messages) * 1000,
  },
  {
    name: "sender statements",
    unit: "per 1,000 messages",
    better: "lower",
    alone: true,
    read: ({ senderStatements, messages }) => (senderStatements / messages) * 1000,
  },
  { name: "listener RSS", unit: "MiB", better: "lower", read: ({ rss }) => rss / 2 ** 20 },
  { name: "listener heap", unit: "MiB", better: "lower", read: ({ heap }) => heap / 2 ** 20 },
];

/** Label of a number of channels, such as `100 channels`. */
export const channelsOf = (channels: number): string =>
  `${formatValue(channels)} ${channels === 1 ? "channel" : "channels"}`;

const page: SuitePage = {
  title: "Many senders, one listener",
  text: `1 to 1,000 senders, each a peer with a name and a connection of its own, send at least once, 100 bytes a message, to
one listener. The senders live in two processes, whose peers share their connections to Postgres. Each run is a million
messages, at most 262,144 of them under way altogether, and 8,192 on one channel. Each number of channels gets new
processes and an empty database, twice. What the others are compared with is a single channel.

- **Statements** are counted where they are sent: every query of every Postgres client in the process. (The server's
  \`pg_stat_statements\`, where it was looked at, counted the same.) Those of the *listener* are what messages cost:
  cursors are committed in groups, one statement for all channels. Those of the *senders* are what 1,000 peers ask every
  few seconds, because notifications can be missed, and their leases; they depend on the time, not on the messages.
- **RSS** is the greatest that was seen of the whole process, with Node and its loader for TypeScript; **heap** is what
  JavaScript objects of that use.`,
  charts: [
    { title: "Throughput", results: ["throughput"] },
    { title: "The listener's memory (RSS)", results: ["listener RSS"] },
  ],
};

/** The suite. */
export const channels: Suite = {
  name: "channels",
  summary: "messages/s, memory and SQL statements of a listener with 1 to 1,000 senders",
  seconds: 150,
  page,
  targets: [
    { name: "listener RSS", payloadBytes, variant: channelsOf(1000), atMost: 400 },
    ...[10, 100, 1000].map((count) => ({
      name: "listener statements",
      payloadBytes,
      variant: channelsOf(count),
      baseline: channelsOf(1),
      atMost: 1,
    })),
  ],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const { counts, passes: fullPasses } = context.quick ? quick : full;
  const passes = context.rounds(fullPasses);
  const costs = new Map<number, MeshCost[]>(counts.map((count) => [count, []]));
  for (let pass = 0; pass < passes; pass++) {
    for (const count of orderOf(counts, pass)) {
      context.say(`Measuring ${channelsOf(count)}, pass ${pass + 1} of ${passes}`);
      costs.get(count)!.push(...(await costsOf(context, servers, count)));
    }
  }
  const [one] = counts;
  const results = readings.flatMap(({ name, unit, better, alone, read }) =>
    counts.map(
      (count): Measured => ({
        name,
        payloadBytes,
        variant: channelsOf(count),
        unit,
        better,
        samples: costs.get(count)!.map(read),
        baselines: count === one || alone ? [] : [{ name: channelsOf(one!), samples: costs.get(one!)!.map(read) }],
      }),
    ),
  );
  return { results, notes: counts.map((count) => noteOf(count, costs.get(count)!)) };
}

/** Measures meshes of `count` channels. @returns the cost of each run */
async function costsOf(context: SuiteContext, servers: BenchServers, count: number): Promise<MeshCost[]> {
  const { rounds, messages, warmUp } = context.quick ? quick : full;
  const database = await createDatabase(servers, context);
  let mesh: ChannelMesh | undefined;
  try {
    mesh = await ChannelMesh.start(database.url, count, context);
    await mesh.send(warmUp, payloadBytes);
    const costs: MeshCost[] = [];
    for (let round = 0; round < context.rounds(rounds); round++) {
      context.signal.throwIfAborted();
      costs.push(await mesh.send(messages, payloadBytes));
    }
    return costs;
  } finally {
    await mesh?.stop();
    await database.drop();
  }
}

/** A stored message went through Postgres as well: then the numbers say something else. */
function noteOf(count: number, costs: readonly MeshCost[]): string {
  const messages = costs.reduce((sum, cost) => sum + cost.messages, 0);
  const stored = costs.reduce((sum, cost) => sum + cost.stored, 0);
  return `${channelsOf(count)}: of ${formatValue(messages)} messages ${formatValue(stored)} were confirmed as stored`;
}

const listener = "bench-listener";

/** Processes for the senders: as many as there are, up to so many. */
const maxSendingProcesses = 2;

/** Messages unconfirmed at a time, altogether and on one channel: less than a sender's default limits allow. */
const inFlightAltogether = 262_144;
const inFlightOfChannel = 8_192;
const minInFlightOfChannel = 32;

/** Time that the listener waits for the remaining messages after the last send. */
const arrivalTimeoutMs = 10_000;

/** Cost of one load on a mesh, for the listener and the senders. */
export interface MeshCost {
  readonly seconds: number;
  readonly messages: number;
  readonly listenerStatements: number;
  readonly senderStatements: number;
  readonly listenerCpuSeconds: number;
  readonly senderCpuSeconds: number;
  /** Bytes. */
  readonly rss: number;
  readonly heap: number;
  readonly stored: number;
}

/** A listener and so many senders, in processes of their own, on a database of their own. */
export class ChannelMesh {
  readonly #channels: number;
  readonly #listening: Worker<ChannelRequests>;
  readonly #sending: readonly Worker<ChannelRequests>[];

  private constructor(
    channels: number,
    listening: Worker<ChannelRequests>,
    sending: readonly Worker<ChannelRequests>[],
  ) {
    this.#channels = channels;
    this.#listening = listening;
    this.#sending = sending;
  }

  /** Starts it; all channels are live then. Nothing is left behind when it fails. */
  static async start(databaseUrl: string, channels: number, context: SuiteContext): Promise<ChannelMesh> {
    const { source, signal } = context;
    const start = (name: string) =>
      Worker.start<ChannelRequests>(name, new URL("./process.ts", import.meta.url), { source, signal });
    const listening = start("listening");
    const sending = Array.from({ length: Math.min(channels, maxSendingProcesses) }, () => start("sending"));
    const mesh = new ChannelMesh(channels, listening, sending);
    try {
      await listening.request("listen", { databaseUrl, listener });
      await mesh.#openSenders(databaseUrl);
      return mesh;
    } catch (error) {
      await mesh.stop();
      throw error;
    }
  }

  /** Sends about so many messages, as many on each channel. @throws BenchFailure if not all of them arrive */
  async send(about: number, payloadBytes: number): Promise<MeshCost> {
    const perChannel = Math.max(1, Math.round(about / this.#channels));
    const messages = perChannel * this.#channels;
    const inFlight = Math.max(
      minInFlightOfChannel,
      Math.min(inFlightOfChannel, Math.floor(inFlightAltogether / this.#channels)),
    );
    await this.#listening.request("expect", messages);
    const sent = await Promise.all(
      this.#sending.map((each) => each.request("send", { payloadBytes, messages: perChannel, inFlight })),
    );
    const arrived = await this.#listening.request("arrived", arrivalTimeoutMs);
    if (arrived.completeMs === undefined) {
      throw new BenchFailure(`${this.#channels} channels: ${arrived.messages} of ${messages} messages have arrived`);
    }
    const beganMs = Math.min(...sent.map((each) => each.beganMs));
    const doneMs = Math.max(arrived.completeMs, ...sent.map((each) => each.doneMs));
    return {
      seconds: (doneMs - beganMs) / 1000,
      messages,
      listenerStatements: arrived.statements,
      senderStatements: sent.reduce((sum, { statements }) => sum + statements, 0),
      listenerCpuSeconds: arrived.cpuSeconds,
      senderCpuSeconds: sent.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0),
      rss: arrived.rss,
      heap: arrived.heap,
      stored: sent.reduce((sum, { stored }) => sum + stored, 0),
    };
  }

  /** Ends all processes, the senders first. */
  async stop(): Promise<void> {
    await Promise.all(this.#sending.map((each) => each.stop()));
    await this.#listening.stop();
  }

  async #openSenders(databaseUrl: string): Promise<void> {
    const each = Math.ceil(this.#channels / this.#sending.length);
    await Promise.all(
      this.#sending.map((process, index) => {
        const first = index * each;
        const count = Math.min(each, this.#channels - first);
        return process.request("connect", { databaseUrl, listener, first, count });
      }),
    );
  }
}
