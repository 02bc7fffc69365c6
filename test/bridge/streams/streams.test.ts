/**
 * Streams into SQL from end to end: what lands, in which order, what is missing, and what is said about it.
 */
import { type JetStreamManager, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, errors, nuid } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { StreamReading, StreamSource } from "../../../src/nats/bridge/streams/stream-source.js";
import { type HawserServer, serve as startServer } from "../../../src/nats/serve/index.js";
import { eventually } from "../../support/eventually.js";
import { startNatsServer } from "../../support/nats-server.js";
import { type BridgeWorld, bridgeWorld } from "../support/bridge-world.js";

let world: BridgeWorld;
let manager: JetStreamManager;
let serve: HawserServer;
beforeAll(async () => {
  world = await bridgeWorld({
    sql: `
      CREATE TABLE landed (nth bigserial, name text, subject text, headers jsonb, at timestamptz DEFAULT clock_timestamp());
      CREATE FUNCTION land(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE plpgsql AS $$
      BEGIN
        IF convert_from(payload, 'UTF8') ~ 'bad' THEN
          RAISE EXCEPTION 'no % here', convert_from(payload, 'UTF8') USING ERRCODE = 'ZZ001';
        END IF;
        INSERT INTO landed (name, subject, headers) VALUES (convert_from(payload, 'UTF8'), subject, headers);
      END $$`,
  });
  manager = await jetstreamManager(world.nats);
  serve = world.serve;
});
afterAll(async () => {
  await serve?.stop();
  await world?.[Symbol.asyncDispose]();
});

/** Does something while no process runs. */
async function stopped(work: () => Promise<unknown>): Promise<void> {
  await serve.stop();
  await work();
  serve = await startServer({
    listen: "127.0.0.1:0",
    databaseUrl: world.database.url,
    logger: world.log.logger,
  });
}

interface Made {
  readonly name: string;
  readonly publish: (...texts: string[]) => Promise<void>;
  readonly subscribe: (more?: string) => Promise<void>;
  readonly landed: () => Promise<string[]>;
  readonly status: () => Promise<Record<string, unknown>>;
}

/** A stream of its own, with a subscription of its name. */
async function stream(config: object = {}, words = "a"): Promise<Made> {
  const name = nuid.next();
  await manager.streams.add({ name, subjects: [`${name}.>`], ...config });
  const client = jetstream(world.nats);
  return {
    name,
    async publish(...texts) {
      for (const text of texts) {
        const [subject, payload] = text.includes(":") ? text.split(":") : [words, text];
        await client.publish(`${name}.${subject}`, payload!);
      }
    },
    async subscribe(more = "") {
      await world.client.query(`SELECT nats_subscribe_stream('${name}', 'land', '${name}'${more})`);
    },
    landed: async () =>
      (
        await world.rows<{ name: string }>("SELECT name FROM landed WHERE subject LIKE $1 || '.%' ORDER BY nth", [name])
      ).map((row) => row.name),
    status: async () => (await world.rows("SELECT * FROM hawser.stream_status WHERE name = $1", [name]))[0]!,
  };
}

/** A stream that a subscription has taken these messages of. */
async function subscribedWith(config: object, ...texts: string[]): Promise<Made> {
  const made = await stream(config);
  await made.publish(...texts);
  await made.subscribe();
  await eventually("they are there", async () => (await made.landed()).length === texts.length);
  return made;
}

const numbered = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => String(from + n));

