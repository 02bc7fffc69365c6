/** The overview, its numbers and alarms, the pages of a topic, a peer and a schedule, and lists in their orders. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { silentLogger, systemClock } from "../../src/foundation/runtime/index.js";
import { Glances, sections, signsOf } from "../../src/operating/console/index.js";
import { openDatabase } from "../../src/operating/operate/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { ManualClock } from "../support/manual-clock.js";
import { onServer } from "../support/on-server.js";
import { type PageClient, pageClient, viewerOf } from "./support/page-world.js";

let database: TestDatabase;
let client: PageClient;
beforeAll(async () => {
  database = await testDatabase();
  await onServer(
    database.url,
    `INSERT INTO hawser_data.workers (name, topics, lease_ms, concurrency, running) VALUES
       ('w-1', '{mails}', 600000, 2, '{"full": true, "oldest_ms": 90000, "topics": {"mails": {"running": 2, "oldest_ms": 90000, "full": true}}, "totals": {"mails": [75, 3]}}'),
       ('w-2', '{mails}', 600000, 2, '{"totals": {"mails": [25, 0]}}')`,
    "SELECT hawser.enqueue('mails', 'x'), hawser.enqueue('mials', 'x') FROM generate_series(1, 3)",
    "UPDATE hawser_data.queue SET enqueued_at = now() - interval '7 min' WHERE topic = 'mials'",
    "SELECT hawser.schedule('nightly', '0 3 * * *', topic => 'mails', payload => 'x')",
    `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, created_at)
     SELECT 'queue', '', t, 'x', 'handler_failed', m, 5, now() - hours * interval '1 h'
       FROM (VALUES ('mails', 'is full', 0), ('mails', 'is full', 0), ('pdfs', 'is long ago', 2), ('pdfs', 'comes back', 2), ('pdfs', 'comes back', 0)) AS v (t, m, hours)`,
  );
  client = pageClient({ databaseUrl: database.url, samples: false });
});
afterAll(async () => {
  await client[Symbol.asyncDispose]();
  await database.drop();
});

/** Text of a page without tags, on one line. */
const plain = async (path: string, from = client): Promise<string> => {
  const { text } = await from.get(path);
  return text
    .slice(text.indexOf("<main"))
    .replaceAll(/<[^>]+>/g, " ")
    .replaceAll(/\s+/g, " ");
};

