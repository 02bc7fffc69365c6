/**
 * The suite `peer-live`: messages from one process to another over a live connection, against a hand-written socket and
 * against NATS. Three processes take part: this one only gives orders.
 */
import { withServers } from "../bench-servers.js";
import type { Suite, SuitePage } from "../suite.js";
import { measureWays } from "./measure-ways.js";
import { ProcessPair } from "./process-pair.js";

const page: SuitePage = {
  title: "Messages from one process to another",
  text: `One peer sends to another as fast as the other takes it, over loopback. The time of a run is from the first send
until the last message has been handled and every promise has settled.

- \`tcp\` is what one would write by hand with a socket and nothing else: a length before each message, gathered in
  blocks. The receiver only counts. It is the ceiling.
- \`nats-core\` is publish and subscribe of nats.js through a local nats-server: one hop more, no guarantee.
- At least once a message counts only when the listener's handler is done and that is committed in Postgres.`,
  charts: [
    { title: "At most once", results: ["at-most-once"], scale: "logarithmic" },
    { title: "At least once", results: ["at-least-once"], scale: "logarithmic" },
  ],
};

/** The suite. */
export const peerLive: Suite = {
  name: "peer-live",
  summary: "messages/s from one process to another, at most once and at least once, beside plain TCP and NATS",
  seconds: 40,
  page,
  targets: [
    { name: "at-most-once", payloadBytes: 100, baseline: "nats-core", atLeast: 3 },
    { name: "at-most-once", payloadBytes: 1024, baseline: "nats-core", atLeast: 3 },
  ],
  run: (context) =>
    withServers(context, async (servers) => {
      context.say("Starting the sending and the receiving process");
      const pair = await ProcessPair.start(servers, ["at-most-once", "at-least-once", "tcp", "nats-core"]);
      try {
        return await measureWays(context, pair, {
          ways: ["at-most-once", "at-least-once", "tcp", "nats-core"],
          results: [
            { name: "at-most-once", baselines: ["tcp", "nats-core"] },
            { name: "at-least-once", baselines: ["tcp", "nats-core", "at-most-once"] },
          ],
        });
      } finally {
        await pair.stop();
      }
    }),
};