describe("a stream", () => {
  it("lands in a table once, in order, from its beginning and as it comes", async () => {
    const { publish, subscribe, landed, status, name } = await stream();
    await publish(...numbered(1, 30));
    await subscribe();
    await eventually("all are there", async () => (await landed()).length === 30);
    await publish(...numbered(31, 40));
    await eventually("all are there", async () => (await landed()).length === 40);
    expect(await landed()).toEqual(numbered(1, 40));
    await eventually("it is told", async () => (await status())["lag"] === "0");
    expect(await status()).toMatchObject({ done_to: "40", missing: "0", problem: null, paused: false });
    // Acknowledged behind the commit, for operators.
    const consumers = await manager.consumers.list(name).next();
    await eventually("it is acknowledged", async () => {
      const [consumer] = await manager.consumers.list(name).next();
      return consumer!.ack_floor.stream_seq === 40;
    });
    expect(consumers).toHaveLength(1);
    await world.client.query(`SELECT nats_unsubscribe_stream('${name}')`);
    await eventually("its consumer goes", async () => (await manager.consumers.list(name).next()).length === 0);
  });

  it("makes dead letters of what fails, which the position passes, and handles them again", async () => {
    const { publish, subscribe, landed, status } = await stream();
    await publish("1", "2", "bad", "3", "very bad");
    await subscribe();
    await eventually("the others are there", async () => (await landed()).length === 3);
    await eventually("all are done", async () => (await status())["done_to"] === "5");
    const dead = () =>
      world.rows<{ id: string }>(
        "SELECT id, error_code, attempts FROM hawser_data.dead_letters WHERE error_code = 'ZZ001'",
      );
    expect(await dead()).toHaveLength(2);
    await world.client.query(
      `CREATE OR REPLACE FUNCTION land(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql AS $$
         INSERT INTO landed (name, subject, headers) VALUES (convert_from(payload, 'UTF8'), subject, headers) $$`,
    );
    await world.client.query("SELECT FROM hawser.retry_dead_letters(ARRAY(SELECT id FROM hawser_data.dead_letters))");
    await eventually("they are handled", async () => (await landed()).length === 5);
    expect(await dead()).toEqual([]);
    expect((await landed()).sort()).toEqual(["1", "2", "3", "bad", "very bad"]);
    expect(await status()).toMatchObject({ done_to: "5" });
  });

  it("is read on while somebody else answers what its consumer is asked", async () => {
    const { publish, subscribe, landed, name } = await stream();
    let answered = 0;
    const foreign = world.nats.subscribe(`$JS.API.CONSUMER.MSG.NEXT.${name}.>`, {
      callback: (_error, message) => {
        answered += 1;
        message.respond("forged");
      },
    });
    await world.nats.flush();
    await publish("1");
    await subscribe();
    await eventually("it is there", async () => (await landed()).length === 1);
    const generation = () =>
      world.rows("SELECT generation FROM hawser_bridge_data.stream_subscriptions WHERE name = $1", [name]);
    const before = await generation();
    const asked = answered;
    for (const text of numbered(2, 6)) {
      await publish(text);
      await eventually("it is there, too", async () => (await landed()).length === Number(text));
    }
    expect(asked).toBeGreaterThan(0);
    expect(await generation()).toEqual(before);
    foreign.unsubscribe();
  });

  it("is filtered, and starts at the given position", async () => {
    const { publish, subscribe, landed, status, name } = await stream();
    await publish("a:1", "b:2", "a:3", "b:4", "a:5");
    await subscribe(`, filter => '{${name}.a}', start => '2'`);
    await eventually("they are there", async () => (await landed()).length === 2);
    await publish("b:6");
    await eventually("the position is known to be at the end", async () => {
      const rows = await world.rows(
        "SELECT FROM hawser_bridge_data.stream_subscriptions WHERE name = $1 AND nothing_until = 6",
        [name],
      );
      return rows.length === 1;
    });
    expect(await landed()).toEqual(["3", "5"]);
    expect(await status()).toMatchObject({ done_to: "5", lag: "0" });
    // What is purged is nothing of ours.
    await manager.streams.purge(name);
    await publish("a:7");
    await eventually("it goes on", async () => (await landed()).length === 3);
    expect(await status()).toMatchObject({ done_to: "7", missing: "0" });
  });

  it("begins with what comes after the call", async () => {
    const { publish, subscribe, landed, status } = await stream();
    await publish("old");
    await subscribe(", start => 'new'");
    await publish("new");
    await eventually("it is there", async () => (await landed()).length === 1);
    expect(await landed()).toEqual(["new"]);
    expect(await status()).toMatchObject({ done_to: "2", missing: "0" });
  });

  it("runs side by side by a word of the subject, in order for each", async () => {
    const { publish, landed, status, name } = await stream();
    await world.client.query(`CREATE FUNCTION slow(payload bytea, subject text) RETURNS void LANGUAGE plpgsql AS $$
      BEGIN
        IF subject LIKE '%.slow' THEN PERFORM pg_advisory_xact_lock(4711); END IF;
        INSERT INTO landed (name, subject) VALUES (convert_from(payload, 'UTF8'), subject);
      END $$`);
    const holder = await world.connect();
    await holder.query("SELECT pg_advisory_lock(4711)");
    await world.client.query(`SELECT nats_subscribe_stream('${name}', 'slow', '${name}', key_token => 2)`);
    await publish("slow:1", "x:2", "y:3", "x:4", "slow:5", "y:6");
    await eventually("the others are there", async () => (await landed()).length >= 4);
    await holder.query("SELECT pg_advisory_unlock(4711)");
    await eventually("all are done", async () => (await status())["done_to"] === "6");
    const all = await landed();
    expect(all.toSorted()).toEqual(numbered(1, 6));
    for (const [one, other] of [
      ["1", "5"],
      ["2", "4"],
      ["3", "6"],
    ])
      expect(all.indexOf(one!)).toBeLessThan(all.indexOf(other!));
    await holder.end();
  });

  it("is sent elsewhere", async () => {
    const { landed, name } = await subscribedWith({}, ...numbered(1, 4));
    await world.client.query(`SELECT nats_seek_stream('${name}', '3')`);
    await eventually("they come again", async () => (await landed()).length === 6);
    expect(await landed()).toEqual(["1", "2", "3", "4", "3", "4"]);
  });

  it.each([
    ["interest", { retention: "interest" }],
    ["a work queue", { retention: "workqueue" }],
  ])("that keeps messages until they are acknowledged (%s) keeps none", async (_, config) => {
    const { publish, subscribe, landed, name, status } = await stream(config);
    await subscribe();
    // Without one, a stream with interest retention keeps nothing.
    await eventually("there is a consumer", async () => (await manager.streams.info(name)).state.consumer_count === 1);
    await publish(...numbered(1, 10));
    await eventually("all are there", async () => (await landed()).length === 10);
    await eventually("it is empty", async () => (await manager.streams.info(name)).state.messages === 0);
    expect(await status()).toMatchObject({ done_to: "10", missing: "0" });
  });
});

