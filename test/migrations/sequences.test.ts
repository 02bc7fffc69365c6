/** Sequences that are behind the numbers in their tables, as after a move by logical replication, which copies tables alone. */
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { silentLogger, systemClock } from "../../src/foundation/runtime/index.js";
import { migrate } from "../../src/jobs-and-peers/migrations/index.js";
import { acquireDatabase } from "../../src/jobs-and-peers/peer-store/shared-database.js";
import { doctor } from "../../src/operating/doctor/index.js";
import { install } from "../../src/operating/installation/index.js";
import { TestPeer } from "../peer/support/world.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";

let database: TestDatabase;

const highest: Readonly<Record<string, number>> = {
  "hawser_data.dead_letters_id_seq": 17,
  "hawser_data.flow_ends_nth_seq": 3,
  "hawser_bridge_data.nats_handlers_id_seq": 4,
  "hawser_data.outbox_id_seq": 6,
  "hawser_bridge_data.saved_messages_id_seq": 9,
  "hawser_data.schedules_revision_seq": 1,
};

beforeEach(async () => {
  database = await testDatabase();
  onTestFinished(() => database.drop());
  await onServer(
    database.url,
    `INSERT INTO hawser_data.dead_letters (id, origin, source, topic, payload, error_code, error_message, attempts)
     VALUES (17, 'outbox', 'core', 'a', '', 'nats_refused', 'no', 1)`,
    `INSERT INTO hawser_bridge_data.nats_handlers (id, kind, subject, function_schema, function_name, argument_types, wrapper, token)
     VALUES (4, 'subscription', 'a', 'public', 'f', 'bytea', 'w', sha256('t'))`,
    "INSERT INTO hawser_bridge_data.saved_messages (id, handler_id, subject, payload, message_id) VALUES (9, 4, 'a', '', 'm')",
    "INSERT INTO hawser_data.flow_ends (nth, id, is_done, role) VALUES (3, 1, true, 'a')",
    "SELECT hawser.enqueue('a', 'x'), hawser.enqueue('a', 'y'), hawser.enqueue('a', 'z', deliver_at => now() + interval '1 year')",
    // Due later, it got its rank behind its id.
    "INSERT INTO hawser_data.queue (topic, role, rank, id, payload) VALUES ('a', 'z', 5, 5, ''), ('c', 'y', 6, 4, '')",
    "SELECT hawser.schedule('yearly', '0 0 1 1 *', 'a', 'x')",
    ...Object.keys(highest).map((name) => `ALTER SEQUENCE ${name} RESTART`),
  );
});

const behind = () => rowsOf(database.url, "SELECT * FROM hawser.behind_sequences(false)");
const findings = async () =>
  (await doctor({ databaseUrl: database.url, secretsDirectories: [] })).findings.filter(
    ({ check }) => check === "sequences",
  );

describe("sequences that are behind their tables", () => {
  it("are named by doctor with their numbers", async () => {
    const expected = Object.entries(highest).map(([name, number]) => ({
      severity: "error",
      what: `the sequence ${name} is at 0, behind the ${number} in its table, as after a move by logical replication`,
      remedy: "Run `hawser init`, or restart a peer or `hawser serve`: each raises it",
    }));
    expect(await findings()).toMatchObject(expected);
  });

  it.each<[string, () => Promise<unknown>]>([
    ["hawser init", () => install({ databaseUrl: database.url })],
    ["a program", () => migrate({ databaseUrl: database.url })],
  ])("are raised by the start of %s, and nothing collides with what is there", async (_, start) => {
    await expect(rowsOf(database.url, "SELECT hawser.enqueue('a', 'w')")).rejects.toMatchObject({ code: "23505" });
    await start();
    expect(await behind()).toEqual([]);
    expect(await findings()).toEqual([]);
    expect(await rowsOf(database.url, "SELECT hawser.enqueue('a', 'w') > 6 AS is_new")).toEqual([{ is_new: true }]);
  });

  it.each([
    [
      "a dead letter",
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, job_id)
       VALUES ('queue', '', 'a', '', 'handler_failed', 'no', 1, 70)`,
    ],
    [
      "a result",
      `INSERT INTO hawser_data.results (segment, id, role, topic, state, attempts, enqueued_at, ended_at, expires_at)
       VALUES (3, 70, 'z', 'a', 'done', 1, now(), now(), 'infinity')`,
    ],
  ])("are behind the id of a job that has ended, of which there is %s", async (_, sql) => {
    await onServer(database.url, sql);
    const found = await rowsOf(
      database.url,
      "SELECT sequence_name, highest::integer FROM hawser.behind_sequences(false)",
    );
    expect(found).toContainEqual({ sequence_name: "hawser_data.outbox_id_seq", highest: 70 });
  });

  it("are raised by the start of a peer, whose dead letter then has a number of its own", async () => {
    const options = { databaseUrl: database.url, defaults: { retry: { attempts: 1 } } };
    await using peer = new TestPeer({ ...options, name: "b-1", topic: "b" });
    await peer.record(() => {
      throw new Error("never");
    });
    expect(await behind()).toEqual([]);
    await using sender = new TestPeer({ ...options, name: "a-1", topic: "a" });
    await sender.record();
    await sender.send("b", "x");
    expect(await peer.saw("dead_letter")).toMatchObject({ stored: true });
    expect(await rowsOf(database.url, "SELECT id::integer FROM hawser_data.dead_letters ORDER BY 1")).toEqual([
      { id: 17 },
      { id: 18 },
    ]);
  });

  it("are raised by a process that runs, when its session moves to another server", async () => {
    const options = { clock: systemClock, logger: silentLogger, poolSize: 1 };
    const { database: shared, release } = await acquireDatabase({ databaseUrl: database.url }, options);
    shared.pool.server = "the server before";
    shared.session.restart();
    await eventually("they are raised", async () => (await behind()).length === 0);
    await release();
  });

  it("are not raised by a number that only a role could have written which wants to use them up", async () => {
    await onServer(
      database.url,
      "SELECT FROM hawser.behind_sequences(true)",
      "UPDATE hawser_bridge_data.saved_messages SET id = 9223372036854775807",
    );
    expect(await behind()).toEqual([]);
  });
});
