/**
 * Processes that are stopped in the middle of a transaction: their connections stay, and Postgres hears nothing more.
 */
import { describe, expect, it, onTestFinished } from "vitest";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { DatabaseAddress } from "../../src/postgres/index.js";
import { silentLogger, systemClock } from "../../src/runtime/index.js";
import { Database } from "../../src/store/database.js";
import { eventually } from "../support/eventually.js";
import { takeOver, type World, world } from "./support/world.js";

async function aWorld(): Promise<World> {
  const w = await world();
  onTestFinished(() => w[Symbol.asyncDispose]());
  return w;
}

/** Another one takes the name of "stopped", whose fence is held. */
async function takesOver(w: World, isHeld: Promise<unknown>): Promise<void> {
  await isHeld;
  const taker = await w.connect();
  await takeOver(taker, "stopped");
}

describe.concurrent("a process that is stopped in the middle of a transaction", () => {
  it.each([false, true])("keeps nobody from its name for good (behind a pooler: %s)", async (pooled) => {
    const w = await aWorld();
    const lease = await w.take("stopped");
    const options = { clock: systemClock, logger: silentLogger, poolSize: 1, pooled };
    const database = new Database(DatabaseAddress.of(w.url), options);
    onTestFinished(() => database.close());
    let isHeld = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      isHeld = resolve;
    });
    let goOn = (): void => undefined;
    const standing = database.fenced("stand still", lease, async (transaction) => {
      isHeld();
      await new Promise<void>((resolve) => {
        goOn = resolve;
      });
      await transaction.query("SELECT 1");
    });
    await takesOver(w, held);
    goOn();
    await expect(standing).rejects.toMatchObject({ code: "store_failed" });
  });

  it("nor where a handler's transaction, which had all the time it wanted, has come to its end", async () => {
    const w = await aWorld();
    const lease = await w.take("stopped");
    const key = await w.channelOf({ name: "sender", sourceTopic: "source" }, "stopped");
    const handling = await w.connect();
    await handling.query("BEGIN");
    const commit =
      "SELECT hawser.commit_cursors('stopped', $1, ARRAY[$2::integer], ARRAY[1::bigint], ARRAY[1::bigint], NULL, NULL)";
    await takesOver(w, handling.query(commit, [lease.epoch, key]));
  });

  it("and one whose handler thinks for longer than that is not ended", async () => {
    const w = await aWorld();
    const lease = await w.take("listener");
    const connectionKey = await w.channelOf({ name: "sender", sourceTopic: "source" }, "listener");
    await w.operator.query("CREATE TABLE public.effects (id integer)");
    const outcome = await w.store.handleInTransaction(
      lease,
      [{ connectionKey, epoch: 1, number: 1 }],
      async (transaction) => {
        await transaction.query("INSERT INTO public.effects VALUES (1)");
        const idle = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'
          AND clock_timestamp() - state_change > $1 * interval '1 ms'`;
        const longer = [storeConstants.sessionIdleInTransactionMs + 1_000];
        const thought = async () => (await w.operator.query(idle, longer)).rowCount === 1;
        await eventually("it has thought for longer, by the clock of Postgres", thought);
        await transaction.query("INSERT INTO public.effects VALUES (2)");
      },
    );
    expect(outcome).toBe("committed");
    expect((await w.operator.query("SELECT count(*)::int FROM public.effects")).rows).toEqual([{ count: 2 }]);
  });
});
