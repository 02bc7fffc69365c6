/**
 * The outbox from end to end: what a transaction enqueues reaches NATS if, and only if, it commits.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import { nuid } from "@nats-io/transport-node";
import type pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { serve as startServer } from "../../src/nats/serve/index.js";
import { eventually } from "../support/eventually.js";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { startNatsServer } from "../support/nats-server.js";

let gateway: TestGateway;
let session: pg.Client;
beforeAll(async () => {
  gateway = await testGateway({ tuning: { missingStreamMs: 0 } });
  session = await gateway.connect();
});
afterAll(async () => {
  await session?.end();
  await gateway?.[Symbol.asyncDispose]();
});

/** A stream of its own, and what it has. */
async function stream(): Promise<{ subject: string; messages(): Promise<{ text: string; id: string | undefined }[]> }> {
  const name = nuid.next();
  const manager = await jetstreamManager(gateway.nats);
  await manager.streams.add({ name, subjects: [`${name}.>`] });
  return {
    subject: `${name}.placed`,
    async messages() {
      const { state } = await manager.streams.info(name);
      const all = [];
      for (let seq = 1; seq <= state.last_seq; seq++) {
        const message = await manager.streams.getMessage(name, { seq });
        all.push({ text: message!.string(), id: message!.header.get("Nats-Msg-Id") });
      }
      return all;
    },
  };
}

it("a stream receives committed messages in order, and none that were rolled back", async () => {
  const { subject, messages } = await stream();
  await session.query("BEGIN");
  await session.query("SELECT hawser.enqueue($1, 'one', stream => true, key => 'k')", [subject]);
  await session.query("SAVEPOINT s");
  await session.query("SELECT hawser.enqueue($1, 'taken back', stream => true, key => 'k')", [subject]);
  await session.query("ROLLBACK TO s");
  await session.query(
    "SELECT hawser.enqueue($1, '{\"n\": 2}'::jsonb, stream => true, key => 'k', message_id => 'mine')",
    [subject],
  );
  expect(await messages()).toEqual([]);
  await session.query("COMMIT");
  await session.query("BEGIN");
  await session.query("SELECT hawser.enqueue($1, 'never', stream => true, key => 'k')", [subject]);
  await session.query("ROLLBACK");
  await session.query("SELECT hawser.enqueue_batch($1, ARRAY['three', 'four'], stream => true, key => 'k')", [subject]);
  await eventually("all have arrived", async () => (await messages()).length >= 4);
  const arrived = await messages();
  expect(arrived.map(({ text }) => text)).toEqual(["one", '{"n": 2}', "three", "four"]);
  expect(arrived[1]!.id).toBe("mine");
});

it("core NATS receives a message after the commit", async () => {
  const subject = nuid.next();
  const received: string[] = [];
  const subscription = gateway.nats.subscribe(subject, {
    callback(_, message) {
      received.push(`${message.string()} ${message.headers?.get("Trace")}`);
    },
  });
  await gateway.nats.flush();
  await session.query("BEGIN");
  await session.query("SELECT hawser.enqueue($1, 'hello', stream => false, headers => '{\"Trace\": \"17\"}')", [
    subject,
  ]);
  expect(received).toEqual([]);
  await session.query("COMMIT");
  await eventually("it has arrived", () => received.length > 0);
  expect(received).toEqual(["hello 17"]);
  subscription.unsubscribe();
});

it("a message that was cancelled in its transaction is not published, and one that was published cannot be cancelled", async () => {
  const { subject, messages } = await stream();
  const put = "SELECT hawser.enqueue($1, $2, stream => true) AS id";
  const cancel = "SELECT hawser.cancel($1) AS state";
  await session.query("BEGIN");
  const { rows: never } = await session.query(put, [subject, "never"]);
  const { rows: first } = await session.query(put, [subject, "first"]);
  expect((await session.query(cancel, [never[0].id])).rows).toEqual([{ state: "cancelled" }]);
  await session.query("COMMIT");
  await session.query(put, [subject, "second"]);
  await eventually("the others are there", async () => (await messages()).length === 2);
  expect((await messages()).map(({ text }) => text)).toEqual(["first", "second"]);
  const state = async () => (await session.query(cancel, [first[0].id])).rows[0].state;
  await eventually("the relay has passed it", async () => (await state()) === "not_waiting");
});

