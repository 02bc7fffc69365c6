import { setImmediate as nextTurn } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { expect, inject, it } from "vitest";
import { HawserError } from "../../../src/errors/index.js";
import { atDepth } from "../../support/depth.js";
import { bytesOf, type Operations, operationsOf, timeoutMs } from "./operations-of.js";

const rounds = Math.max(24, atDepth(120));
const reading = { timeoutMs, maxBytes: 1024 * 1024 };
const store = "operations_lost_files";
const bucket = "operations_lost_values";
const content = bytesOf(400_000);

/** What may be under way when a connection ends, and how it may fail then. */
const calls: Readonly<Record<string, readonly [codes: RegExp, (used: Operations) => Promise<unknown>]>> = {
  "reads of a file": [/^nats_unavailable$/, ({ operations }) => operations.objectStores.get(store, "f", reading)],
  "lists of a store": [/^nats_unavailable$/, ({ operations }) => operations.objectStores.list(store, reading)],
  "puts of a file": [
    /^(nats_unavailable|outcome_unknown)$/,
    ({ operations }) => operations.objectStores.put(store, "g", content, { timeoutMs }),
  ],
  "deletes of a file": [
    /^(nats_unavailable|outcome_unknown)$/,
    ({ operations }) => operations.objectStores.delete(store, "g", { timeoutMs }),
  ],
  "puts of a value": [
    /^(nats_unavailable|outcome_unknown)$/,
    ({ operations }) => operations.keyValue.put(bucket, "k", bytesOf(1), { timeoutMs }),
  ],
  "reads of a value": [/^nats_unavailable$/, ({ operations }) => operations.keyValue.get(bucket, "k", { timeoutMs })],
  "publishes into a stream": [
    /^(nats_unavailable|outcome_unknown)$/,
    ({ operations }) => operations.publishStream("operations.lost", bytesOf(1), { messageId: "m", timeoutMs }),
  ],
  requests: [
    /^(nats_unavailable|outcome_unknown)$/,
    ({ operations }) => operations.request("operations.lost.nobody.answers", bytesOf(1), { timeoutMs }),
  ],
};

it.each(Object.entries(calls))(
  "%s settle when the connection is closed or drained under them, and no rejection is unhandled",
  async (_name, [codes, call]) => {
    const unhandled: unknown[] = [];
    const listener = (reason: unknown) => unhandled.push(reason);
    process.on("unhandledRejection", listener);
    try {
      await using before = await operationsOf(inject("natsUrl"));
      await before.operations.objectStores.put(store, "f", content, { timeoutMs });
      await (await jetstreamManager(before.stock)).streams.add({
        name: "operations_lost",
        subjects: ["operations.lost"],
      });
      before.stock.subscribe("operations.lost.nobody.answers", { callback: () => undefined });
      await before.stock.flush();
      let failed = 0;
      for (let round = 0; round < rounds; round++) {
        await using used = await operationsOf(inject("natsUrl"));
        const settled = Promise.allSettled([call(used), call(used), call(used)]);
        for (let turn = 0; turn < round % 24; turn++) await nextTurn();
        await (round % 2 === 0 ? used.connection.drain() : used.connection.close());
        for (const outcome of await settled) {
          if (outcome.status === "fulfilled") continue;
          failed++;
          expect(HawserError.is(outcome.reason)).toBe(true);
          expect(outcome.reason.code).toMatch(codes);
        }
      }
      expect(failed).toBeGreaterThan(rounds / 12);
      // Rejections count as unhandled at the end of the turn in which they came up.
      await nextTurn();
      expect(unhandled).toEqual([]);
    } finally {
      process.off("unhandledRejection", listener);
    }
  },
);
