/** A worker handles jobs with nothing but a database: no unique name, no port, no entry in the directory. */
import { afterEach, describe, expect, it, onTestFinished } from "vitest";
import {
  enqueue,
  enqueueBatch,
  job,
  RetryAfter,
  schedule,
  unschedule,
  Worker,
  type WorkerOptions,
} from "../../src/jobs-and-peers/peer/index.js";
import { enqueueReply } from "../../src/jobs-and-peers/queue/enqueue/enqueue.js";
import { failure } from "../peer/support/errors.js";
import { gate } from "../peer/support/gate.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { eventually } from "../support/eventually.js";
import { startProgram } from "../support/program.js";

const world = sharedPeerWorld();
const workers: Worker[] = [];
afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.stop({ timeoutMs: 2_000 })));
});

function workerOf(options: WorkerOptions = {}): Worker {
  const worker = new Worker({ databaseUrl: world.url, ...options });
  workers.push(worker);
  return worker;
}

const waiting = async (): Promise<number> => (await world.query("SELECT FROM hawser_data.queue")).length;
const nothingIsLeft = () => eventually("nothing is left", async () => (await waiting()) === 0);

describe("a worker", () => {
  it("handles jobs, in transactions and without", async () => {
    await world.query("CREATE TABLE effects (what text)");
    const worker = workerOf();
    const seen: string[] = [];
    await worker.handle("plain", (message) => void seen.push(message.text()));
    await worker.handle("careful", { transactional: true }, async ({ client }) => {
      await client.query("INSERT INTO effects (what) VALUES ('done')");
    });
    await worker.start();
    await enqueue(world, "plain", "1");
    await enqueue(world, "careful", "2");
    await nothingIsLeft();
    expect(seen).toEqual(["1"]);
    expect(await world.query("SELECT what FROM effects")).toEqual([{ what: "done" }]);
    expect(worker.health()).toEqual({ ready: true, problems: [] });
  });

  it("handles batches, and iterates over messages", async () => {
    const worker = workerOf();
    const sizes: number[] = [];
    await enqueueBatch(world, "readings", ["1", "2", "3"]);
    await worker.handleBatch("readings", { maxMessages: 10 }, (messages) => void sizes.push(messages.length));
    await worker.start();
    await nothingIsLeft();
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(3);
    await enqueue(world, "iterated", "a");
    for await (const message of worker.messages("iterated")) {
      expect(message.text()).toBe("a");
      break;
    }
  });

  it("retries what fails, and makes it a dead letter that says who had it", async () => {
    const worker = workerOf({ name: "mail", defaults: { retry: { attempts: 2, delayMs: 1 } } });
    const failed: number[] = [];
    worker.on("status", (status) => {
      if (status.kind === "attempt_failed") failed.push(status.attempt);
    });
    await worker.handle("t", () => {
      throw new Error("no");
    });
    await worker.start();
    await enqueue(world, "t", "x");
    expect(await world.deadLetters(1)).toMatchObject([{ topic: "t", attempts: 2, worker: `mail:${process.pid}` }]);
    expect(failed).toEqual([1, 2]);
  });

  it("is in no directory, has no name that is taken, and shares jobs with others of its name and with peers", async () => {
    const [one, other] = [workerOf({ name: "mail" }), workerOf({ name: "mail" })];
    const peer = world.peer("mail");
    const held = gate();
    const had = new Map<unknown, number>();
    const handlerOf = (each: unknown) => async () => {
      had.set(each, (had.get(each) ?? 0) + 1);
      await held.opened;
    };
    for (const each of [one, other]) await each.handle("t", { concurrency: 1 }, handlerOf(each));
    await peer.handle("t", { concurrency: 1 }, handlerOf(peer));
    await one.start();
    await other.start();
    expect(await world.query("SELECT FROM hawser_peer_data.peers")).toEqual([]);
    expect(await world.query("SELECT FROM hawser_peer_data.listeners")).toEqual([]);
    await peer.start();
    await enqueueBatch(world, "t", new Array<string>(30).fill("x"));
    await eventually("each has some", () => had.size === 3);
    held.open();
    await nothingIsLeft();
    expect([...had.values()].reduce((sum, count) => sum + count, 0)).toBe(30);
  });

  it("takes nothing that is for a peer of its name alone", async () => {
    const worker = workerOf({ name: "mail" });
    await worker.handle("t", () => expect.unreachable());
    await worker.start();
    const peer = world.peer("mail");
    await peer.handle("t", () => undefined);
    await peer.start();
    await peer.stop();
    await enqueueReply(world, { listener: "mail", topic: "t", origin: null }, "x");
    const own = gate();
    await worker.handle("u", () => own.open());
    await enqueue(world, "u", "behind");
    await own.opened;
    await eventually("the other one is left", async () => (await waiting()) === 1);
    expect(await world.query("SELECT topic, recipient FROM hawser_data.queue")).toEqual([
      { topic: "t", recipient: "@mail" },
    ]);
  });

  it("gets one copy together with all other workers of a message for all listeners, and another one for its group", async () => {
    const had: string[] = [];
    const handled = async (name: string, options: WorkerOptions = {}) => {
      const worker = workerOf(options);
      await worker.handle("t", () => void had.push(name));
      await worker.start();
    };
    await handled("one of all");
    await handled("one of all");
    await handled("one of red", { defaults: { group: "red" } });
    await eventually("they are known", async () => (await world.query("SELECT FROM hawser_data.workers")).length === 3);
    const peer = world.peer("listener");
    await peer.handle("t", () => void had.push("listener"));
    await peer.start();
    await enqueue(world, "t", "x", { all: true });
    await eventually("each has a copy", () => had.length === 3);
    await nothingIsLeft();
    expect(had.toSorted()).toEqual(["listener", "one of all", "one of red"]);
  });

  it("replies to the peer that has enqueued a message, in its transaction or at once", async () => {
    const worker = workerOf();
    const answer = async (message: { reply(payload: string): Promise<{ outcome: string }> }) =>
      expect(await message.reply("answer")).toMatchObject({ outcome: "enqueued", peer: "asks" });
    await worker.handle("plain", answer);
    await worker.handle("careful", { transactional: true }, answer);
    await worker.start();
    const peer = await world.started("asks");
    const id = await peer.enqueue(world, "plain", "?");
    await peer.received.length(1);
    await peer.enqueue(world, "careful", "?");
    await peer.received.length(2);
    expect(peer.received.all[0]).toMatchObject({ text: "answer", sender: undefined });
    expect(peer.received.all[0]!.headers).toContainEqual(["correlation-id", String(id)]);
  });

  it("refuses what it does not have, with the remedy", async () => {
    const worker = workerOf();
    const error = await failure(
      "invalid_argument",
      worker.handle("t", { durable: true } as never, () => undefined),
    );
    expect(error.message).toContain("use a Peer");
    expect(() => workerOf({ listen: "127.0.0.1:0" } as never)).toThrow(/listen/);
    expect(() => workerOf({ name: "a:b" })).toThrow(/name/);
  });

  it("rejects its start if there is no database, and starts once there is one", async () => {
    const worker = workerOf({ databaseUrl: "postgres://nobody@127.0.0.1:1/none" });
    await worker.handle("t", () => undefined);
    await failure("startup_failed", worker.start());
    expect(worker.health().ready).toBe(false);
    await failure("startup_failed", worker.start());
  });

  it("stops in good order: running handlers end, all else is given back", async () => {
    const worker = workerOf({ concurrency: 2 });
    const held = gate();
    let begun = 0;
    await worker.handle("t", async () => {
      begun += 1;
      await held.opened;
    });
    await worker.start();
    await enqueueBatch(world, "t", new Array<string>(20).fill("x"));
    await eventually("two run", () => begun === 2);
    const stopped = worker.stop();
    const had = "SELECT FROM hawser_data.queue WHERE worker IS NOT NULL";
    await eventually("what has not begun is free", async () => (await world.query(had)).length === 2);
    held.open();
    await stopped;
    expect(await waiting()).toBe(18);
    expect(await world.query("SELECT FROM hawser_data.workers")).toEqual([]);
    await worker.start();
    await nothingIsLeft();
  });

  it("gives back what it cuts off at the deadline of a stop, as no attempt", async () => {
    const worker = workerOf();
    const [begun, held] = [gate(), gate()];
    await worker.handle("t", { transactional: true }, async () => {
      begun.open();
      await held.opened;
    });
    await worker.start();
    const id = await enqueue(world, "t", "x");
    await begun.opened;
    await worker.stop({ timeoutMs: 0 });
    held.open();
    expect(await job(world, id)).toMatchObject({ state: "waiting", attempts: 0 });
  });
});

