/** The hand-over to peers in random histories; see `support/peer-hand-over.ts`. HAWSER_FAULT_SEED says where the seeds begin. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { PeerHandOver } from "./support/peer-hand-over.js";

let database: TestDatabase;
let histories: PeerHandOver;
beforeAll(async () => {
  database = await testDatabase({ nats: false });
  histories = new PeerHandOver(database.url);
  await histories.open();
});
afterAll(async () => {
  await histories?.[Symbol.asyncDispose]();
  await database?.drop();
});

const first = Number(process.env["HAWSER_FAULT_SEED"] ?? 1);

it("hands over committed messages once and in the order of each key, whatever happens", {
  timeout: 600_000,
}, async () => {
  for (let seed = first; seed < first + atDepth(50); seed++) {
    await histories.run(seed).catch((cause) => expect.unreachable(`seed ${seed}: ${cause.message}`));
  }
});