describe("the overview", () => {
  it("says first how many wait, since when, and where nobody takes them", async () => {
    const text = await plain("/");
    expect(text).toContain("Nothing was sampled in this time");
    expect(text).toMatch(/Waiting 6 3 that nobody takes/);
    expect(text).toMatch(/Oldest 7 min mials/);
    expect(text).toMatch(/Topics by their oldest message .* mials nobody serves it 3 7 min ago mails running 3 /);
  });

  it("has the dead letters of the last hour by cause, and marks those that are new", async () => {
    const text = await plain("/");
    expect(text).toMatch(/is full new mails 2 /);
    expect(text).toMatch(/comes back pdfs 2 /);
    expect(text).not.toMatch(/comes back new|is long ago/);
    expect(text).toContain("All causes of 5 dead letters");
  });

  it("has numbers and charts of what moves, once somebody has taken samples", async () => {
    await onServer(
      database.url,
      `INSERT INTO hawser_data.samples (step, slot, sampled_at, covers_ms, series)
       SELECT 15, n % 240, to_timestamp(n * 15), 15000, '{"topic": {"all": [45, 30, 3, 1, 6, 420000, 0, 900, 10, 20], "rest": [0], "named": {"mails": [45, 30, 3, 1, 3, 1000, 0, 900, 10, 20]}}}'
         FROM generate_series(floor(extract(epoch FROM now()) / 15)::bigint - 7, floor(extract(epoch FROM now()) / 15)::bigint) AS n`,
    );
    await using own = pageClient({ databaseUrl: database.url, samples: false });
    for (const path of ["/", "/topic?name=mails"]) {
      const { text } = await own.get(path);
      const words = await plain(path, own);
      expect(words).toMatch(/In 3 \/s .*Out 2 \/s half within 10 ms .*Failing 12 \/min .*given up in an hour/);
      expect(text.match(/<figure class="chart">/g)).toHaveLength(4);
      expect(text).toMatch(/aria-label="Handled, in the last hour: first 2 \/s, last 2 \/s/);
    }
    expect((await own.get("/?span=day")).text).toContain(">The last day</h2>");
  });

  it("has what is known of a subscription to a subject, and of one to a stream", async () => {
    const name = "orders.> public.take(bytea)";
    await onServer(
      database.url,
      "TRUNCATE hawser_data.samples",
      `INSERT INTO hawser_data.samples (step, slot, sampled_at, covers_ms, series)
       SELECT 15, n % 240, to_timestamp(n * 15), 15000,
              '{"subscription": {"all": [null, null, null, 15, 7, 90000, 0], "named": {"${name}": [null, null, null, 15, 7, 90000, 0]}},
                "stream": {"all": [null, 45, null, null, 12, null, 0], "named": {"billed": [null, 45, null, null, 12, null, 0]}}}'
         FROM generate_series(floor(extract(epoch FROM now()) / 15)::bigint - 7, floor(extract(epoch FROM now()) / 15)::bigint) AS n`,
    );
    await using own = pageClient({ databaseUrl: database.url, samples: false });
    const list = await own.get("/streams");
    expect(list.text).toContain(`href="/subscription?${new URLSearchParams({ name })}"`);
    expect(await plain("/streams", own)).toMatch(/take\(bytea\) 7 90 s 1 \/s/);
    const subscription = await own.get(`/subscription?name=${encodeURIComponent(name)}`);
    expect(await plain(`/subscription?name=${encodeURIComponent(name)}`, own)).toMatch(/Waiting 7 .*Oldest 90 s/);
    // What comes and goes is not known of it.
    expect(subscription.text.match(/<figure class="chart">/g)).toHaveLength(3);
    expect(await plain("/stream?name=billed", own)).toMatch(/Out 3 \/s .*Waiting 12 .*now Numbers Handled: means/);
  });

  it("counts in the navigation what waits and what needs somebody", async () => {
    const { text } = await client.get("/");
    const badges = [
      ...text.matchAll(/<a href="([^"]+)"[^>]*>[^<]+ <span class="([^"]+)" title="([^"]+)">.*?<\/span>(\d+)/g),
    ];
    expect(badges.map(([, to, tone, what, count]) => [to, tone, what, count])).toEqual([
      ["/topics", "count error", "topics whose messages nobody takes", "1"],
      ["/backlog", "count", "messages wait", "6"],
      ["/dead", "count warning", "dead letters, with some of the last hour", "5"],
      ["/peers", "count", "run", "2"],
      ["/schedules", "count", "schedules", "1"],
    ]);
    expect(text).not.toContain("Outbox for NATS");
  });

  it("is a 503 without Postgres, with what it read last and how old that is", async () => {
    const clock = new ManualClock();
    const settings = { poolSize: 1, logger: silentLogger };
    const open = openDatabase(database.url, settings);
    const away = openDatabase("postgres://nobody@127.0.0.1:1/none", settings);
    const [known, none] = [sections(open), sections(away)];
    let reads = known;
    const readings = new Proxy(known, { get: (_, name) => reads[name as keyof typeof reads] });
    const glances = new Glances(readings, clock);
    expect((await glances.fresh()).glance?.topics.state).toBe("read");
    clock.advance(60_000);
    reads = none;
    expect(await glances.fresh()).toMatchObject({
      glance: { topics: { state: "read" } },
      ageMs: 60_000,
      away: expect.any(String),
    });
    reads = known;
    expect(await glances.fresh()).toMatchObject({ ageMs: 0, away: undefined });
    await Promise.all([open.close(), away.close()]);
    await using own = pageClient({ databaseUrl: "postgres://nobody@127.0.0.1:1/none" });
    const { status, text } = await own.get("/");
    expect(status).toBe(503);
    expect(text).toContain("Postgres is away.");
  });

  it("has other signs when nobody takes messages, when a worker is behind, and when the leader falls silent, and not by numbers", async () => {
    await using own = await testDatabase();
    const open = openDatabase(own.url, { poolSize: 1, logger: silentLogger });
    const clock = new ManualClock();
    const glances = new Glances(sections(open), clock);
    const signs = async (...statements: string[]): Promise<string> => {
      await onServer(own.url, ...statements);
      clock.advance(4_000);
      return signsOf(await glances.fresh());
    };
    const enqueued = (topic: string, seconds: number) =>
      `WITH m AS (SELECT hawser.enqueue('${topic}', 'x')) SELECT FROM m;
       UPDATE hawser_data.queue SET enqueued_at = now() - interval '${seconds} s' WHERE topic = '${topic}'`;
    const led = (beat: number) =>
      `INSERT INTO hawser_data.owners (what, owner, epoch, beat) VALUES ('serve', 'a', 1, ${beat})
       ON CONFLICT (what) DO UPDATE SET owner = 'a', epoch = 1, beat = excluded.beat`;
    const worker =
      "INSERT INTO hawser_data.workers (name, topics, lease_ms, concurrency) VALUES ('w', '{mails}', 15000, 1)";
    const well = await signs(worker, led(1), enqueued("mails", 1), enqueued("mials", 1));
    expect(await signs(led(2), enqueued("mails", 2))).toBe(well);
    const unserved = await signs(led(3), enqueued("mials", 30));
    expect(unserved).not.toBe(well);
    expect(await signs(led(4), enqueued("mials", 40))).toBe(unserved);
    const behind = await signs(led(5), enqueued("mails", 30));
    expect(behind).not.toBe(unserved);
    const silent = await signs();
    expect(silent).not.toBe(behind);
    expect(await signs(led(6))).toBe(behind);
    const certificate = `INSERT INTO hawser_bridge_data.gateways (host, port, owner, certificate_ends_at) VALUES ('a', 1, 'a', now() + interval '1 day')`;
    expect(await signs(led(7), certificate)).not.toBe(behind);
    await open.close();
  });

  it("reads once for all who look within seconds", async () => {
    const open = openDatabase(database.url, { poolSize: 1, logger: silentLogger });
    let count = 0;
    const read = sections(open);
    const counted = {
      ...read,
      topics: (...given: Parameters<typeof read.topics>) => {
        count += 1;
        return read.topics(...given);
      },
    };
    const glances = new Glances(counted, systemClock);
    await Promise.all([glances.fresh(), glances.fresh(), glances.fresh()]);
    await glances.fresh();
    expect(count).toBe(1);
    await open.close();
  });
});