it("a message that no stream accepts becomes a dead letter, and blocks no others", async () => {
  const { subject, messages } = await stream();
  const nowhere = nuid.next();
  await session.query(
    "SELECT hawser.enqueue($1, 'lost?', stream => true, key => 'k', headers => '{\"A\": [\"1\", \"2\"]}')",
    [nowhere],
  );
  await session.query("SELECT hawser.enqueue($1, 'next', stream => true, key => 'k')", [subject]);
  await eventually("the other one has arrived", async () => (await messages()).length === 1);
  const dead = async () =>
    (
      await session.query(
        "SELECT origin, topic, convert_from(payload, 'UTF8') AS text, headers, error_code, attempts FROM hawser_data.dead_letters WHERE topic = $1",
        [nowhere],
      )
    ).rows;
  await eventually("it is a dead letter", async () => (await dead()).length > 0);
  expect(await dead()).toEqual([
    {
      origin: "outbox",
      topic: nowhere,
      text: "lost?",
      headers: [
        ["A", "1"],
        ["A", "2"],
      ],
      error_code: "no_stream",
      attempts: 5,
    },
  ]);

  const late = nuid.next();
  const manager = await jetstreamManager(gateway.nats);
  await manager.streams.add({ name: late, subjects: [nowhere] });
  const { rows } = await session.query(
    "SELECT r.enqueued FROM hawser_data.dead_letters AS d, hawser.retry_dead_letters(ARRAY[d.id]) AS r WHERE d.topic = $1",
    [nowhere],
  );
  expect(rows).toEqual([{ enqueued: true }]);
  expect(await dead()).toEqual([]);
  await eventually("it is in the stream", async () => (await manager.streams.info(late)).state.messages === 1);
  const stored = await manager.streams.getMessage(late, { seq: 1 });
  expect([stored!.string(), stored!.header.values("A")]).toEqual(["lost?", ["1", "2"]]);
});

it("a message without a stream waits for one that is created a little later", async () => {
  await using other = await testGateway();
  const name = nuid.next();
  let wasTried = false;
  other.nats.subscribe("$JS.API.STREAM.NAMES", {
    callback: (_, { data }) => {
      wasTried ||= Buffer.from(data).includes(name);
    },
  });
  await other.nats.flush();
  await other.client.query("SELECT hawser.enqueue($1, 'first', stream => true)", [name]);
  const manager = await jetstreamManager(other.nats);
  await eventually("it was tried, and asked for its stream", () => wasTried);
  await manager.streams.add({ name, subjects: [name] });
  await eventually("it is there", async () => (await manager.streams.info(name)).state.messages === 1);
  expect(await other.value("SELECT count(*)::integer FROM hawser_data.dead_letters")).toBe(0);
});

it("a message that the NATS user may not publish becomes a dead letter, for core NATS too", async () => {
  await using server = await startNatsServer({
    jetStream: true,
    config: `authorization { users: [{ user: u, password: p, permissions: { publish: { deny: ["closed.>"] } } }] }
      no_auth_user: u`,
  });
  await using closed = await testGateway({ natsUrl: server.url });
  const manager = await jetstreamManager(closed.nats);
  await manager.streams.add({ name: "closed", subjects: ["closed.stream"] });
  const { client } = closed;
  await client.query("SELECT hawser.enqueue_batch('closed.core', ARRAY['1', '2'], stream => false)");
  await client.query("SELECT hawser.enqueue('closed.stream', '3', stream => true)");
  const dead = async () =>
    (
      await client.query(
        "SELECT convert_from(payload, 'UTF8') AS text, error_code FROM hawser_data.dead_letters WHERE origin = 'outbox' ORDER BY 1",
      )
    ).rows;
  await eventually("they are dead letters", async () => (await dead()).length === 3);
  expect(await dead()).toEqual(["1", "2", "3"].map((text) => ({ text, error_code: "nats_permission_denied" })));
});

it("a relay that has lost its session takes over again, since a crash may undo transactions that it has seen", async () => {
  const { subject, messages } = await stream();
  // Its relay retries for longer afterwards, before messages become dead letters.
  await using lost = await testGateway();
  const owner = async (): Promise<string> =>
    (await lost.client.query("SELECT owner FROM hawser_data.outbox_turns ORDER BY turn DESC LIMIT 1")).rows[0]?.owner ??
    "";
  await eventually("a relay has taken over", async () => (await owner()) !== "");
  const before = await owner();
  await lost.client.query(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hawser serve: outbox' AND datname = current_database()",
  );
  await lost.client.query("SELECT hawser.enqueue($1, 'behind it', stream => true)", [subject]);
  await eventually("it has arrived", async () => (await messages()).length === 1);
  await eventually("it has taken over", async () => (await owner()) !== before);
});

it("messages enqueued while no relay ran are published or dead-lettered by the next process", async () => {
  const { subject, messages } = await stream();
  const nowhere = nuid.next();
  await using stopped = await testGateway();
  await stopped.client.query("SELECT hawser.enqueue($1, 'early', stream => true)", [subject]);
  await eventually("its relay is at work", async () => (await messages()).length === 1);
  await stopped.serve.stop();
  await stopped.client.query("SELECT hawser.enqueue($1, 'late', stream => true)", [subject]);
  await stopped.client.query("SELECT hawser.enqueue($1, 'lost', stream => true)", [nowhere]);
  await using next = await startServer({
    listen: "127.0.0.1:0",
    databaseUrl: stopped.database.url,
    tuning: { missingStreamMs: 0 },
  });
  expect(next.sessionCount).toBe(0);
  await eventually("it has arrived", async () => (await messages()).length === 2);
  await eventually("the other is a dead letter", async () => {
    const { rows } = await stopped.client.query("SELECT FROM hawser_data.dead_letters WHERE topic = $1", [nowhere]);
    return rows.length === 1;
  });
});
