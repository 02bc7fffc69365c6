/**
 * Reads of the relays for NATS in random histories; see `support/nats-reading.ts`. HAWSER_FAULT_SEED sets the first
 * seed.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { NatsReading } from "./support/nats-reading.js";

let database: TestDatabase;
let histories: NatsReading;
beforeAll(async () => {
  database = await testDatabase();
  histories = new NatsReading(database.url);
  await histories.open();
});
afterAll(async () => {
  await histories?.[Symbol.asyncDispose]();
  await database?.drop();
});

const first = Number(process.env["HAWSER_FAULT_SEED"] ?? 1);

it("reads committed messages in the order of each lane, and knows the unfinished ones", {
  timeout: 600_000,
}, async () => {
  for (let seed = first; seed < first + atDepth(50); seed++) {
    await histories.run(seed).catch((cause) => expect.unreachable(`seed ${seed}: ${cause.message}`));
  }
});
