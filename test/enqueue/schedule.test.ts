/**
 * `schedule` and `unschedule`: what they refuse before Postgres is asked, and what a handler gets.
 */
import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import { type ScheduleOptions, type SqlClient, schedule, unschedule } from "../../src/jobs-and-peers/peer/index.js";
import { failure } from "../peer/support/errors.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { eventually } from "../support/eventually.js";
import { slowIt } from "../support/slow-it.js";
import { noTimersAbove } from "../support/timers.js";

const world = sharedPeerWorld();
const clients: pg.Client[] = [];

async function connected(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  clients.push(client);
  return client;
}
afterEach(async () => {
  for (const client of clients.splice(0)) {
    await client.query("DELETE FROM hawser_data.schedules");
    await client.end();
  }
});

/** Nothing is sent to it. */
const unasked: SqlClient = {
  query: (text) => {
    throw new Error(`It was asked: ${text}`);
  },
};

describe("schedule", () => {
  it("enqueues a message at each time, which the handler gets with the time and the name", async () => {
    const b = await world.working("b-1");
    // A change notifies, and the time of an occurrence is no poll.
    noTimersAbove(2_000);
    const client = await connected();
    const before = Date.now();
    await schedule(client, "tick", { cron: "* * * * * *", to: "b", payload: { a: 1 }, headers: { x: "1" }, key: "k" });
    await b.received.length(3);
    const [first, second] = b.received.all;
    expect(first).toMatchObject({ topic: "b", text: '{"a":1}' });
    const headers = Object.fromEntries(first!.headers as [string, string][]);
    expect(headers).toEqual({
      x: "1",
      "content-type": "application/json",
      "message-key": "k",
      "message-origin": expect.stringMatching(/^::/),
      "message-id": expect.stringContaining("tick@"),
      "schedule-name": "tick",
      "schedule-time": expect.any(String),
    });
    const timeOf = ({ headers }: { readonly headers: unknown }): number =>
      Date.parse(Object.fromEntries(headers as [string, string][])["schedule-time"]!);
    expect(timeOf(first!)).toBeGreaterThan(before - 1_000);
    expect(timeOf(second!)).toBe(timeOf(first!) + 1_000);
    expect([await unschedule(client, "tick"), await unschedule(client, "tick")]).toEqual([true, false]);
  });

  it("takes a string, bytes, an object or nothing as the payload, a topic or a subject", async () => {
    const client = await connected();
    const at = "0 0 1 1 *";
    await schedule(client, "text", { cron: at, to: "b", payload: "text", all: true, missed: "all" });
    await schedule(client, "bytes", { cron: at, to: "b", payload: new Uint8Array([255]), timezone: "Europe/Berlin" });
    await schedule(client, "nothing", { cron: at, to: "b" });
    await schedule(client, "core", { cron: at, to: { subject: "a.b" }, payload: "" });
    await schedule(client, "stream", { cron: at, to: { subject: "a.b", stream: true, domain: "hub" }, payload: [1] });
    const { rows } = await client.query(
      "SELECT name, kind, destination, encode(payload, 'escape') AS payload, headers, to_stream, domain, to_all, missed, timezone FROM hawser_data.schedules ORDER BY name",
    );
    const peer = {
      kind: "peer",
      destination: "b",
      to_stream: false,
      domain: null,
      to_all: false,
      missed: "one",
      timezone: "UTC",
    };
    const nats = { ...peer, kind: "nats", destination: "a.b" };
    const json = [["content-type", "application/json"]];
    expect(rows).toEqual([
      { ...peer, name: "bytes", payload: "\\377", headers: null, timezone: "Europe/Berlin" },
      { ...nats, name: "core", payload: "", headers: null },
      { ...peer, name: "nothing", payload: "{}", headers: json },
      {
        ...nats,
        name: "stream",
        payload: "[1]",
        headers: { "content-type": ["application/json"] },
        to_stream: true,
        domain: "hub",
      },
      { ...peer, name: "text", payload: "text", headers: null, to_all: true, missed: "all" },
    ]);
  });

  it.each<[string, unknown, string]>([
    ["a cron expression out of range", { cron: "60 * * * *" }, 'cron "60 * * * *"'],
    ["one of four fields", { cron: "* * * *" }, "five fields"],
    ["one of seven fields", { cron: "0 0 0 * * * 2030" }, "five fields"],
    ["a nickname", { cron: "@daily" }, "five fields"],
    ["a moment", { cron: "2030-01-01T00:00:00" }, "five fields"],
    ["one that never occurs", { cron: "0 0 30 2 *" }, "must occur"],
    ["one that is no string", { cron: 5 }, "cron 5: must be a string"],
    ["an unknown time zone", { timezone: "Europe/Berln" }, 'timezone "Europe/Berln"'],
    ["an offset as the time zone", { timezone: "+02:00" }, 'timezone "+02:00"'],
    ["an unknown policy", { missed: "some" }, 'missed "some"'],
    ["an empty payload for peers", { payload: "" }, "payload 0 bytes"],
    ["a payload of another type", { payload: 5 }, "payload"],
    ["a function as the payload", { payload: () => undefined }, "payload"],
    ["a payload that is too long", { payload: "x".repeat(1_048_577) }, "payload 1048577 bytes"],
    ["a header of its own", { headers: { "Schedule-Time": "x" } }, "Schedule-Time"],
    ["an empty key", { key: "" }, "key"],
    ["no destination", { to: undefined }, "destination"],
    ["a topic with a colon", { to: "a:b" }, "a:b"],
    ["a subject with a wildcard", { to: { subject: "a.*" } }, "a.*"],
    ["a domain without a stream", { to: { subject: "a", domain: "hub" } }, "domain hub"],
    ["all for NATS", { to: { subject: "a" }, all: true }, "all"],
    ["an unknown option", { tz: "UTC" }, '"tz" is not an option'],
    ["an id for all occurrences", { messageId: "x" }, '"messageId" is not an option'],
    ["a time besides those of the expression", { deliverAt: new Date() }, '"deliverAt" is not an option'],
    ["a time to live", { ttlMs: 1_000 }, '"ttlMs" is not an option'],
    ["an unknown option of a subject", { to: { subjekt: "a" } }, "did you mean subject"],
  ])("refuses %s", async (_, options, part) => {
    const given = { cron: "* * * * *", to: "b", ...(options as object) } as ScheduleOptions;
    const error = await failure("invalid_argument", schedule(unasked, "s", given));
    expect(error.message).toContain(part);
  });

  it("refuses a reserved topic, and names that cannot be parts of an id", async () => {
    const options = { cron: "* * * * *", to: "b" };
    await failure("internal_topic", schedule(unasked, "s", { ...options, to: "__#outbox" }));
    for (const name of ["", "a b", "a\n", "x".repeat(129)]) {
      await failure("invalid_argument", schedule(unasked, name, options), JSON.stringify(name));
      await failure("invalid_argument", unschedule(unasked, name), JSON.stringify(name));
    }
    await failure("invalid_argument", unschedule({ query: async () => undefined }, "s"), "without rows");
  });

  slowIt("goes on after the session of the relay is lost", async () => {
    const b = await world.working("b-1");
    const client = await connected();
    await schedule(client, "tick", { cron: "* * * * * *", to: "b", missed: "all" });
    await b.received.length(1);
    await client.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hawser: outbox for peers' AND datname = current_database()",
    );
    await eventually("more come", async () => b.received.all.length >= 4);
    const times = b.received.all.map(({ headers }) => new Map(headers as [string, string][]).get("schedule-time"));
    expect(new Set(times).size).toBe(times.length);
  });
});