describe("the page of a topic", () => {
  it("has its state, what holds its first message, and who handles it, with share and health", async () => {
    const text = await plain("/topic?name=mails");
    expect(text).toMatch(/Pause Limit… Cancel messages…/);
    expect(text).toMatch(/w-1 .*all places taken 2 90 s 75 \(75 %\) 3 w-2 .*runs .*25 \(25 %\) 0/);
    expect(text).toMatch(/Dead letters Causes .*is full 2/);
    expect(await plain("/topic?name=mials")).toMatch(
      /The first message in line Message \d+ \. .*No worker serves the topic/,
    );
    expect(await plain("/topic?name=never")).toContain("Nothing is known of this topic");
    expect((await client.get("/topic")).status).toBe(400);
  });

  it("takes limits, shows them, and refuses what is none", async () => {
    const set = async (typed: Record<string, string>) => {
      const { text } = await client.get("/topic/limit?name=pdfs");
      const form = /action="(\/topics\/limit)">(.*?)<\/form>/s.exec(text)!;
      const hidden = [...form[2]!.matchAll(/type="hidden" name="([^"]+)" value="([^"]+)"/g)];
      const body = new URLSearchParams({
        ...Object.fromEntries(hidden.map(([, name, value]) => [name!, value!])),
        ...typed,
      });
      return client.handler(new Request("http://127.0.0.1:9470/topics/limit", { method: "POST", body }));
    };
    expect((await set({ "typed-rate": "10/m", "typed-running": "2" })).status).toBe(303);
    expect(await plain("/topic?name=pdfs")).toContain("10/m, burst 2, 2 running");
    expect((await client.get("/topic/limit?name=pdfs")).text).toContain('value="10/m"');
    expect((await set({ "typed-running": "two" })).status).toBe(400);
    expect((await set({ "typed-rate": "often" })).status).toBe(400);
    expect((await set({})).status).toBe(303);
    expect(await plain("/topic?name=pdfs")).not.toContain("burst");
  });

  it("has no buttons for a viewer, and its limits are refused", async () => {
    await using viewer = await viewerOf(database.url);
    await using own = pageClient({ databaseUrl: viewer.url, samples: false });
    const { text } = await own.get("/topic?name=mails");
    expect(text).not.toMatch(/method="post"|>Limit…/);
    expect(text).toContain("w-1");
  });
});

it("links to logs and metrics have the encoded names of what they are about", async () => {
  const links = { logUrl: "https://logs.example/?q={messageId}", metricsUrl: "https://metrics.example/?topic={topic}" };
  await using own = pageClient({ databaseUrl: database.url, samples: false, ...links });
  const { text } = await own.get(`/topic?${new URLSearchParams({ name: 'a&b"$&' })}`);
  expect(text).toContain('href="https://metrics.example/?topic=a%26b%22%24%26"');
  expect((await own.get("/message?id=a%20b")).text).toContain('href="https://logs.example/?q=a%20b"');
});

it("the pages of a worker and a schedule have what their lists have", async () => {
  expect(await plain("/peer?name=w-1")).toMatch(/Topics that it takes jobs of .*mails .*all places taken 2 /);
  expect(await plain("/peer?name=nobody")).toContain("No peer or worker of this name is known.");
  expect(await plain("/schedule?name=nightly&role=postgres")).toMatch(/Cron 0 3 \* \* \* .*peer mails/);
  expect(await plain("/schedule?name=nightly&role=other")).toContain("has no schedule of this name");
});

it("lists are sorted by their columns, both ways, and keep filter and order from page to page", async () => {
  const topics = async (query: string) =>
    [...(await client.get(`/topics?${query}`)).text.matchAll(/<tr><td><a [^>]*><bdi>([^<]+)</g)].map(
      ([, name]) => name,
    );
  expect(await topics("sort=topic&order=descending")).toEqual(["mials", "mails"]);
  expect((await topics("sort=oldest")).slice(0, 2)).toEqual(["mials", "mails"]);
  expect(await topics("sort=topic&filter=mi")).toEqual(["mials"]);
  const { text } = await client.get("/topics?sort=waiting&filter=m");
  expect(text).toContain(
    'aria-sort="ascending"><a href="/topics?filter=m&amp;sort=waiting&amp;order=descending">Waiting ▲</a>',
  );
  expect(text).toContain('<input type="hidden" name="sort" value="waiting">');
  expect((await client.get("/topics?sort=password")).text).toContain("this list is sorted by topic, waiting, oldest");
});
