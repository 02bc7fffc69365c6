/**
 * Operations under which their connection ends.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { expect, inject } from "vitest";
import { HawserError } from "../../../src/foundation/errors/index.js";
import type { KeyValue } from "../../../src/nats/connections/operations/key-value.js";
import type { NatsOperations } from "../../../src/nats/connections/operations/nats-operations.js";
import type { ObjectStores } from "../../../src/nats/connections/operations/object-store.js";
import type { StreamManagement } from "../../../src/nats/connections/operations/stream-management.js";
import { atDepth } from "../../support/depth.js";
import { bytesOf, operationsOf, timeoutMs } from "./operations-of.js";

const rounds = Math.max(24, atDepth(120));
const reading = { timeoutMs, maxBytes: 1024 * 1024 };
/** The server is shared, and other processes may try the same. */
const own = `operations_lost_${process.pid}`;
const store = `${own}_files`;
const bucket = `${own}_values`;
const made = `${own}_made`;
const subject = `${own}.subject`;
const unanswered = `${own}.unanswered`;
const content = bytesOf(400_000);

/** Operations that wait for an answer. */
type Waiting =
  | Exclude<
      keyof NatsOperations,
      | "connection"
      | "keyValue"
      | "objectStores"
      | "streams"
      | "streamManagement"
      | "publish"
      | "publishBatch"
      | "publishSoon"
      | "serverInfo"
    >
  | `keyValue.${keyof KeyValue}`
  | `objectStores.${keyof ObjectStores}`
  | `streams.${keyof NatsOperations["streams"]}`
  | `streamManagement.${keyof StreamManagement}`;

let created = 0;

/** Each operation that may be under way when a connection ends, and whether it changes something. */
const calls: { readonly [Name in Waiting]: readonly [changes: boolean, (used: NatsOperations) => Promise<unknown>] } = {
  flush: [true, (used) => used.flush({ timeoutMs })],
  request: [true, (used) => used.request(unanswered, bytesOf(1), { timeoutMs })],
  "streams.publish": [true, ({ streams }) => streams.publish(subject, bytesOf(1), { messageId: "m", timeoutMs })],
  "streams.publishOnce": [
    true,
    ({ streams }) => streams.publishOnce(subject, bytesOf(1), { messageId: "o", timeoutMs }),
  ],
  "streams.publishBatch": [
    true,
    ({ streams }) => streams.publishBatch(subject, [bytesOf(1), bytesOf(2)], { messageId: "b", timeoutMs }),
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
  "streamManagement.create": [
    true,
    ({ streamManagement }) => streamManagement.create(made, { subjects: [made] }, { timeoutMs }),
  ],
  "streamManagement.update": [
    true,
    ({ streamManagement }) => streamManagement.update(own, { maxMessages: 0n }, { timeoutMs }),
  ],
  "streamManagement.delete": [true, ({ streamManagement }) => streamManagement.delete(made, { timeoutMs })],
  "streamManagement.list": [false, ({ streamManagement }) => streamManagement.list({ timeoutMs })],
};

/** Answers of NATS before the connection closed. */
const answers: readonly string[] = ["key_exists", "wrong_revision"];

/** Names of the operations. */
export const operationNames = Object.keys(calls) as (keyof typeof calls)[];

/**
 * The operation settles when the connection is closed or drained under it, at whatever moment, and no rejection is unhandled.
 */
export async function expectToSettle(name: keyof typeof calls): Promise<void> {
  const [changes, call] = calls[name];
  const unhandled: unknown[] = [];
  const listener = (reason: unknown) => unhandled.push(reason);
  process.on("unhandledRejection", listener);
  try {
    await using before = await operationsOf(inject("natsUrl"));
    await before.operations.objectStores.put(store, "f", content, { timeoutMs });
    await (await jetstreamManager(before.stock)).streams.add({ name: own, subjects: [subject] });
    before.stock.subscribe(unanswered, { callback: () => undefined });
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
    expect(failures.filter((code) => code !== "nats_unavailable" && !(changes && code === "outcome_unknown"))).toEqual(
      [],
    );
    expect(failures.includes("outcome_unknown")).toBe(changes);
    // Rejections count as unhandled at the end of the turn in which they came up.
    await nextTurn();
    expect(unhandled).toEqual([]);
  } finally {
    process.off("unhandledRejection", listener);
  }
}
