import { describe, expect, it } from "vitest";
import { peerSettingsDefaults, storeConstants } from "../../generated/ts/settings/peer.js";
import { DeadLetterRetention } from "../../src/peer/dead-letter-retention.js";
import { silentLogger } from "../../src/store/index.js";
import { ManualClock } from "../store/support/manual-clock.js";
import { world } from "../store/support/world.js";
import { eventually } from "../support/eventually.js";
import { peerWorld } from "./support/world.js";

const insertSql = `INSERT INTO hawser.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, created_at)
  SELECT 'peer', 's', 't', 'x', 'c', 'm', 1, now() - make_interval(days => $1) FROM generate_series(1, $2::integer)`;

describe("the retention of dead letters", () => {
  it("is kept when a peer starts, by its own days", async () => {
    await using w = await peerWorld();
    await w.query(insertSql, [peerSettingsDefaults.deadLetterRetentionDays + 1, 3]);
    await w.query(insertSql, [peerSettingsDefaults.deadLetterRetentionDays - 1, 2]);
    const count = async () => (await w.query("SELECT FROM hawser.dead_letters")).length;
    await w.started("a-1");
    await eventually("the old ones are gone", async () => (await count()) === 2);
    await w.started("b-1", { deadLetterRetentionDays: 1 });
    await eventually("all are gone", async () => (await count()) === 0);
  });

  it("is kept every hour from then on, all batches at once", async () => {
    await using w = await world();
    const clock = new ManualClock();
    const count = async () => (await w.operator.query("SELECT FROM hawser.dead_letters")).rowCount;
    const context = { store: w.store, settings: { deadLetterRetentionDays: 30 }, logger: silentLogger };
    const retention = new DeadLetterRetention(context, clock);
    retention.start();
    await eventually("it waits for the next hour", () => clock.waits === 1);
    await w.operator.query(insertSql, [31, 2 * storeConstants.deadLetterRows + 1]);
    clock.advance(storeConstants.deadLetterExpiryMs - 1);
    expect(await count()).toBe(2 * storeConstants.deadLetterRows + 1);
    clock.advance(1);
    await eventually("all are gone", async () => (await count()) === 0);
    // A failure is not the end of it.
    await eventually("it waits for the next hour", () => clock.waits === 1);
    await w.operator.query("ALTER FUNCTION hawser.expire_dead_letters RENAME TO gone");
    clock.advance(storeConstants.deadLetterExpiryMs);
    await eventually("it waits for the next hour", () => clock.waits === 1);
    await w.operator.query("ALTER FUNCTION hawser.gone RENAME TO expire_dead_letters");
    await w.operator.query(insertSql, [31, 1]);
    clock.advance(storeConstants.deadLetterExpiryMs);
    await eventually("it is gone", async () => (await count()) === 0);
    await eventually("it waits for the next hour", () => clock.waits === 1);
    retention.stop();
    expect(clock.waits).toBe(0);
  });
});
