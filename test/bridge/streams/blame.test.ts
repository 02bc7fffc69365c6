/**
 * With key_token several queues run messages of one subscription. What one of them cannot get done, it is to blame for alone.
 */

import { afterAll, beforeAll, expect, it } from "vitest";
import { DatabaseAddress, PostgresSession } from "../../../src/foundation/postgres/index.js";
import { RareLog } from "../../../src/foundation/runtime/index.js";
import type { Subscription } from "../../../src/nats/bridge/bindings.js";
import { blamedAfter } from "../../../src/nats/bridge/executor/batch-runner.js";
import { ExecutorLogin } from "../../../src/nats/bridge/executor/executor-login.js";
import { BatchRunner, ExecutorPool } from "../../../src/nats/bridge/executor/index.js";
import type { InboundMessage } from "../../../src/nats/bridge/message.js";
import { keptLog } from "../role/log.js";
import { type BindingWorld, bindingWorld } from "../support/binding-world.js";

let world: BindingWorld;
let session: PostgresSession;
const { logger } = keptLog();
beforeAll(async () => {
  world = await bindingWorld();
  session = new PostgresSession({
    address: DatabaseAddress.of(world.database.url),
    logger,
    applicationName: "test",
    queryTimeoutMs: 5_000,
    onDown: () => undefined,
  });
});
afterAll(async () => {
  await session?.close();
  await world?.[Symbol.asyncDispose]();
});

it("blames a message that never gets through while those of other queues do", async () => {
  await world.client.query(`CREATE FUNCTION touchy(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      IF payload = 'stuck' THEN RAISE EXCEPTION 'no room' USING ERRCODE = '53400'; END IF;
    END $$`);
  await world.client.query("SELECT nats_subscribe_stream('S', 'touchy', 'touchy', key_token => 1)");
  await world.client.query("UPDATE hawser_bridge_data.stream_subscriptions SET generation = 1, position = 0");
  const [{ startedAt }] = (await world.rows(
    `SELECT extract(epoch FROM pg_postmaster_start_time())::text AS "startedAt"`,
  )) as [{ startedAt: string }];
  const [lead] = await world.rows<{ epoch: bigint }>("SELECT epoch FROM hawser.bridge_lead");
  const [bound] = await world.bound("touchy");
  const { id, wrapper, token, runAs } = bound!;
  const of = (lane: number, server = startedAt): Subscription => ({
    ...{ id: BigInt(id), wrapper, token, runAs, subject: "touchy", functionName: "touchy", kind: "stream" },
    ...{ takesSubject: false, takesHeaders: false },
    stream: { generation: 1n, lane, server, lag: () => 0 },
  });
  const message = (number: number, text: string): InboundMessage => ({
    ...{ id: String(number), subject: "s", payload: Buffer.from(text), headers: undefined, headersProblem: undefined },
    ...{ receivedAt: 0, place: { number, covers: [[number, number]], missing: 0, at: 0n, bytes: 300 } },
  });
  const login = new ExecutorLogin({ databaseUrl: world.database.url, executorUrl: undefined, session });
  const pool = new ExecutorPool({ login, limit: 2, logger });
  const rareLog = new RareLog(logger, "test");
  const runner = new BatchRunner({ pool, timeoutMs: 5_000, logger, rareLog });
  const run = (subscription: Subscription, one: InboundMessage) =>
    runner.run({ subscription, messages: [one], savedIds: [] }, lead!.epoch);
  // What was read before a failover is read again: the server may lack what was confirmed.
  expect((await run(of(1, "another"), message(1, "fine"))).kind).toBe("deposed");
  const kinds: string[] = [];
  for (let n = 0; n <= blamedAfter; n += 1) {
    kinds.push((await run(of(0), message(1, "stuck"))).kind);
    expect((await run(of(1), message(2 + n, "fine"))).kind).toBe("committed");
  }
  await pool.stop();
  rareLog.end();
  expect(kinds.at(-1)).toBe("failed");
  expect(new Set(kinds.slice(0, -1))).toEqual(new Set(["transient"]));
});