describe("the loss of messages is reported:", () => {
  let cutShort: Made;
  let purged: Made;
  let ahead: Made;
  let replaced: Made;
  let bucket: Made;
  let bucketMadeAgain: Made;
  // No process runs while they lose messages.
  beforeAll(async () => {
    [cutShort, purged, ahead, replaced, bucket, bucketMadeAgain] = (await Promise.all([
      subscribedWith({ max_msgs: 5 }, "1", "2"),
      subscribedWith({}, "1", "2"),
      subscribedWith({}, "1", "2", "3"),
      subscribedWith({}, "1", "2", "3"),
      subscribedWith({ max_msgs_per_subject: 1 }, "a:1", "b:2"),
      subscribedWith({ max_msgs_per_subject: 1 }, "a:1", "b:2"),
    ])) as [Made, Made, Made, Made, Made, Made];
    await stopped(async () => {
      await cutShort.publish(...numbered(3, 12));
      await purged.publish("3", "4");
      await manager.streams.purge(purged.name);
      // As if more had been taken from a stream that has lost it.
      const position = "UPDATE hawser_bridge_data.stream_subscriptions SET position = 9, last_done = 9 WHERE name = $1";
      await world.client.query(position, [ahead.name]);
      const doneAt =
        "UPDATE hawser_bridge_data.stream_subscriptions SET last_done_at = last_done_at - 1 WHERE name = $1";
      await world.client.query(doneAt, [replaced.name]);
      for (const { publish } of [bucket, bucketMadeAgain]) await publish("a:3", "a:4", "b:5");
      const lost =
        "UPDATE hawser_bridge_data.stream_subscriptions SET missing = 7, missing_reason = 'recreated' WHERE name = $1";
      await world.client.query(lost, [bucketMadeAgain.name]);
    });
  });

  it("of a stream that was cut short before it was taken", async () => {
    const { landed, status, name } = cutShort;
    await eventually("the rest is there", async () => (await landed()).length === 7);
    expect(await landed()).toEqual(["1", "2", "8", "9", "10", "11", "12"]);
    expect(await status()).toMatchObject({
      ...{ done_to: "12", missing: "5", missing_reason: "cut_short", missing_from: "3", missing_to: "7" },
      paused: false,
    });
    await world.client.query(`SELECT nats_seek_stream('${name}', 'new')`);
    expect(await status()).toMatchObject({ missing: "0", missing_reason: null });
  });

  it("of a stream that was purged while the subscription was behind", async () => {
    const { publish, landed, status } = purged;
    await eventually("it is said", async () => (await status())["missing"] === "2");
    await publish("5");
    await eventually("it goes on", async () => (await landed()).length === 3);
    expect(await landed()).toEqual(["1", "2", "5"]);
    expect(await status()).toMatchObject({
      missing: "2",
      missing_reason: "cut_short",
      missing_from: "3",
      missing_to: "4",
    });
  });

  it("of a bucket apart: newer messages may have replaced them, which neither hides a loss nor adds to it", async () => {
    for (const { landed } of [bucket, bucketMadeAgain])
      await eventually("the newest are there", async () => (await landed()).length === 4);
    expect(await bucket.status()).toMatchObject({ done_to: "5", missing: "1", missing_reason: "overwritten" });
    expect(await bucketMadeAgain.status()).toMatchObject({ done_to: "5", missing: "7", missing_reason: "recreated" });
  });

  it("of a stream that ends before the position: the subscription waits for a new position", async () => {
    const { publish, landed, status, name } = ahead;
    await publish("4");
    await eventually("it is said", async () => (await status())["paused"] === true);
    expect(String((await status())["problem"])).toContain("nats_seek_stream");
    await world.client.query(`SELECT nats_seek_stream('${name}', '4')`);
    await eventually("it goes on", async () => (await landed()).length === 4);
    expect(await status()).toMatchObject({ done_to: "4", paused: false, problem: null });
  });

  it("of a stream whose last message is another one", () =>
    eventually("it is said", async () => (await replaced.status())["paused"] === true));

  it("of single messages", async () => {
    const { publish, subscribe, landed, status, name } = await stream();
    await publish("1", "2", "3");
    await manager.streams.deleteMessage(name, 2);
    await subscribe();
    await eventually("the others are there", async () => (await landed()).length === 2);
    expect(await status()).toMatchObject({
      done_to: "3",
      missing: "1",
      missing_reason: "deleted",
      missing_from: "2",
      missing_to: "2",
    });
  });

  it("of a stream that keeps one of each subject: what newer ones replaced is no gap between messages", async () => {
    const { publish, subscribe, landed, status } = await stream({ max_msgs_per_subject: 1 });
    await publish("other:1", "2", "3");
    await subscribe();
    await eventually("the newest are there", async () => (await landed()).length === 2);
    expect(await status()).toMatchObject({ done_to: "3", missing: "0", missing_reason: null });
  });

  it("of a stream that was made again, which begins at 1", async () => {
    const { publish, landed, status, name } = await subscribedWith({}, "1", "2", "3");
    await manager.streams.delete(name);
    await eventually("it is said", async () => /stream not found/.test(String((await status())["problem"])));
    const said = () =>
      world.log.lines.find(
        ({ message, details }) =>
          message === "a stream subscription cannot continue" &&
          (details as { stream?: string } | undefined)?.stream === name,
      );
    await eventually("it is logged", () => said() !== undefined);
    expect(said()?.details).toEqual({ subscription: name, stream: name, problem: expect.any(String) });
    await manager.streams.add({ name, subjects: [`${name}.>`] });
    await publish("4");
    await eventually("it goes on", async () => (await landed()).length === 4);
    expect(await landed()).toEqual(["1", "2", "3", "4"]);
    expect(await status()).toMatchObject({ done_to: "1", missing_reason: "recreated", problem: null });
  });

  it("of a domain that nobody serves", async () => {
    const { subscribe, status, name } = await stream();
    await subscribe(", domain => 'nowhere'");
    await eventually("it is said", async () => /domain "nowhere"/.test(String((await status())["problem"])));
    await world.client.query(`SELECT nats_unsubscribe_stream('${name}')`);
  });
});

