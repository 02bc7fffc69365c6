/**
 * Processes that are stopped in the middle of a transaction: their connections stay, and Postgres hears nothing more.
 */
import { describe, expect, it } from "vitest";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { localSettingsSql, sessionSettingsSql } from "../../src/foundation/postgres/index.js";
import { statementLimits } from "../../src/jobs-and-peers/store/database.js";
import { eventually } from "../support/eventually.js";
import { takeOver, type World, world } from "./support/world.js";

/** Another one takes the name of "stopped", whose fence is held. */
async function takesOver(w: World, isHeld: Promise<unknown>): Promise<void> {
  await isHeld;
  const taker = await w.connect();
  await takeOver(taker, "stopped");
}

describe.concurrent("a process that is stopped in the middle of a transaction", () => {
  it.each([
    { how: "in a session of its own", begin: `${sessionSettingsSql(statementLimits)}; BEGIN` },
    { how: "behind a pooler", begin: `BEGIN; ${localSettingsSql(statementLimits)}` },
  ])("keeps nobody from its name for good $how", async ({ begin }) => {
    await using w = await world();
    const lease = await w.take("stopped");
    const standing = await w.connect();
    await standing.query(begin);
    await takesOver(w, standing.query("SELECT hawser.fenced('stopped', $1)", [lease.epoch]));
    await expect(standing.query("SELECT 1")).rejects.toThrow();
  });

  it("nor where a handler's transaction, which had all the time it wanted, has come to its end", async () => {
    await using w = await world();
    const lease = await w.take("stopped");
    const key = await w.channelOf({ name: "sender", sourceTopic: "source" }, "stopped");
    const handling = await w.connect();
    await handling.query("BEGIN");
    const commit =
      "SELECT hawser.commit_cursors('stopped', $1, ARRAY[$2::integer], ARRAY[1::bigint], ARRAY[1::bigint], NULL, NULL)";
    await takesOver(w, handling.query(commit, [lease.epoch, key]));
  });

  it("and one whose handler thinks for longer than that is not ended", async () => {
    await using w = await world();
    await w.operator.query("CREATE TABLE public.effects (id integer)");
    const outcome = await w.store.handleInTransaction([], async (transaction) => {
      await transaction.query("INSERT INTO public.effects VALUES (1)");
      const idle = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'
          AND clock_timestamp() - state_change > $1 * interval '1 ms'`;
      const longer = [storeConstants.sessionIdleInTransactionMs + 1_000];
      const thought = async () => (await w.operator.query(idle, longer)).rowCount === 1;
      await eventually("it has thought for longer, by the clock of Postgres", thought);
      await transaction.query("INSERT INTO public.effects VALUES (2)");
    });
    expect(outcome).toBe("committed");
    expect((await w.operator.query("SELECT count(*)::int FROM public.effects")).rows).toEqual([{ count: 2 }]);
  });
});
