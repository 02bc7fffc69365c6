/** What waits and what has failed, as `hawser doctor` finds it, also for a login that sees counts, names and ages only. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/foundation/runtime/index.js";
import { certificatesCheck } from "../../src/operating/doctor/certificates.js";
import { databaseCheck } from "../../src/operating/doctor/database.js";
import { type DoctorReport, examine } from "../../src/operating/doctor/examine.js";
import { Facts } from "../../src/operating/doctor/facts.js";
import { leadCheck } from "../../src/operating/doctor/leader.js";
import { messageChecks } from "../../src/operating/doctor/messages.js";
import { outboxChecks } from "../../src/operating/doctor/outbox.js";
import { type Login, login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";

let database: TestDatabase;
let viewer: Login & AsyncDisposable;
beforeAll(async () => {
  database = await testDatabase();
  viewer = await login(database.url, "IN ROLE hawser_viewer");
  await onServer(
    database.url,
    `INSERT INTO hawser_peer_data.topics (topic, id) VALUES ('orders', 1)`,
    `INSERT INTO hawser_peer_data.channels (channel_name, channel_id) VALUES ('a:b:orders-1', 1)`,
    `INSERT INTO hawser_peer_data.peers (name, epoch) VALUES ('orders-1', 1)`,
    `INSERT INTO hawser_peer_data.stored_messages (channel_id, epoch, number, topic_id, payload, stored_at)
     VALUES (1, 1, 1, 1, '', now() - interval '5 h'), (1, 1, 2, 1, '', now())`,
    // A worker that is silent has a message; another one is to be tried again.
    `INSERT INTO hawser_data.workers (id, name, topics, lease_ms, concurrency, beat_at)
     VALUES (1, 'silent', '{bills}', 15000, 1, now() - interval '2 min'), (2, 'other', '{refunds}', 15000, 1, now())`,
    `INSERT INTO hawser_data.queue (topic, rank, id, payload, worker, due_at, enqueued_at)
     VALUES ('mistyped', 1, 1, '', NULL, NULL, now() - interval '2 min'), ('new', 2, 2, '', NULL, NULL, now()),
            ('bills', 3, 3, '', 1, NULL, now() - interval '3 min'), ('refunds', 4, 4, '', NULL, now() + interval '1 h', now() - interval '1 h')`,
    // Nobody hands over what is due.
    `INSERT INTO hawser_data.queue (topic, recipient, rank, id, later, later_xid, due_at, payload)
     VALUES ('orders', '~', 5, 5, 'peer', pg_current_xact_id(), now() - interval '4 min', '')`,
    `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts)
     SELECT 'queue', '', 'orders', 'x', 'handler_failed', 'm', 1 FROM generate_series(1, 1000)`,
    `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts)
     VALUES ('outbox', 'core', 'subject', 'x', 'nats_failed', 'm', 1)`,
  );
});
afterAll(async () => {
  await viewer?.[Symbol.asyncDispose]();
  await database?.drop();
});

async function examined(databaseUrl: string): Promise<DoctorReport> {
  using facts = new Facts({ databaseUrl, secretsDirectories: [] });
  const checks = [
    databaseCheck(facts),
    leadCheck(facts),
    ...messageChecks(facts),
    ...outboxChecks(facts),
    certificatesCheck(facts),
  ];
  return examine(checks, { totalMs: 25_000, clock: systemClock });
}

describe("hawser doctor", () => {
  it.each([
    ["a superuser", () => database.url],
    ["a login with hawser_viewer alone", () => viewer.url],
  ])("names at once what nobody reads and what nobody serves, errors first, for %s", async (_, url) => {
    const { ok, findings, checks } = await examined(url());
    expect(ok).toBe(false);
    expect(findings.map(({ severity, check, what }) => [severity, check, what])).toEqual([
      [
        "error",
        "dead-letters",
        expect.stringMatching(/^1000 messages of the queue were dead-lettered, .* most with handler_failed$/),
      ],
      // The last to wait first.
      [
        "error",
        "stored-messages",
        '1 message waits for the topic "mistyped", the oldest for 2 min, and no listener of it is known',
      ],
      ["error", "stored-messages", '1 message waits for "silent", the oldest for 3 min, and it does not run'],
      ["error", "stored-messages", '2 messages wait for "orders-1", the oldest for 5 h, and it does not run'],
      ["error", "outbox", "a message for peers was due 4 min ago, and no process moves it to the queue"],
      ["warning", "dead-letters", expect.stringContaining("1 message of the outbox was dead-lettered")],
    ]);
    expect(checks.filter(({ outcome }) => outcome === "not_checked")).toEqual([]);
  });

  it("has one finding for many backlogs of one kind, with the last ones, behind what is alone of its kind", async () => {
    await using own = await testDatabase();
    await onServer(
      own.url,
      `INSERT INTO hawser_data.queue (topic, rank, id, payload, enqueued_at)
       SELECT 'old' || n, n, n, 'x', now() - interval '3 h' - n * interval '1 min' FROM generate_series(1, 298) AS n;
       INSERT INTO hawser_data.queue (topic, rank, id, payload, enqueued_at) VALUES ('mistypd', 300, 300, 'x', now() - interval '2 min');
       INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name) VALUES ('mails', '127.0.0.1:1', 'mails-1');
       INSERT INTO hawser_data.queue (topic, rank, id, payload, enqueued_at) VALUES ('mails', 301, 301, 'x', now() - interval '5 h')`,
    );
    const { findings } = await examined(own.url);
    expect(findings.filter(({ check }) => check === "stored-messages").map(({ what }) => what)).toEqual([
      '1 message waits for the topic "mails", the oldest for 5 h, and no listener of it runs',
      '299 messages wait for 299 topics, and no listener of them is known. The last to wait are "mistypd" (2 min), "old1" (3 h), "old2" (3 h), the first one waits for 7 h',
    ]);
  });

  it("says who served a topic last that nobody serves now", async () => {
    await using own = await testDatabase();
    await onServer(
      own.url,
      `INSERT INTO hawser_data.queue (topic, rank, id, payload, enqueued_at) VALUES ('mails', 1, 1, 'x', now() - interval '2 min');
       INSERT INTO hawser_data.served_topics (role, topic, name, served_until) VALUES ('app', 'mails', 'mails-1', '2030-01-31T10:32:00Z')`,
    );
    const { findings } = await examined(own.url);
    expect(findings.filter(({ check }) => check === "stored-messages").map(({ what }) => what)).toEqual([
      '1 message waits for the topic "mails", the oldest for 2 min, and no listener of it runs: it was last served by "mails-1" until 2030-01-31T10:32:00.000Z',
    ]);
  });

  it("notes what waits because all places of its workers are taken by handlers that take long", async () => {
    await using own = await testDatabase();
    const full = (topic: string, ms: number) =>
      JSON.stringify({ full: true, oldest_ms: ms, topics: { [topic]: { running: 1, oldest_ms: ms, full: true } } });
    await onServer(
      own.url,
      `INSERT INTO hawser_data.workers (name, topics, lease_ms, concurrency, running)
       VALUES ('w-1', '{slow}', 15000, 1, '${full("slow", 2_500)}'), ('w-2', '{slow}', 15000, 1, '${full("slow", 9_000)}'),
              ('w-3', '{fast}', 15000, 1, '${full("fast", 1_999)}'),
              ('w-4', '{half}', 15000, 1, '${full("half", 9_000)}'), ('w-5', '{half}', 15000, 1, NULL)`,
      `INSERT INTO hawser_data.queue (topic, rank, id, payload, enqueued_at)
       SELECT t.topic, t.n, t.n, '', now() - interval '1 min'
         FROM (VALUES ('slow', 1), ('slow', 2), ('fast', 3), ('half', 4)) AS t (topic, n)`,
    );
    const { findings } = await examined(own.url);
    expect(findings.map(({ severity, what }) => [severity, what])).toEqual([
      [
        "note",
        '2 messages wait for the topic "slow", the oldest for 60 s: all places of its 2 workers are taken, and in "w-2" a handler has been running for 9 s',
      ],
    ]);
    expect(findings[0]!.remedy).toMatch(/^Make the handler faster, or start more workers: hawser pending --topic=slow/);
  });

  it("reports the TLS certificates of running gateways before they end, also to a login with hawser_viewer alone", async () => {
    await using own = await testDatabase();
    await using watcher = await login(own.url, "IN ROLE hawser_viewer");
    const said = async (ends: string): Promise<unknown> => {
      await onServer(
        own.url,
        `INSERT INTO hawser_bridge_data.gateways (host, port, owner, seen_at, certificate_ends_at)
         VALUES ('a', 1, 'a', now(), now() + interval '300 days'), ('b', 1, 'b', now(), ${ends}), ('c', 1, 'gone', now() - interval '1 h', now())
         ON CONFLICT (host, port, owner) DO UPDATE SET certificate_ends_at = excluded.certificate_ends_at`,
      );
      return (await examined(watcher.url)).findings.map(({ severity, check, what }) => [severity, check, what]);
    };
    const certificate = (severity: string, how: string) => [
      [severity, "certificates", `the TLS certificate of \`hawser serve\` ${how}`],
    ];
    expect(await said("now() + interval '15 days'")).toEqual([]);
    expect(await said("now() + interval '13.5 days'")).toEqual(certificate("warning", "ends in 13 d"));
    expect(await said("now() - interval '3 h'")).toEqual(certificate("error", "ended 3 h ago"));
  });

  it("names a topic in a command so that a shell takes it for one word", async () => {
    await using own = await testDatabase();
    await onServer(
      own.url,
      "INSERT INTO hawser_data.queue (topic, rank, id, payload, enqueued_at) VALUES ('x''; $(reboot)', 1, 1, '', now() - interval '2 min')",
    );
    const { findings } = await examined(own.url);
    expect(findings[0]!.remedy).toContain(`hawser pending --topic='x'\\''; $(reboot)'`);
  });
});