describe("a look at a stream", () => {
  const looked = async (error: Error) => {
    const { publish, name } = await stream();
    await publish("1");
    const connection = await connect({ servers: world.nats.getServer() });
    const request = connection.request.bind(connection);
    connection.request = (subject, ...more) =>
      subject.includes(".STREAM.MSG.GET.") ? Promise.reject(error) : request(subject, ...more);
    const config = { id: 1n, name, stream: name, domain: undefined, filters: [], keyToken: undefined, consumer: name };
    const source = await StreamSource.over(connection, config, undefined);
    const state = {
      generation: 1n,
      server: "1",
      start: { all: true },
      created: undefined,
      position: 1,
      done: [],
      nothingUntil: 0,
    } as const;
    return await source
      .inspect({ ...state, lastDone: { number: 1, at: 1n }, paused: false, problem: undefined }, false)
      .finally(() => connection.close());
  };

  it("is made again when it does not tell whether the last message is the one that was done", async () => {
    await expect(looked(new errors.TimeoutError())).rejects.toThrow("timeout");
  });

  it("is content with less when messages may not be read one by one", async () => {
    const denied = new errors.PermissionViolationError("no", "publish", "$JS.API.STREAM.MSG.GET.S");
    expect(await looked(denied)).toMatchObject({ last: 1, lastDoneAt: undefined });
  });
});

