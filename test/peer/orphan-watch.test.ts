import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import { polls } from "../../src/jobs-and-peers/handlers/polls.js";
import { Absences, OrphanWatch } from "../../src/jobs-and-peers/peer/membership/orphan-watch.js";
import type { AbsentListener } from "../../src/operating/operate/index.js";
import { enqueue } from "../queue/support/test-worker.js";
import { terminateHolder, type World, world } from "../store/support/world.js";
import { eventually } from "../support/eventually.js";
import { ManualClock } from "../support/manual-clock.js";

const away = (name: string, epoch: number | null = 1): AbsentListener => ({
  name,
  epoch,
  group: null,
  isEnqueuedFor: false,
});

describe("absences", () => {
  const afterMs = 1_000;
  const made = () => new Absences(afterMs, 600);

  it("are long enough when every look within the time has found them", () => {
    const absences = made();
    expect(absences.inspected([away("b")], 0, 10)).toEqual([]);
    expect(absences.inspected([away("b")], 500, 510)).toEqual([]);
    // From the end of the look that saw it first.
    expect(absences.inspected([away("b")], 1_009, 1_010)).toEqual([]);
    expect(absences.inspected([away("b")], 1_510, 1_511)).toEqual(["b"]);
  });

  it("begin again when one look did not find them", () => {
    const absences = made();
    absences.inspected([away("b")], 0, 0);
    absences.inspected([], 500, 500);
    expect(absences.inspected([away("b")], 1_000, 1_000)).toEqual([]);
    absences.inspected([away("b")], 1_500, 1_500);
    expect(absences.inspected([away("b")], 2_000, 2_000)).toEqual(["b"]);
  });

  it("begin again when the listener has another epoch: it was there in between", () => {
    const absences = made();
    absences.inspected([away("b", 1)], 0, 0);
    absences.inspected([away("b", 2)], 500, 500);
    expect(absences.inspected([away("b", 2)], 1_000, 1_000)).toEqual([]);
    expect(absences.inspected([away("b", 2)], 1_500, 1_500)).toEqual(["b"]);
  });

  it("begin again after a pause in which nobody looked", () => {
    const absences = made();
    absences.inspected([away("b")], 0, 0);
    expect(absences.inspected([away("b")], 5_000, 5_000)).toEqual([]);
    absences.reset();
    expect(absences.inspected([away("b")], 5_500, 5_500)).toEqual([]);
    expect(absences.inspected([away("b")], 6_000, 6_000)).toEqual([]);
    expect(absences.inspected([away("b")], 6_500, 6_500)).toEqual(["b"]);
  });

  it("are counted for each listener, also for a name that was never taken", () => {
    const absences = made();
    absences.inspected([away("b", null)], 0, 0);
    absences.inspected([away("b", null), away("c")], 500, 500);
    expect(absences.inspected([away("b", null), away("c")], 1_000, 1_000)).toEqual(["b"]);
    expect(absences.inspected([away("b", null), away("c")], 1_500, 1_500)).toEqual(["b", "c"]);
  });
});

