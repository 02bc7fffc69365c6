/**
 * Hawser: jobs are messages without a key that are enqueued for a topic, and workers are transactional listeners of it; of
 * several processes, members of a group.
 */
import { newPeer } from "../peers.js";
import { execute } from "../postgres.js";
import { measuredModule } from "../worker.js";
import { concurrency, effectOf, insertEffect, type Library, processCounts } from "./system.js";

const measured = await measuredModule<typeof import("../../src/jobs-and-peers/peer/index.js")>(
  "src/jobs-and-peers/peer/index.ts",
);

/** How long the history of a topic is kept, where it is. */
const keepMs = 3_600_000;

export const hawser = hawserOn((processes) => `bench-jobs-${processes}`);
export const hawserWithHistory = hawserOn((processes) => `bench-kept-jobs-${processes}`, keepMs);

/** @param historyMs how long the topics keep their history; undefined: they do not */
function hawserOn(topicFor: (processes: number) => string, historyMs?: number): Library {
  return {
    async openEnqueuing(databaseUrl) {
      // A peer that runs makes the tables.
      await using peer = newPeer("bench-enqueuing", databaseUrl);
      await peer.start();
      for (const processes of historyMs === undefined ? [] : processCounts)
        await execute(databaseUrl, `SELECT hawser.keep_results('${topicFor(processes)}', ${historyMs})`);
      return {
        to(processes) {
          const topic = topicFor(processes);
          return {
            one: (client, payload) => measured.enqueue(client, topic, payload),
            many: (client, payloads) =>
              client.query({
                name: "bench.enqueue_jobs",
                text: "SELECT hawser.enqueue_batch($1, $2::text[])",
                values: [topic, payloads],
              }),
          };
        },
        async clear() {
          await execute(databaseUrl, "TRUNCATE hawser_data.results");
        },
        close: async () => undefined,
      };
    },

    async openWorking(databaseUrl, number) {
      let peer: ReturnType<typeof newPeer> | undefined;
      return {
        async start({ processes }) {
          peer = newPeer(`${topicFor(processes)}-${number}`, databaseUrl, {
            topic: topicFor(processes),
            concurrency,
            // Hawser reserves one connection beyond those of the handlers.
            poolSize: concurrency + 1,
          });
          await peer.handle(peer.topic, { transactional: true, group: processes > 1 }, async ({ payload, client }) => {
            await client.query(insertEffect, effectOf(Buffer.from(payload).toString()));
          });
          await peer.start();
        },
        async rest() {
          await peer?.stop();
          peer = undefined;
        },
      };
    },
  };
}
