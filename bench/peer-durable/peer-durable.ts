/**
 * The suite `peer-durable`: what it costs that nothing is lost. At least once beside at most once, in the same pair of
 * processes, and beside publishing to a JetStream stream.
 */
import { withServers } from "../bench-servers.js";
import { measureWays } from "../peer-live/measure-ways.js";
import { ProcessPair } from "../peer-live/process-pair.js";
import type { WayName } from "../peer-live/ways.js";
import type { Suite, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import type { JetStreamRequests } from "./jetstream-process.js";

const ways: readonly WayName[] = ["at-least-once", "at-most-once"];

const page: SuitePage = {
  title: "At least once: what it costs, and JetStream",
  text: `The same two processes as above. An at-least-once message counts when the listener's handler is done *and* that is
committed in Postgres (fsync on). 8,192 messages are under way at a time, fewer than the default of
\`maxSendQueueMessages\` allows.

- \`jetstream\` publishes to a stream with file storage on a local nats-server, 1,000 publishes under way at a time, and
  counts a message as soon as the server has acknowledged it. Nobody consumes it: a consumer would come on top. As
  configured by default JetStream leaves it to the system when the file reaches the disk; Postgres waits for that. Both
  make the comparison harder for Hawser.`,
  charts: [{ title: "At least once", results: ["at-least-once"], scale: "logarithmic" }],
};

/** The suite. */
export const peerDurable: Suite = {
  name: "peer-durable",
  summary: "messages/s at least once, beside JetStream with 1,000 publishes in flight and beside at most once",
  seconds: 40,
  page,
  targets: [
    { name: "at-least-once", payloadBytes: 100, baseline: "jetstream", atLeast: 20 },
    { name: "at-least-once", payloadBytes: 100, baseline: "at-most-once", atLeast: 0.5 },
    { name: "at-least-once", payloadBytes: 1024, baseline: "at-most-once", atLeast: 0.5 },
  ],
  run: (context) =>
    withServers(context, async (servers) => {
      context.say("Starting the sending, the receiving and the publishing process");
      const pair = await ProcessPair.start(servers, ways);
      const publisher = Worker.start<JetStreamRequests>(
        "publishing",
        new URL("./jetstream-process.ts", import.meta.url),
      );
      try {
        await publisher.request("open", servers.natsUrl);
        return await measureWays(context, pair, {
          ways,
          others: (payloadBytes) => [
            { name: "jetstream", run: (messages) => publisher.request("publish", { payloadBytes, messages }) },
          ],
          results: [{ name: "at-least-once", baselines: ["jetstream", "at-most-once"] }],
        });
      } finally {
        await publisher.stop();
        await pair.stop();
      }
    }),
};
