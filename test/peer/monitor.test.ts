/**
 * The handler of metrics and health: its numbers after what peers did, its checks, and how it is mounted.
 */

import { describe, expect, it } from "vitest";
import { peerMetrics } from "../../generated/ts/metrics/metrics.js";
import { silentLogger, version } from "../../src/foundation/runtime/index.js";
import { enqueue, monitor, Peer, Reject, RetryAfter } from "../../src/jobs-and-peers/peer/index.js";
import { monitorPages } from "../../src/jobs-and-peers/peer/monitor.js";
import { maxSentTopics, PeerCounters } from "../../src/jobs-and-peers/worker/counters.js";
import {
  type CountedOfPeer,
  type MonitoredPeer,
  StoredOfPeer,
  storedCountMs,
} from "../../src/jobs-and-peers/worker/monitored-peer.js";
import type { Backlog, PeerStoredCounters } from "../../src/operating/operate/index.js";
import { type Family, parsePrometheus } from "../monitor/prometheus-text.js";
import { eventually } from "../support/eventually.js";
import { TcpProxy } from "../transport/tcp-proxy.js";
import { failure } from "./support/errors.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

type Families = ReadonlyMap<string, Family>;

/** Reads the page as a scraper does. */
async function scrape(...peers: Peer[]): Promise<Families> {
  const response = await monitor(...peers)({ url: "/metrics" });
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  return parsePrometheus(await response.text());
}

/** Values of a metric by labels, without zeros: `{ "b-1 orders done": 1 }`. */
function shown(families: Families, name: keyof typeof peerMetrics, line: string = name): Record<string, number> {
  const { samples = [] } = families.get(name) ?? {};
  const lines = samples.filter((sample) => sample.name === line && sample.value !== 0);
  return Object.fromEntries(lines.map(({ labels, value }) => [Object.values(labels).join(" "), value]));
}

const status = async (handler: ReturnType<typeof monitor>, url: string) => (await handler({ url })).status;

const nowhere = (name: string) => new Peer({ name, databaseUrl: "postgres://127.0.0.1:1/none" });