describe("the watch for orphans", () => {
  const takeoverMs = 1_000;
  const lookMs = takeoverMs / 4;
  let w: World;
  let round = 0;

  beforeAll(async () => {
    w = await world();
    for (const topic of ["served", "other"]) await w.store.idOfTopic(topic);
  });
  afterAll(() => w[Symbol.asyncDispose]());

  /** A listener with a message of each topic in a channel of its own, and a watch that serves `served`. */
  async function scene(
    topics: readonly string[],
    { held = false, isWatched = (_: AbsentListener): boolean => true } = {},
  ) {
    round += 1;
    const [lost, heir, from] = [`lost-${round}`, `heir-${round}`, `sender-${round}`];
    const sender = await w.take(from);
    const lease = await w.take(lost);
    const keys: number[] = [];
    for (const topic of topics) {
      const key = await w.channelOf({ name: from, sourceTopic: `source ${keys.length}` }, lost);
      const topicId = await w.store.idOfTopic(topic);
      await w.store.storeMessages(sender, key, 1, [{ topicId, payload: Buffer.from("x") }]);
      keys.push(key);
    }
    if (!held) await lease.release({ clean: false });
    const mine = await w.take(heir);
    const clock = new ManualClock();
    let looks = 0;
    const context = {
      sender: { name: heir, sourceTopic: "served" },
      lease: mine,
      logger: silentLogger,
      store: {
        ...w.store,
        absentListeners: async (topics: readonly string[]) => {
          const found = await w.store.absentListeners(topics);
          // What other tests have left behind is not looked at.
          looks += 1;
          return found.filter(({ name }) => name === lost);
        },
      },
    };
    // A lease is written with only while its session beats, which a clock that is turned knows nothing of.
    let stoodInFor: readonly string[] = [];
    const standInFor = (names: readonly string[]): void => {
      stoodInFor = names;
    };
    const watched = { afterMs: takeoverMs, isWatched, standInFor };
    const watch = new OrphanWatch(context, watched, () => ["served"], clock);
    watch.start();
    /** Lets it look so many times, each look being over before the next. */
    const look = async (times: number): Promise<void> => {
      for (let n = 0; n < times; n++) {
        const before = looks;
        await eventually("the look before is over", () => clock.timers > 0);
        clock.advance(lookMs);
        await eventually("it has looked", () => looks > before);
      }
      await eventually("the last look is over", () => clock.timers > 0);
    };
    /** Of each channel, whether its message is for any listener of its topic now. */
    const released = () =>
      Promise.all(
        keys.map(async (key) => {
          const { rows } = await w.operator.query(
            `SELECT (SELECT count(*) FROM hawser_peer_data.stored_messages WHERE channel_id = $1)::integer AS stored,
                    (SELECT count(*) FROM hawser_data.queue WHERE channel_id = $1 AND recipient = '')::integer AS free`,
            [key],
          );
          return rows[0].free > 0;
        }),
      );
    return { lost, heir, lease, keys, watch, look, released, clock, standsInFor: () => stoodInFor };
  }

  it("releases what it serves, and leaves the rest", async () => {
    const { watch, look, released } = await scene(["served", "other"]);
    await look(4);
    expect(await released()).toEqual([false, false]);
    await look(1);
    expect(await released()).toEqual([true, false]);
    watch.stop();
  });

  it("stands in for a listener while messages of a topic that it serves are enqueued for it, until it is back", async () => {
    const { lost, watch, look, standsInFor } = await scene([]);
    await enqueue(w.operator, "other", ["x"], { recipient: `@${lost}` });
    await look(6);
    expect(standsInFor()).toEqual([]);
    await enqueue(w.operator, "served", ["x"], { recipient: `@${lost}` });
    await look(6);
    expect(standsInFor()).toEqual([lost]);
    const back = await w.take(lost);
    await look(1);
    expect(standsInFor()).toEqual([]);
    await back.release({ clean: true });
    await look(6);
    expect(standsInFor()).toEqual([lost]);
    watch.stop();
    await w.operator.query("TRUNCATE hawser_data.queue");
  });

  it("leaves a channel alone as soon as one of its messages is for a topic that it does not serve", async () => {
    const { keys, watch, look, released } = await scene(["served"]);
    const other = await w.store.idOfTopic("other");
    const sender = { name: `sender-${round}`, epoch: (await w.store.peerEpoch(`sender-${round}`)) as number };
    await w.store.storeMessages(sender, keys[0] as number, 2, [{ topicId: other, payload: Buffer.from("x") }]);
    await look(6);
    expect(await released()).toEqual([false]);
    // It asks again after a while: somebody may have taken that message away.
    await w.operator.query("DELETE FROM hawser_peer_data.stored_messages WHERE channel_id = $1 AND number = 2", [
      keys[0],
    ]);
    await look(1);
    expect(await released()).toEqual([false]);
    await look(polls.everyMs / lookMs);
    expect(await released()).toEqual([true]);
    watch.stop();
  });

  it("leaves listeners alone that it does not watch", async () => {
    const isWatched = ({ group }: AbsentListener): boolean => group !== null;
    const { lost, watch, look, released } = await scene(["served"], { isWatched });
    await look(6);
    expect(await released()).toEqual([false]);
    await w.operator.query("UPDATE hawser_peer_data.peers SET group_name = 'default' WHERE name = $1", [lost]);
    await look(6);
    expect(await released()).toEqual([true]);
    watch.stop();
  });

  it("leaves a listener alone that is there, and one that was back in between", async () => {
    const { lost, lease, watch, look, released } = await scene(["served"], { held: true });
    await look(8);
    expect(await released()).toEqual([false]);
    await lease.release({ clean: false });
    await look(4);
    const back = await w.take(lost);
    await back.release({ clean: true });
    await look(4);
    expect(await released()).toEqual([false]);
    await look(2);
    expect(await released()).toEqual([true]);
    watch.stop();
  });

  it("leaves alone a channel whose stored rows are handled already", async () => {
    const { keys, watch, look, released } = await scene(["served"]);
    await w.operator.query(
      "INSERT INTO hawser_peer_data.cursors (channel_id, epoch, number) SELECT $1, epoch, 1 FROM hawser_peer_data.peers WHERE name = $2",
      [keys[0], `sender-${round}`],
    );
    await look(8);
    expect(await released()).toEqual([false]);
    watch.stop();
  });

  it("begins again after its own session was lost: the others may have lost theirs with it", async () => {
    const { heir, watch, look, released } = await scene(["served"]);
    await look(4);
    const up = new Promise<void>((resolve) => {
      const stop = w.store.on("session", (state) => {
        if (state !== "up") return;
        stop();
        resolve();
      });
    });
    await terminateHolder(w.operator, heir);
    await up;
    await look(4);
    expect(await released()).toEqual([false]);
    await look(2);
    expect(await released()).toEqual([true]);
    watch.stop();
  });

  it("releases nothing once it was stopped, and looks no more", async () => {
    const { watch, look, released, clock } = await scene(["served"]);
    await look(4);
    watch.stop();
    clock.advance(60_000);
    expect(clock.timers).toBe(0);
    expect(await released()).toEqual([false]);
  });
});
