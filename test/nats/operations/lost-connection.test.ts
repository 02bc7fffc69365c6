import { setImmediate as nextTurn } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { expect, inject, it } from "vitest";
import { HawserError } from "../../../src/errors/index.js";
import type { KeyValue } from "../../../src/nats/operations/key-value.js";
import type { NatsOperations } from "../../../src/nats/operations/nats-operations.js";
import type { ObjectStores } from "../../../src/nats/operations/object-store.js";
import { atDepth } from "../../support/depth.js";
import { bytesOf, operationsOf, timeoutMs } from "./operations-of.js";

const rounds = Math.max(24, atDepth(120));
const reading = { timeoutMs, maxBytes: 1024 * 1024 };
const store = "operations_lost_files";
const bucket = "operations_lost_values";
const content = bytesOf(400_000);

/** All that wait for an answer. */
type Waiting =
  | Exclude<
      keyof NatsOperations,
      "connection" | "keyValue" | "objectStores" | "streams" | "publish" | "publishBatch" | "serverInfo"
    >
  | `keyValue.${keyof KeyValue}`
  | `objectStores.${keyof ObjectStores}`
  | `streams.${keyof NatsOperations["streams"]}`;

let created = 0;

/** Each operation that may be under way when a connection ends, and whether it changes something. */
const calls: { readonly [Name in Waiting]: readonly [changes: boolean, (used: NatsOperations) => Promise<unknown>] } = {
  flush: [true, (used) => used.flush({ timeoutMs })],
  request: [true, (used) => used.request("operations.lost.nobody.answers", bytesOf(1), { timeoutMs })],
  "streams.publish": [
    true,
    ({ streams }) => streams.publish("operations.lost", bytesOf(1), { messageId: "m", timeoutMs }),
  ],
  "streams.publishBatch": [
    true,
    ({ streams }) => streams.publishBatch("operations.lost", [bytesOf(1), bytesOf(2)], { messageId: "b", timeoutMs }),
  ],
  "keyValue.put": [true, ({ keyValue }) => keyValue.put(bucket, "k", bytesOf(1), { timeoutMs })],
  "keyValue.create": [true, ({ keyValue }) => keyValue.create(bucket, `c${created++}`, bytesOf(1), { timeoutMs })],
  "keyValue.update": [true, ({ keyValue }) => keyValue.update(bucket, "k", bytesOf(1), 1n, { timeoutMs })],
  "keyValue.delete": [true, ({ keyValue }) => keyValue.delete(bucket, "k", { timeoutMs })],
  "keyValue.get": [false, ({ keyValue }) => keyValue.get(bucket, "k", { timeoutMs })],
  "keyValue.keys": [false, ({ keyValue }) => keyValue.keys(bucket, reading)],
  "keyValue.history": [false, ({ keyValue }) => keyValue.history(bucket, "k", reading)],
  "objectStores.put": [true, ({ objectStores }) => objectStores.put(store, "g", content, { timeoutMs })],
  "objectStores.delete": [true, ({ objectStores }) => objectStores.delete(store, "g", { timeoutMs })],
  "objectStores.get": [false, ({ objectStores }) => objectStores.get(store, "f", reading)],
  "objectStores.info": [false, ({ objectStores }) => objectStores.info(store, "f", { timeoutMs })],
  "objectStores.list": [false, ({ objectStores }) => objectStores.list(store, reading)],
};

/** What NATS has answered, before the connection ended. */
const answers: readonly string[] = ["key_exists", "wrong_revision"];

it.each(Object.entries(calls))(
  "%s settles when the connection is closed or drained under it, and no rejection is unhandled",
  async (_name, [changes, call]) => {
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
      await before.operations.keyValue.put(bucket, "k", bytesOf(1), { timeoutMs });
      const failures: string[] = [];
      for (let round = 0; round < rounds; round++) {
        await using used = await operationsOf(inject("natsUrl"));
        const settled = Promise.allSettled([1, 2, 3].map(() => call(used.operations)));
        for (let turn = 0; turn < round % 24; turn++) await nextTurn();
        await (round % 2 === 0 ? used.connection.drain() : used.connection.close());
        for (const outcome of await settled) {
          if (outcome.status === "fulfilled") continue;
          expect(outcome.reason instanceof HawserError).toBe(true);
          if (!answers.includes(outcome.reason.code)) failures.push(outcome.reason.code);
        }
      }
      expect(failures.length).toBeGreaterThan(rounds / 12);
      expect(
        failures.filter((code) => code !== "nats_unavailable" && !(changes && code === "outcome_unknown")),
      ).toEqual([]);
      expect(failures.includes("outcome_unknown")).toBe(changes);
      // Rejections count as unhandled at the end of the turn in which they came up.
      await nextTurn();
      expect(unhandled).toEqual([]);
    } finally {
      process.off("unhandledRejection", listener);
    }
  },
);