describe("/metrics", () => {
  it("counts sends, attempts, retries, dead letters and requests", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    await b.handle("b", { retry: { attempts: 3, delayMs: 1 } }, async (message) => {
      if (message.text() === "twice" && message.attempt === 1) throw new Error("once");
      if (message.text() === "never") throw new Reject("no");
    });
    await b.handle("sync", () => undefined);
    const deferred = new Set<string>();
    await b.handle("later", (message) => {
      if (deferred.size === deferred.add(message.text()).size) return;
      throw new RetryAfter(0);
    });
    await b.respond("prices", (request) => {
      if (request.text() === "bad") throw new Error("no");
      return "1";
    });
    await b.start();
    for (const text of ["x", "twice", "never"]) await a.send("b", text);
    await world.deadLetters(1);
    for (let count = 0; count < 5; count++) await a.send("sync", "x");
    await a.send("later", "sent");
    await enqueue(world, "later", "enqueued");
    await eventually("both were handled at the second call", async () => {
      return shown(await scrape(b), "hawser_peer_messages_handled_total")["b-1 later done"] === 2;
    });
    await a.request("prices", "good");
    await failure("handler_failed", a.request("prices", "bad"));
    await failure("no_listener", a.send("nobody", "x"));
    await failure("no_listener", a.request("nobody", "x"));
    await failure("not_supported", a.request("b", "x"));

    const found = await scrape(a, b);
    // What is tried again waits in the queue, and so does what comes behind it in its channel.
    const sends = shown(found, "hawser_peer_sends_total");
    const sent = (topic: string) => (sends[`a-1 ${topic} delivered`] ?? 0) + (sends[`a-1 ${topic} stored`] ?? 0);
    expect([sent("b"), sent("sync"), sent("later"), sends["a-1 other failed"]]).toEqual([3, 5, 1, 1]);
    // What waits in the queue is received once more from there.
    const received = shown(found, "hawser_peer_messages_received_total");
    expect(received["b-1 b"]).toBeGreaterThanOrEqual(4);
    expect(received["b-1 sync"]).toBeGreaterThanOrEqual(5);
    expect(received["b-1 later"]).toBeGreaterThanOrEqual(4);
    expect(shown(found, "hawser_peer_attempts_total")).toEqual({ "b-1 b": 4, "b-1 sync": 5, "b-1 later": 4 });
    expect(shown(found, "hawser_peer_messages_handled_total")).toEqual({
      "b-1 b done": 2,
      "b-1 b retried": 1,
      "b-1 b dead_letter": 1,
      "b-1 sync done": 5,
      "b-1 later done": 2,
      "b-1 later deferred": 2,
    });
    const durations = "hawser_peer_handler_duration_seconds";
    expect(shown(found, durations, `${durations}_count`)).toEqual({ "b-1 b": 4 });
    expect(shown(found, durations, `${durations}_bucket`)).toMatchObject({ "+Inf b-1 b": 4 });
    expect(shown(found, "hawser_peer_requests_total")).toEqual({
      "a-1 prices answered": 1,
      "a-1 prices failed": 1,
      "a-1 b unreachable": 1,
      "a-1 other unreachable": 1,
    });
    expect(shown(found, "hawser_peer_requests_answered_total")).toEqual({
      "b-1 prices answered": 1,
      "b-1 prices failed": 1,
      "b-1 b refused": 1,
    });
    expect(shown(found, "hawser_peer_recent_dead_letters")).toEqual({ "b-1 b": 1 });
    expect(shown(found, "hawser_peer_ready")).toEqual({ "a-1": 1, "b-1": 1 });
    expect(shown(found, "hawser_peer_lease_held")).toEqual({ "a-1": 1, "b-1": 1 });
    expect(shown(found, "hawser_peer_connections")).toEqual({ "b-1 in": 1, "a-1 out": 1 });
  });

  it("counts at-most-once messages, those of batches and those of transactions", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1");
    await b.handle("lossy", () => {
      throw new Error("no");
    });
    await b.handle("tx", { transactional: true }, async ({ client }) => void (await client.query("SELECT 1")));
    await b.handleBatch("batch", { maxMessages: 10, waitMs: 0 }, () => undefined);
    await b.start();
    expect(await a.send("lossy", "x", { delivery: "at-most-once" })).toMatchObject({ outcome: "sent" });
    await b.saw("dead_letter");
    await a.send("tx", "x");
    await a.send("batch", "x");
    await eventually("both are handled", async () => {
      const handled = shown(await scrape(b), "hawser_peer_messages_handled_total");
      return handled["b-1 tx done"] === 1 && handled["b-1 batch done"] === 1;
    });
    const found = await scrape(a, b);
    expect(shown(found, "hawser_peer_sends_total")).toEqual({
      "a-1 lossy sent": 1,
      "a-1 tx stored": 1,
      // It comes behind the other one in its channel.
      "a-1 batch delivered": 1,
    });
    expect(shown(found, "hawser_peer_attempts_total")).toEqual({ "b-1 lossy": 1, "b-1 tx": 1, "b-1 batch": 1 });
    expect(shown(found, "hawser_peer_messages_handled_total")).toEqual({
      "b-1 lossy dropped": 1,
      "b-1 tx done": 1,
      "b-1 batch done": 1,
    });
    const durations = "hawser_peer_handler_duration_seconds";
    expect(shown(found, durations, `${durations}_count`)).toEqual({ "b-1 tx": 1, "b-1 batch": 1 });
  });

  it("shows what runs, what waits in memory, and what waits in the database", async () => {
    const [a, b] = await world.left("0");
    for (const text of ["1", "2"]) expect((await a.send("b", text)).outcome).toBe("stored");
    const away = await scrape(a, b);
    expect(shown(away, "hawser_peer_pending_messages")).toEqual({ "a-1 b": 2 });
    expect(shown(away, "hawser_peer_backlog_messages")).toEqual({});
    const { opened, open } = gate();
    const started = gate();
    await b.record(() => {
      started.open();
      return opened;
    });
    await started.opened;
    const back = await scrape(b);
    expect(shown(back, "hawser_peer_running_handlers")).toEqual({ "b-1": 1 });
    expect(shown(back, "hawser_peer_queued_messages")).toEqual({ "b-1": 1 });
    expect(shown(back, "hawser_peer_backlog_messages")).toEqual({ "b-1 b": 2 });
    expect(shown(back, "hawser_peer_backlog_age_seconds")["b-1 b"]).toBeGreaterThan(0);
    expect(shown(back, "hawser_peer_messages_received_total")).toEqual({ "b-1 b": 3 });
    open();
  });

  it("shows what a peer has of what is enqueued as its backlog", async () => {
    const b = world.peer("b-1");
    const waiting = gate();
    const started = gate();
    await b.record(() => {
      started.open();
      return waiting.opened;
    });
    try {
      await world.query("SELECT hawser.enqueue('b', 'x'); SELECT hawser.enqueue('mistyped', 'x')");
      await started.opened;
      const found = await scrape(b);
      expect(shown(found, "hawser_peer_backlog_messages")).toEqual({ "b-1 b": 1 });
      expect(shown(found, "hawser_peer_backlog_age_seconds")["b-1 b"]).toBeGreaterThan(0);
      expect(shown(found, "hawser_peer_running_handlers")).toEqual({ "b-1": 1 });
    } finally {
      waiting.open();
    }
  });

  it("puts the topics of the database together that the peer does not handle, and one peer shows what waits for all", async () => {
    const counted: PeerStoredCounters = {
      backlog: [
        { topic: "b", messages: 5, oldestAt: performance.now() - 60_000 },
        { topic: "x", messages: 6, oldestAt: performance.now() },
        { topic: "", messages: 7, oldestAt: performance.now() - 120_000 },
      ],
      pending: [{ topic: "x", messages: 8, oldestAt: undefined }],
      deadTopics: [{ topic: "x", messages: 9, oldestAt: undefined }],
    };
    const backlog: Backlog[] = [
      {
        topic: "x",
        group: "reds",
        listener: "",
        state: "retrying",
        hasMore: true,
        messages: 10,
        oldestAt: performance.now() - 60_000,
      },
    ];
    const schedules = [
      { name: "nightly", role: "shop", problem: null, lateSeconds: 20 },
      { name: "odd", role: "shop", problem: "no", lateSeconds: null },
    ];
    const a = await world.started("a-1");
    const peer: MonitoredPeer = {
      name: "a-1",
      logger: silentLogger,
      counters: new PeerCounters(),
      handlers: { serves: (topic: string) => topic === "b", counts: new Map() } as never,
      stored: new StoredOfPeer(),
      run: {
        running: {
          lease: { state: "held", remainingMs: 2_000 },
          store: { isUp: true },
          certificateEndsAt: 1_800_000_000_000,
          countStored: async () => ({ ...counted, shared: { backlog, schedules } }),
          numbers: { connections: 1, running: 2, queued: 3, listeners: 5 },
        } as never,
      },
      isNameLost: () => false,
      health: () => a.health(),
    };
    const other = {
      ...peer,
      name: "o-1",
      stored: new StoredOfPeer(),
      run: {
        // As a worker, which has neither a name of its own nor TLS.
        running: {
          store: { isUp: true },
          numbers: { running: 2, queued: 3 },
          countStored: async () => ({ ...counted, shared: undefined }),
        } as never,
      },
    };
    const all = parsePrometheus(await (await monitorPages([peer, other])("GET", "/metrics")).text());
    expect(shown(all, "hawser_peer_database_backlog_messages")).toEqual({ "a-1 x reds  retrying": 10 });
    expect(shown(all, "hawser_peer_database_backlog_has_more")).toEqual({ "a-1 x reds  retrying": 1 });
    expect(shown(all, "hawser_peer_database_backlog_age_seconds")["a-1 x reds  retrying"]).toBeGreaterThanOrEqual(60);
    expect(shown(all, "hawser_peer_database_schedule_stuck")).toEqual({
      "a-1 nightly shop late": 1,
      "a-1 odd shop failing": 1,
    });
    expect(shown(all, "hawser_peer_certificate_ends_timestamp_seconds")).toEqual({ "a-1": 1_800_000_000 });
    expect(shown(all, "hawser_peer_lease_held")).toEqual({ "a-1": 1 });
    expect(shown(all, "hawser_peer_running_handlers")).toEqual({ "a-1": 2, "o-1": 2 });
    expect(Object.keys(shown(all, "hawser_peer_lease_remaining_seconds"))).toEqual(["a-1"]);
    expect(Object.keys(shown(all, "hawser_peer_connections"))).toEqual(["a-1 in", "a-1 out"]);
    const found = parsePrometheus(await (await monitorPages([peer])("GET", "/metrics")).text());
    expect(shown(found, "hawser_peer_backlog_messages")).toEqual({ "a-1 b": 5, "a-1 other": 13 });
    const ages = shown(found, "hawser_peer_backlog_age_seconds");
    expect([Math.floor(ages["a-1 b"]! / 60), Math.floor(ages["a-1 other"]! / 60)]).toEqual([1, 2]);
    expect(shown(found, "hawser_peer_pending_messages")).toEqual({ "a-1 other": 8 });
    expect(shown(found, "hawser_peer_recent_dead_letters")).toEqual({ "a-1 other": 9 });
    expect(shown(found, "hawser_peer_lease_remaining_seconds")).toEqual({ "a-1": 2 });
    expect(shown(found, "hawser_peer_connections")).toEqual({ "a-1 in": 1, "a-1 out": 5 });
  });

  it("has every metric of the table, with its type, its help and no other label", async () => {
    const [a, b] = await world.running("a-1", "b-1");
    await a.send("b", "x");
    const found = await scrape(a, b);
    expect([...found.keys()]).toEqual(Object.keys(peerMetrics));
    for (const metric of Object.values(peerMetrics)) {
      const { type, help, samples } = found.get(metric.name)!;
      expect({ type, help }).toEqual({ type: metric.type, help: metric.help });
      for (const { labels } of samples) {
        const { le: _, ...own } = labels;
        expect(Object.keys(own).sort(), metric.name).toEqual([...metric.labels].sort());
        for (const [label, values] of Object.entries<readonly string[]>(metric.values))
          expect(values, metric.name).toContain(own[label]);
      }
    }
  });

  it("counts sessions with Postgres and connections that replaced lost ones", async () => {
    const [a, b] = await world.running("a-1", "b-1");
    await a.send("b", "x");
    await b.stop();
    await a.saw("peer_disconnected");
    const before = a.statuses.all.length;
    await b.record();
    await a.saw("peer_connected", undefined, before);
    expect(shown(await scrape(a), "hawser_peer_reconnects_total")).toEqual({ "a-1": 1 });
    await world.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                        WHERE datname = current_database() AND pid <> pg_backend_pid()`);
    await eventually("the session is there again", async () => {
      return shown(await scrape(a), "hawser_peer_postgres_reconnects_total")["a-1"] === 1;
    });
  });

  it("keeps its totals when a topic is no longer handled, and when the peer stops", async () => {
    const [a, b] = await world.running("a-1", "b-1");
    await a.send("b", "x");
    await b.recordTopic("c");
    await a.send("c", "x");
    await b.leave("c");
    await b.stop();
    const found = await scrape(a, b);
    expect(shown(found, "hawser_peer_messages_handled_total")).toEqual({ "b-1 b done": 1, "b-1 other done": 1 });
    expect(shown(found, "hawser_peer_ready")).toEqual({ "a-1": 1 });
    expect(shown(found, "hawser_peer_lease_remaining_seconds")["b-1"]).toBeUndefined();
  });
});

describe("the counters", () => {
  it("give labels to a limited number of topics, whatever else is sent to", () => {
    const counters = new PeerCounters();
    for (let topic = 0; topic < 2 * maxSentTopics; topic++) counters.sentTo(`t${topic}`).sends.delivered += 1;
    counters.sendFailed("unknown", new Error("no"));
    counters.sendFailed("t0", new Error("no"));
    expect(counters.sent.size).toBe(maxSentTopics + 1);
    expect(counters.sent.get("t0")?.sends).toMatchObject({ delivered: 1, failed: 1 });
    expect(counters.sent.get("other")?.sends).toMatchObject({ delivered: maxSentTopics, failed: 1 });
    expect(counters.sentTo("other")).toBe(counters.sent.get("other"));
  });

  it("count in the database at most once in a while, and show nothing after a failure", async () => {
    let now = 0;
    const stored = new StoredOfPeer(() => now);
    const counts: CountedOfPeer = { backlog: [], pending: [], deadTopics: [], shared: undefined };
    let asked = 0;
    const count = async () => {
      asked += 1;
      if (asked === 2) throw new Error("away");
      return counts;
    };
    await Promise.all([stored.refresh(count, silentLogger), stored.refresh(count, silentLogger)]);
    now += storedCountMs - 1;
    await stored.refresh(count, silentLogger);
    expect([asked, stored.counters]).toEqual([1, counts]);
    now += 1;
    await stored.refresh(count, silentLogger);
    expect([asked, stored.counters]).toEqual([2, undefined]);
    await stored.refresh(undefined, silentLogger);
    await stored.refresh(count, silentLogger);
    expect([asked, stored.counters]).toEqual([3, counts]);
  });
});

describe("/healthz and /readyz", () => {
  it("say that a peer is not ready before its start and after its stop, but healthy", async () => {
    const a = world.peer("a-1");
    const pages = monitor(a);
    expect([await status(pages, "/healthz"), await status(pages, "/readyz")]).toEqual([200, 503]);
    await a.start();
    expect([await status(pages, "/healthz"), await status(pages, "/readyz")]).toEqual([200, 200]);
    await a.stop();
    const response = await pages({ url: "/readyz" });
    expect(response.headers.get("content-type")).toBe("application/json; charset=utf-8");
    expect([response.status, await response.json()]).toEqual([
      503,
      {
        status: "failing",
        checks: [
          { name: "name", peer: "a-1", ok: true, affects: "health" },
          { name: "ready", peer: "a-1", ok: false, affects: "readiness", detail: 'the peer "a-1" is stopped' },
        ],
      },
    ]);
  });

  it("fail while one of the peers has no session with Postgres", async () => {
    const { hostname, port, pathname, search, username, password } = new URL(world.url);
    expect(hostname).toBe("127.0.0.1");
    const proxy = await TcpProxy.to(Number(port));
    const login = username === "" ? "" : `${username}${password === "" ? "" : `:${password}`}@`;
    const a = await world.started("a-1", { databaseUrl: `postgres://${login}${proxy.address}${pathname}${search}` });
    const b = await world.started("b-1");
    const pages = monitor(a, b);
    expect(await status(pages, "/readyz")).toBe(200);
    await proxy[Symbol.asyncDispose]();
    await eventually("it is noticed", () => !a.health().ready);
    const { checks } = (await (await pages({ url: "/readyz" })).json()) as { checks: Record<string, unknown>[] };
    expect(checks.map(({ name, peer, ok }) => `${name} ${peer} ${ok}`)).toEqual([
      "name a-1 true",
      "ready a-1 false",
      "name b-1 true",
      "ready b-1 true",
    ]);
    expect([await status(pages, "/healthz"), await status(pages, "/readyz")]).toEqual([200, 503]);
    expect(shown(await scrape(a), "hawser_peer_postgres_up")).toEqual({});
  });

  it("fail both once a peer has lost its name, until it is started again", async () => {
    const a = await world.started("a-1");
    const pages = monitor(a);
    await world.query("SELECT FROM hawser.end_ownership($1, true)", ["a-1"]);
    await world.list("b", "b-1");
    await failure("name_lost", a.send("b", "x"));
    await expect(a.closed).rejects.toThrow("lost its name");
    expect([await status(pages, "/healthz"), await status(pages, "/readyz")]).toEqual([503, 503]);
    expect(a.health().problems).toEqual(['the peer "a-1" is stopped, because it has lost its name']);
    await a.start();
    expect([await status(pages, "/healthz"), await status(pages, "/readyz")]).toEqual([200, 200]);
  });
});