describe("a worker that has nothing", () => {
  const resting = (count: number) =>
    eventually(`${count} rest`, async () => {
      const rows = await world.query("SELECT FROM hawser_data.workers WHERE is_idle AND gone_at IS NULL");
      return rows.length === count;
    });
  const options: WorkerOptions = { defaults: { takeoverMs: 1_000 } };

  it("takes what is enqueued, delayed, or put off by another one that stops", async () => {
    const had: string[] = [];
    const [one, other] = [workerOf(options), workerOf(options)];
    await one.handle("t", (message) => {
      had.push(message.text());
      if (message.text() === "put off" && message.attempt === 1) throw new RetryAfter(1_500);
    });
    await one.start();
    await resting(1);
    await enqueue(world, "t", "at once");
    await eventually("it has it", () => had.includes("at once"));
    await resting(1);
    await enqueue(world, "t", "delayed", { delayMs: 700 });
    await eventually("it has the delayed one", () => had.includes("delayed"));
    await nothingIsLeft();
    expect(had).toEqual(["at once", "delayed"]);
    await enqueue(world, "t", "put off");
    await eventually("it is put off", () => had.includes("put off"));
    await other.handle("t", (message) => void had.push(`${message.text()} to the other`));
    await other.start();
    await one.stop();
    await eventually("the other has it", () => had.includes("put off to the other"));
  });

  it("takes what a killed one had when that one's lease ends, which opens no port", async () => {
    const worker = workerOf(options);
    const had: unknown[] = [];
    await worker.handle("t", async ({ attempt }) => {
      const late = "extract(epoch FROM clock_timestamp() - beat_at) * 1000 - lease_ms";
      const sql = `SELECT round(${late})::integer AS ms FROM hawser_data.workers WHERE gone_at IS NOT NULL`;
      console.log(`begun ${(await world.query<{ ms: number }>(sql))[0]?.ms} ms after the end of the lease`);
      had.push(attempt);
    });
    worker.pause("t");
    await worker.start();
    const killed = startProgram("test/queue/programs/holds-jobs.ts", [], { env: { HAWSER_DATABASE_URL: world.url } });
    onTestFinished(async () => {
      killed.child.kill("SIGKILL");
      await killed.ended;
    });
    await resting(2);
    await enqueueBatch(world, "t", ["1", "2"]);
    const resources = JSON.parse(await killed.firstLine) as string[];
    expect(resources.some((name) => name.includes("ServerWrap"))).toBe(false);
    await eventually("it has both", async () => {
      return (await world.query("SELECT FROM hawser_data.queue WHERE worker IS NOT NULL")).length === 2;
    });
    await resting(1);
    worker.resume("t");
    killed.child.kill("SIGKILL");
    await eventually("both are handled", () => had.length === 2);
    await nothingIsLeft();
  });

  it("has two sessions, also after jobs, delayed ones and schedules", async () => {
    const sessions = async (): Promise<number> =>
      (await world.query("SELECT FROM pg_stat_activity WHERE datname = current_database()")).length;
    const before = await sessions();
    const worker = workerOf();
    await worker.handle("t", () => undefined);
    await worker.start();
    await schedule(world, "often", { cron: "* * * * * *", to: "t", payload: "x" });
    await enqueueBatch(world, "t", new Array<string>(200).fill("x"));
    await enqueue(world, "t", "later", { delayMs: 300 });
    await nothingIsLeft();
    await eventually("the later ones are done", async () => {
      return (
        (await world.query("SELECT FROM hawser_data.queue WHERE due_at IS NOT NULL")).length === 0 &&
        (await waiting()) === 0
      );
    });
    await unschedule(world, "often");
    expect(await sessions()).toBeLessThanOrEqual(before + 2);
  });
});
