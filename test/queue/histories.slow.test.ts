/** The queue in random histories; see `support/histories.ts`. HAWSER_FAULT_SEED says where the seeds begin. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { QueueHistories } from "./support/histories.js";

let database: TestDatabase;
let histories: QueueHistories;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
  histories = new QueueHistories(database.url);
  await histories.open();
});
afterAll(async () => {
  await histories?.[Symbol.asyncDispose]();
  await database?.drop();
});

const first = Number(process.env["HAWSER_FAULT_SEED"] ?? 1);

it("handles committed messages once and in the order of each key, whatever happens", { timeout: 900_000 }, async () => {
  for (let seed = first; seed < first + atDepth(300); seed++) {
    await histories.run(seed).catch((cause) => expect.unreachable(`seed ${seed}: ${cause.message}`));
  }
});