describe("monitor", () => {
  it("answers under any prefix, with a query and for HEAD, and nothing else", async () => {
    const pages = monitor(nowhere("a-1"));
    for (const url of ["/healthz", "/internal/healthz?x=/y", "http://host/a/b/healthz", "https://host:1/healthz#x"])
      expect(await status(pages, url), url).toBe(200);
    for (const url of ["", "/", "/healthz/", "/xhealthz", "http://host", "//", "constructor", "/%68ealthz"])
      expect(await status(pages, url), url).toBe(404);
    expect(await status(pages, undefined as unknown as string)).toBe(404);
    const [get, head] = await Promise.all([
      pages(new Request("http://host/healthz")),
      pages(new Request("http://host/healthz", { method: "HEAD" })),
    ]);
    expect(head.status).toBe(200);
    expect(await head.text()).toBe("");
    expect(head.headers.get("content-length")).toBe(String((await get.text()).length));
    const refused = await pages({ method: "POST", url: "/metrics" });
    expect([refused.status, refused.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
  });

  it("refuses no peers, others than peers, and two of one name; one that comes twice is one", async () => {
    await failure("invalid_argument", () => monitor());
    await failure("invalid_argument", () => monitor({} as Peer));
    const error = await failure("invalid_argument", () => monitor(nowhere("a-1"), nowhere("a-1")));
    expect(error.message).toContain('"a-1"');
    const a = nowhere("a-1");
    expect(shown(await scrape(a, a), "hawser_peer_info")).toEqual({
      [`a-1 ${version}`]: 1,
    });
  });
});
