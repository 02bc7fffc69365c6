/**
 * A step that checks and indexes a table of millions of rows, beside running peers and a backup: no send waits for longer than a
 * second, and the installation ends, or says for whom it waits.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import { DatabaseAddress } from "../../src/postgres/index.js";
import { applyMissing, Preparation } from "../../src/store/index.js";
import { peerWorld } from "../peer/support/world.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";
import { madeStep, stepsWithMade } from "./support/made-step.js";

const storedMessages = atDepth(5_000_000);
const senders = 10;
const pairs = 5;

/** The bound of the promise in docs/compatibility.md. */
const longestWaitMs = 1_000;

it("a step of the schema holds up no send for longer than a second, with millions of stored messages", async () => {
  const world = await peerWorld();
  onTestFinished(() => world[Symbol.asyncDispose]());
  // Its index at once.
  await onServer(
    world.url,
    "ALTER TABLE hawser_data.conn_messages DROP CONSTRAINT conn_messages_pkey",
    `INSERT INTO hawser_data.conn_messages (connection_key, epoch, number, topic_key, payload)
     SELECT 1000000 + n % 100, 1, n, 1, 'stored' FROM generate_series(1, ${storedMessages}) AS n`,
    "ALTER TABLE hawser_data.conn_messages ADD CONSTRAINT conn_messages_pkey PRIMARY KEY (connection_key, epoch, number)",
  );

  await world.list("away", "away-1", { durable: true });
  const numbered = (count: number) => Array.from({ length: count }, (_, n) => n);
  const storing = await world.running(...numbered(senders).map((n) => `sender${n}-1`));
  await world.running(...numbered(pairs).map((n) => `listener${n}-1`));
  const sending = await world.running(...numbered(pairs).map((n) => `live${n}-1`));

  let waits: number[] = [];
  let isOver = false;
  const send = async (peer: (typeof storing)[number], topic: string, expected: string): Promise<void> => {
    for (let n = 0; !isOver; n += 1) {
      const began = performance.now();
      expect((await peer.send(topic, `message ${n}`)).outcome).toBe(expected);
      waits.push(performance.now() - began);
      await delay(20);
    }
  };
  const load = Promise.all([
    ...storing.map((peer) => send(peer, "away", "stored")),
    ...sending.map((peer, n) => send(peer, `listener${n}`, "delivered")),
  ]);
  /** The longest wait of the sends from now on that end before as many have ended. */
  const longestOf = async (count: number): Promise<number> => {
    waits = [];
    await eventually(`${count} messages are sent`, () => waits.length >= count);
    return Math.max(...waits);
  };
  const control = await longestOf(1_000);

  const connected = async (): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: world.url });
    await client.connect();
    onTestFinished(() => client.end());
    return client;
  };
  const backup = await connected();
  await backup.query(
    "BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE hawser_data.conn_messages, hawser_data.peers IN ACCESS SHARE MODE",
  );
  const [{ pid }] = (await backup.query("SELECT pg_backend_pid() AS pid")).rows;
  const lines: string[] = [];
  const onWait = (line: string): void => void lines.push(line);
  const preparation = new Preparation(await connected(), { address: DatabaseAddress.of(world.url), onWait });
  waits = [];
  let hasEnded = false;
  const migrating = applyMissing(preparation, stepsWithMade).finally(() => {
    hasEnded = true;
  });
  await eventually("it says for whom it waits", () => lines.some((line) => line.includes(`the session ${pid} (`)));
  const besideBackup = Math.max(...waits);
  expect(hasEnded).toBe(false);
  await backup.query("COMMIT");
  waits = [];
  expect(await migrating).toEqual([madeStep]);
  const afterBackup = Math.max(...waits);
  const sent = waits.length;
  isOver = true;
  await load;

  const ms = (wait: number): string => `${Math.round(wait)} ms`;
  console.log(
    `longest wait of a send: ${ms(control)} before, ${ms(besideBackup)} beside the backup, ${ms(afterBackup)} of ${sent} during the step`,
  );
  expect(Math.max(besideBackup, afterBackup)).toBeLessThan(longestWaitMs + control);
});
