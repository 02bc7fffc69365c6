/**
 * Publishing again what a NATS server has lost, the state of the outbox, and the command for both.
 */

import { setTimeout } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { nanos, nuid } from "@nats-io/transport-node";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { scans } from "../../src/nats/outbox/nats-publisher.js";
import { serve as startServer } from "../../src/nats/serve/index.js";
import { hawser, jsonLines } from "../cli/support/hawser.js";
import { eventually } from "../support/eventually.js";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { startNatsServer } from "../support/nats-server.js";
import { slowIt } from "../support/slow-it.js";

let gateway: TestGateway;
let client: pg.Client;
beforeAll(async () => {
  gateway = await testGateway();
  ({ client } = gateway);
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

const outbox = (...args: string[]) => hawser(["outbox", ...args], { databaseUrl: gateway.database.url });

async function stream(name = nuid.next()) {
  const manager = await jetstreamManager(gateway.nats);
  const make = () => manager.streams.add({ name, subjects: [`${name}.>`] });
  await make();
  return {
    subject: `${name}.placed`,
    /** As a server that has lost everything: it knows no ids either. */
    async lose(): Promise<void> {
      await manager.streams.delete(name);
      await make();
    },
    async consumers(): Promise<number> {
      return (await manager.streams.info(name)).state.consumer_count;
    },
    async texts(): Promise<string[]> {
      const { state } = await manager.streams.info(name);
      const all = [];
      for (let seq = 1; seq <= state.last_seq; seq++)
        all.push((await manager.streams.getMessage(name, { seq }))!.string());
      return all;
    },
  };
}

/** Nothing waits any more. */
const isDone = async (): Promise<boolean> =>
  (await gateway.value("SELECT waiting::integer FROM hawser.outbox_status WHERE kind = 'nats'")) === 0;

describe("a replay", () => {
  it("restores messages that the stream has lost, in order and without duplicates", async () => {
    const { subject, lose, texts } = await stream();
    const other = await stream();
    const texts100 = Array.from({ length: 100 }, (_, nth) => `m${nth}`);
    await client.query("SELECT hawser.enqueue_batch($1, $2::text[], stream => true, key => 'k')", [subject, texts100]);
    await client.query("SELECT hawser.enqueue_batch($1, $2::text[], stream => true, key => 'k')", [
      other.subject,
      ["a", "b"],
    ]);
    await eventually("all are there", async () => (await texts()).length === 100 && (await other.texts()).length === 2);
    await eventually("nothing waits", isDone);
    await lose();
    expect(await texts()).toEqual([]);
    const pattern = subject.replace(/placed$/, "*");
    expect(await gateway.value("SELECT hawser.outbox_replay(now() - interval '1 h', $1)", [pattern])).toBe("100");
    await eventually("all are back", async () => (await texts()).length === 100);
    expect(await texts()).toEqual(texts100);
    await eventually("nothing waits", isDone);
    const { status, stdout } = await outbox("replay", "--since", "1h", "--json");
    expect([status, JSON.parse(stdout).replayed]).toEqual([0, expect.toSatisfy((count: number) => count >= 102)]);
    await eventually("nothing waits", isDone);
    // Whoever repeats it does not double what there is.
    expect(await gateway.value("SELECT hawser.outbox_replay(now() - interval '1 h', $1)", [pattern])).toBe("100");
    await eventually("nothing waits", isDone);
    expect([await texts(), await other.texts()]).toEqual([texts100, ["a", "b"]]);
  });

  it("searches for many subjects, a few at a time, and leaves no consumer in their stream", async () => {
    const { subject, lose, texts, consumers } = await stream();
    await client.query("SELECT hawser.enqueue($1 || i, 'm', stream => true) FROM generate_series(1, 100) AS i", [
      subject,
    ]);
    await eventually("all are there", async () => (await texts()).length === 100);
    await eventually("nothing waits", isDone);
    await lose();
    await client.query("SELECT hawser.enqueue($1, 'm', stream => true)", [`${subject}1`]);
    await eventually("one is there", async () => (await texts()).length === 1);
    const pattern = subject.replace(/placed$/, "*");
    await gateway.value("SELECT hawser.outbox_replay(now() - interval '1 h', $1)", [pattern]);
    const counts: number[] = [];
    await eventually("all are back", async () => {
      counts.push(await consumers());
      return (await texts()).length === 101;
    });
    expect(Math.max(...counts)).toBeLessThanOrEqual(2 * scans);
    await eventually("no consumer is left", async () => (await consumers()) === 0);
  });

  it("retries the search of a stream that JetStream cannot answer now, and does not publish blindly", async () => {
    await using server = await startNatsServer({
      jetStream: true,
      config: `mappings: { "$JS.API.STREAM.NAMES": "names" }`,
    });
    await using other = await testGateway({ natsUrl: server.url });
    const name = nuid.next();
    const manager = await jetstreamManager(other.nats);
    await manager.streams.add({ name, subjects: [name], duplicate_window: nanos(100) });
    const stored = async () => (await manager.streams.info(name)).state.messages;
    let asked = 0;
    other.nats.subscribe("names", {
      callback(_, request) {
        asked += 1;
        const error = { code: 503, err_code: 10008, description: "JetStream system temporarily unavailable" };
        request.respond(JSON.stringify(asked < 4 ? { error } : { total: 1, offset: 0, limit: 1, streams: [name] }));
      },
    });
    await other.nats.flush();
    await other.client.query("SELECT hawser.enqueue($1, 'once', stream => true)", [name]);
    await eventually("it is there", async () => (await stored()) === 1);
    await setTimeout(200);
    expect(await other.value("SELECT hawser.outbox_replay(now() - interval '1 h')")).toBe("1");
    await eventually("nothing waits", async () => {
      const waiting = await other.value("SELECT waiting::integer FROM hawser.outbox_status WHERE kind = 'nats'");
      return asked > 0 && waiting === 0;
    });
    expect(await stored()).toBe(1);
    expect(asked).toBeGreaterThanOrEqual(4);
  });

  slowIt("finds messages younger than the retention, even if the other segments are empty", async () => {
    const outboxRetentionMs = 600_000;
    await using other = await testGateway({ outboxRetentionMs });
    const { subject } = await stream();
    const enqueue = async (): Promise<void> => {
      await other.client.query("SELECT hawser.enqueue($1, 'x', stream => true)", [subject]);
      await eventually("nothing waits", async () => {
        const waiting = await other.value("SELECT waiting::integer FROM hawser.outbox_status WHERE kind = 'nats'");
        return waiting === 0;
      });
    };
    const count = () => other.value<number>("SELECT count(*)::integer FROM hawser_data.outbox");
    await enqueue();
    await other.serve.stop();
    /** Runs another relay, for which the message is older, and its segment the next to be emptied. */
    const later = async (minutes: number, then: () => Promise<unknown>): Promise<void> => {
      await other.client.query("UPDATE hawser_data.outbox SET enqueued_at = now() - $1 * interval '1 min'", [minutes]);
      await other.client.query(
        "SELECT setval('hawser_data.outbox_state_segment_seq', 3 + max(segment)) FROM hawser_data.outbox",
      );
      const serve = await startServer({
        listen: "127.0.0.1:0",
        databaseUrl: other.database.url,
        outboxRetentionMs,
      });
      await then().finally(() => serve.stop());
    };
    await later(6, enqueue);
    expect(await count()).toBe(2);
    await other.client.query("DELETE FROM hawser_data.outbox WHERE id > (SELECT min(id) FROM hawser_data.outbox)");
    await later(11, () => eventually("it is gone", async () => (await count()) === 0));
  });

  it("skips core NATS unless it is requested", async () => {
    const subject = nuid.next();
    const received: string[] = [];
    gateway.nats.subscribe(subject, { callback: (_, message) => void received.push(message.string()) });
    await gateway.nats.flush();
    await client.query("SELECT hawser.enqueue($1, 'once', stream => false)", [subject]);
    await eventually("it is there", () => received.length === 1);
    await eventually("nothing waits", isDone);
    expect(await gateway.value("SELECT hawser.outbox_replay(now() - interval '1 h', $1)", [subject])).toBe("0");
    expect(
      await gateway.value("SELECT hawser.outbox_replay(now() - interval '1 h', $1, core => true)", [subject]),
    ).toBe("1");
    await eventually("it is there again", () => received.length === 2);
  });

  it.each([
    ["NULL", "22004", /since is NULL/],
    ["now(), 'a b'", "22023", /subject is "a b"/],
    ["now(), 'a.>.b'", "22023", /the last '>'/],
    ["now(), NULL, now()", "22023", /is not behind since/],
  ])("of %s is refused", async (given, code, message) => {
    expect(await gateway.errorOf(`SELECT hawser.outbox_replay(${given})`)).toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });
});

describe("hawser outbox", () => {
  it("shows the status and scheduled messages, and cancels one", async () => {
    await eventually("nothing of other tests waits", isDone);
    const { rows } = await client.query(
      "SELECT hawser.enqueue('later.subject', 'abc', stream => false, key => 'k', deliver_at => '2030-01-31T12:00:00Z') AS id",
    );
    const { id } = rows[0];
    const [nats, ...others] = jsonLines((await outbox("status", "--json")).stdout);
    expect(nats).toMatchObject({ kind: "nats", waiting: 0, later: 1, nextDueAt: "2030-01-31T12:00:00.000Z" });
    expect(nats!["segments"]).toHaveLength(3);
    expect(others).toEqual([]);
    expect((await outbox("status")).stdout).toMatch(/^WAITING .* RELAY .*\n +0 /);
    const [listed] = jsonLines((await outbox("list", "--to", "later.subject", "--json")).stdout);
    expect(listed).toMatchObject({ id, destination: "later.subject", key: "k", payloadBytes: 3 });
    expect((await outbox("list")).stdout).toContain("2030-01-31T12:00:00.000Z");
    expect((await outbox("list", "--to", "later")).stderr).toContain("No message for NATS is due later");
    expect(await outbox("cancel", id)).toMatchObject({ status: 0, stdout: "Cancelled 1 message.\n" });
    const again = await outbox("cancel", id, "--json");
    expect(again).toMatchObject({ status: 64, stderr: expect.stringContaining(`no message ${id} waits`) });
    expect(jsonLines(again.stdout)).toEqual([{ id, outcome: "not_waiting" }]);
  });

  it("shows waiting messages and their age", async () => {
    const waiting = await stream();
    await using stopped = await testGateway();
    const enqueue = "SELECT hawser.enqueue($1, 'x', stream => true)";
    await stopped.client.query(enqueue, [waiting.subject]);
    await eventually("its relay is at work", async () => (await waiting.texts()).length === 1);
    await stopped.serve.stop();
    await stopped.client.query(enqueue, [waiting.subject]);
    const { rows } = await stopped.client.query("SELECT * FROM hawser.outbox_status WHERE kind = 'nats'");
    expect(rows[0]).toMatchObject({ waiting: "1", oldest_waiting_for: waiting.subject, relay: null });
    expect(rows[0].oldest_waiting_at).toBeInstanceOf(Date);
  });

  it.each([
    [["drop"], /It can status, list, cancel, replay/],
    [["replay"], /set the start, such as --since 10m/],
    [["replay", "--since", "soon"], /--since "soon" is not a moment/],
    [["cancel"], /name the messages/],
    [["cancel", "17", "--yes"], /--yes goes with --to/],
    [["cancel", "x"], /"x" is not the id of a message/],
    [["status", "17"], /ids go with cancel/],
    [["status", "--since", "1h"], /--since goes with replay/],
    [["cancel", "17", "--key", "a"], /--key and --older-than go with --to/],
    [["cancel", "17", "--flow"], /Unknown option '--flow'/],
  ])("refuses %j", async (args, message) => {
    expect(await outbox(...args)).toMatchObject({ status: 64, stderr: expect.stringMatching(message) });
  });
});