it("takes a message that is larger than the server allows by now", async () => {
  await using server = await startNatsServer({ jetStream: true, config: "max_payload: 4MB" });
  const before = await connect({ servers: server.url });
  const large = await jetstreamManager(before);
  await large.streams.add({ name: "LARGE", subjects: ["large"] });
  await jetstream(before).publish("large", "x".repeat(3_000_000));
  await large.consumers.add("LARGE", { durable_name: "c" });
  await before.close();
  await server.reload("max_payload: 100KB");
  const connection = await connect({ servers: server.url });
  const sizes: number[] = [];
  const reading = new StreamReading(connection, "$JS.API.CONSUMER.MSG.NEXT.LARGE.c", {
    onMessage: ({ message }) => void sizes.push(message.data.length),
    onRequest: () => undefined,
    onAnswer: () => undefined,
    onEnd: (problem) => expect.unreachable(problem),
    room: () => ({ messages: 10, bytes: 1_000_000 }),
  });
  await eventually("it is there", () => sizes.length > 0);
  expect(sizes).toEqual([3_000_000]);
  reading.stop();
  await connection.close();
});

describe("Postgres is the truth", () => {
  it("when the consumer is gone, or another one", async () => {
    const { publish, landed, name } = await subscribedWith({}, "1");
    const consumer = async () => (await manager.consumers.list(name).next())[0];
    await manager.consumers.delete(name, (await consumer())!.name);
    await publish("2");
    await eventually("it goes on", async () => (await landed()).length === 2);
    const { name: made } = (await consumer())!;
    await stopped(async () => {
      await manager.consumers.update(name, made, { filter_subject: `${name}.other` }).catch(() => undefined);
      await publish("3");
    });
    await eventually("it goes on", async () => (await landed()).length === 3);
    expect(await landed()).toEqual(["1", "2", "3"]);
  });

  it("when somebody else takes from the consumer", async () => {
    const { publish, subscribe, landed, name } = await stream();
    await subscribe();
    let taker = "";
    await eventually("there is a consumer", async () => {
      taker = (await manager.consumers.list(name).next())[0]?.name ?? "";
      return taker !== "";
    });
    const thief = await jetstream(world.nats).consumers.get(name, taker);
    const messages = await thief.consume({ max_messages: 5 });
    const stolen = (async () => {
      for await (const message of messages) if (message.seq > 3) break;
    })();
    await publish(...numbered(1, 20));
    await eventually("all are there", async () => (await landed()).length === 20);
    expect(await landed()).toEqual(numbered(1, 20));
    messages.stop();
    await stolen;
  });
});

it("a stream that stores replies to Hawser's own requests is read only with a filter that leaves them out", async () => {
  const { name, publish, subscribe, landed, status } = await stream();
  // One that nobody uses: the server is that of other tests, too.
  const inbox = `_INBOX.hawser.${name}`;
  await manager.streams.update(name, { subjects: [`${name}.>`, inbox] });
  await subscribe();
  await eventually("it is told", async () => String((await status())["problem"]).includes(`stores "${inbox}"`));
  expect((await manager.streams.info(name)).state.consumer_count).toBe(0);
  await world.client.query(`SELECT nats_unsubscribe_stream('${name}')`);
  await publish("1");
  await subscribe(`, filter => '{${name}.>}'`);
  await eventually("it is there", async () => (await landed()).length === 1);
  expect(await status()).toMatchObject({ problem: null });
  await manager.streams.delete(name);
  await world.client.query(`SELECT nats_unsubscribe_stream('${name}')`);
});
