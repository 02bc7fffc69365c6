/** The lines of `hawser top` in windows of several sizes. */
import { describe, expect, it } from "vitest";
import { type Size, type TopView, topLines } from "../../src/operating/cli/top-view.js";
import type { ShownVerdict, Snapshot } from "../../src/operating/console/index.js";

const now = Date.parse("2030-01-31T12:00:00Z");
const before = (seconds: number): Date => new Date(now - seconds * 1_000);
const read = <T>(value: T) => ({ state: "read", value }) as const;

const told = { version: "1.2.3", certificateEndsAt: null };
const peer = {
  isComplete: true,
  ...{ ...told, epoch: 1, startedAt: before(600), clean: false, sendsOn: 1, listensOn: 1 },
  oldestWaitingAt: null,
};
const outbox = { positionSavedAt: before(1), segments: [], nextDueAt: null, deadLetters: 0, later: 0 };
const cause = { origin: "queue", function: null, oldestAt: before(900) } as const;
const stream = { domain: null, function: "public.f(nats_message)", filters: [], start: "all", key_token: null };

const topic = {
  ...{ hasMore: false, pausedAt: null, pausedBy: null, limits: null, keepMs: null, listeners: [], listenerCount: 0 },
  ...{ servedBy: null, servedUntil: null, enqueued: null },
};

const snapshot: Snapshot = {
  at: before(0),
  login: "operator",
  database: "app",
  leader: read({
    owner: "serve-1",
    epoch: 9007199254740993n,
    beat: 1n,
    progressAt: before(1),
    completeSince: before(3_600),
    certificateEndsAt: null,
  }),
  topics: read([
    { ...topic, topic: "orders", ...{ state: "stopped", waiting: 3, oldest: before(300) }, handled: 0, failed: 1.25 },
    { ...topic, topic: "refunds", ...{ state: "running", waiting: 0, oldest: null }, handled: 12.345, failed: 0 },
  ]),
  peers: read([
    { ...peer, name: "billing-1", running: true, topics: ["billing", "refunds"], waiting: 0 },
    { ...peer, name: "orders-1", running: false, topics: ["orders"], waiting: 9007199254740991 },
    { ...peer, name: "shop-1", running: true, topics: ["shop"], waiting: 0 },
  ]),
  outbox: read([
    {
      ...{ ...outbox, kind: "nats", relay: null, isAwake: false, waiting: 100_000, hasMore: true },
      ...{ oldestWaitingAt: before(7_200), oldestWaitingFor: "orders.created" },
    },
    {
      ...{ ...outbox, kind: "peer", relay: null, isAwake: false, positionSavedAt: null, waiting: 0, hasMore: false },
      ...{ oldestWaitingAt: null, oldestWaitingFor: null },
    },
  ]),
  pending: read([
    {
      ...{ sender: null, from: null, listener: "orders-1", group: null, topic: "orders" },
      ...{ count: 3, hasMore: false, bytes: 42, oldest: before(300), state: "stopped" },
      ...{ servedBy: null, servedUntil: null },
    },
  ]),
  streams: read([
    {
      ...{ ...stream, name: "audit", stream: "AUDIT", done_to: 9223372036854775807n, lag: 18446744073709551615n },
      ...{ problem: null, paused: false, missing: 0n, missing_reason: null, missing_from: null, missing_to: null },
      ...{ missing_at: null, written_at: before(2) },
    },
  ]),
  schedules: read([]),
  causes: read({
    causes: [
      { ...cause, topic: "orders", errorCode: "handler_failed", cause: "no price", count: 1000, newestAt: before(60) },
    ],
    examined: 1000,
    olderThanId: undefined,
  }),
};

const verdict: ShownVerdict = {
  report: {
    ok: false,
    findings: [
      { check: "leader", severity: "error", what: "no process leads", remedy: "Start `hawser serve`" },
      { check: "outbox", severity: "warning", what: "100000 messages wait", remedy: "Start `hawser serve`" },
    ],
    checks: [{ check: "leader", outcome: "error" }],
  },
  ageMs: 12_000,
  isOld: false,
  isExamining: false,
  problem: undefined,
};

const shown = (size: Size, view: Partial<TopView> = {}): string[] =>
  topLines({ snapshot, verdict, now, hint: "every 2s; space pauses, q quits", ...view }, size).map(({ text }) => text);

describe("the lines of hawser top", () => {
  it("have a gap between sections where there is room", () => {
    expect(shown({ columns: 100, rows: 60 }).join("\n")).toMatchInlineSnapshot(`
      "app as operator  every 2s; space pauses, q quits  2030-01-31T12:00:00Z

      VERDICT  1 error, 1 warning; 1 of 1 check done, 12 s ago
      error    leader: no process leads
      warning  outbox: 100000 messages wait

      LEADER  serve-1, epoch 9007199254740993: all subscriptions since 60 min ago, progress 1 s ago

      TOPICS (2)  STATE    WAITING  OLDEST     OUT/S  FAILED/S
      orders      stopped        3  5 min ago      0      1.25
      refunds     running        0             12.35         0

      PEERS (3)  STATE            STARTED              WAITING  TOPICS
      billing-1  running          10 min ago                 0  billing, refunds
      orders-1   ended uncleanly  10 min ago  9007199254740991  orders
      shop-1     running          10 min ago                 0  shop

      OUTBOX (2)  WAITING  OLDEST   FOR             POSITION SAVED  RELAY  LATER
      nats        100000+  2 h ago  orders.created  1 s ago         none       0
      peer              0                                                      0

      BACKLOG (1)  STATE    MESSAGES  OLDEST     BYTES  LISTENER  SENDER
      orders       stopped         3  5 min ago     42  orders-1  enqueued

      STREAMS (1)  STATE  STREAM                BEHIND              DONE TO  MISSING  WRITTEN
      audit        runs   AUDIT   18446744073709551615  9223372036854775807        0  2 s ago

      SCHEDULES  none

      DEAD LETTERS (1000)  COUNT  NEWEST    CODE            CAUSE
      orders                1000  60 s ago  handler_failed  no price"
    `);
  });

  it("share a small window evenly, and say how many are missing", () => {
    expect(shown({ columns: 60, rows: 19 }).join("\n")).toMatchInlineSnapshot(`
      "app as operator  every 2s; space pauses, q quits  2030-01-3…
      VERDICT  1 error, 1 warning; 1 of 1 check done, 12 s ago
      error    leader: no process leads
      warning  outbox: 100000 messages wait
      LEADER  serve-1, epoch 9007199254740993: all subscriptions …
      TOPICS (2)  STATE    WAITING  OLDEST     OUT/S  FAILED/S
      orders      stopped        3  5 min ago      0      1.25
      refunds     running        0             12.35         0
      PEERS (3)  STATE      STARTED             WAITING  TOPICS
      … 3 more
      OUTBOX (2)  WAITING  OLDEST   FOR       POSITION SAVED  REL…
      … 2 more
      BACKLOG (1)  STATE    MESSAGES  OLDEST    BYTES  LISTENER  …
      orders       stopped         3  5 min a…     42  orders-1  …
      STREAMS (1)  STATE  STREAM                BEHIND           …
      audit        runs   AUDIT   18446744073709551615  922337203…
      SCHEDULES  none
      DEAD LETTERS (1000)  COUNT  NEWEST    CODE          CAUSE
      orders                1000  60 s ago  handler_fai…  no price"
    `);
  });

  it("are only the first ones in a window without room for the heads", () => {
    expect(shown({ columns: 20, rows: 3 })).toEqual(["app as operator  ev…", "VERDICT  1 error, 1…", "… 8 more lines"]);
  });

  it.each([1, 2, 3, 5, 8, 13, 21, 34])("fit into %i rows of as many columns", (size) => {
    const lines = shown({ columns: size, rows: size }, { problem: "could not read: refused" });
    expect(lines.length).toBeLessThanOrEqual(size);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(size);
  });

  it("say of running peers when a certificate ends, if that is soon", () => {
    const of = (name: string, running: boolean, days: number) => ({
      ...{ ...peer, name, running, topics: [], waiting: 0 },
      certificateEndsAt: new Date(now + 86_400_000 * days),
    });
    const rows = [of("ended", true, -3), of("later", true, 15), of("soon", true, 13), of("stopped", false, -3)];
    const view = { snapshot: { ...snapshot, peers: read(rows) }, verdict, now };
    const lines = topLines(view, {}).filter(({ text }) => /^(PEERS|ended|later|soon|stopped)/.test(text));
    expect(lines.map(({ text, tone }) => [text.split(/ {2,}/).slice(3, -1), tone])).toEqual([
      [["CERTIFICATE ENDS"], "title"],
      [["3 days ago"], "error"],
      [[], undefined],
      [["in 13 days"], "warning"],
      [[], "warning"],
    ]);
  });

  it("show 100 rows of a section without a window, and say how many are missing", () => {
    const rows = Array.from({ length: 250 }, (_, at) => ({
      ...peer,
      name: `p${at}`,
      running: true,
      topics: [],
      waiting: at,
    }));
    const lines = shown({}, { snapshot: { ...snapshot, peers: read(rows) } });
    expect(lines.filter((line) => /^p\d+ /.test(line))).toHaveLength(100);
    expect(lines).toContain("… 150 more");
  });

  it("say what the login may not read, and what could not be read", () => {
    const denied = { state: "denied", why: "permission denied for table peers" } as const;
    const failed = { state: "failed", why: "canceling statement due to\ntimeout", isAway: false } as const;
    const lines = shown({}, { snapshot: { ...snapshot, peers: denied, leader: failed, causes: denied } });
    expect(lines).toContain("PEERS  This login may not read it: permission denied for table peers");
    expect(lines).toContain("LEADER  It could not be read: canceling statement due to\\ntimeout");
    expect(lines).toContain("DEAD LETTERS  This login may not read it: permission denied for table peers");
  });

  it("say that Postgres is away, and how old the numbers are, without a password", () => {
    const problem = "could not connect to postgres://a:secret@db/app";
    expect(shown({}, { problem, now: now + 30_000 })[1]).toBe(
      "Trying again; the numbers are from 30 s ago: could not connect to postgres://***@db/app",
    );
    expect(shown({}, { snapshot: undefined })).toEqual([
      "hawser top  every 2s; space pauses, q quits",
      "The first numbers are being read.",
    ]);
    expect(shown({}, { snapshot: undefined, problem })[1]).toMatch(/^Trying again: could not connect/);
  });

  it("say that the installation is being examined, or could not be", () => {
    const none = { report: undefined, ageMs: 0, isOld: false, isExamining: true, problem: undefined };
    expect(shown({}, { verdict: none })[2]).toBe("VERDICT  The installation is being examined.");
    expect(shown({}, { verdict: { ...none, problem: "no" } })[2]).toBe("VERDICT  The examination failed: no");
  });

  it("do not show an old verdict as the present one", () => {
    const lines = topLines({ snapshot, verdict: { ...verdict, ageMs: 93_000, isOld: true }, now }, {});
    expect(lines.filter(({ text }) => /^(VERDICT|error|warning)/.test(text))).toEqual([
      {
        text: "VERDICT  The present state is not known. The last examination: 1 error, 1 warning; 1 of 1 check done, 93 s ago",
        tone: "warning",
      },
      { text: "error    leader: no process leads", tone: "dim" },
      { text: "warning  outbox: 100000 messages wait", tone: "dim" },
    ]);
  });

  it("turn the pages of lists that are longer than the window", () => {
    const rows = Array.from({ length: 7 }, (_, at) => ({
      ...peer,
      name: `p${at}`,
      running: true,
      topics: [],
      waiting: at,
    }));
    const only = { state: "denied", why: "no" } as const;
    const one = {
      ...snapshot,
      topics: only,
      peers: read(rows),
      outbox: only,
      pending: only,
      streams: only,
      schedules: only,
    };
    const page = (nth: number) => {
      const view = { snapshot: { ...one, leader: only, causes: only }, page: nth };
      const lines = shown({ columns: 80, rows: 16 }, { ...view, verdict: { ...verdict, report: undefined } });
      return lines.filter((line) => /^(p\d|…)/.test(line)).map((line) => line.replace(/^(p\d).*/, "$1"));
    };
    expect(page(0)).toEqual(["p0", "p1", "p2", "p3", "p4", "… 2 more"]);
    expect(page(1)).toEqual(["p5", "p6", "… 5 before, 0 more"]);
    expect(page(9)).toEqual(page(1));
    expect(shown({ columns: 80 }, { page: 1, filter: "or", sort: "in" })[0]).toContain('only "or"  by in  page 2');
  });

  it("neutralize control characters of names and errors, whatever the window cuts", () => {
    const hostile = "\u001b]0;title\u0007\u001b[2J\r\n\u009b31m\u202egnp.\u2066\u{1f600}";
    const view: Partial<TopView> = {
      snapshot: {
        ...snapshot,
        login: hostile,
        database: hostile,
        leader: read({
          owner: hostile,
          epoch: 1n,
          beat: 1n,
          progressAt: null,
          completeSince: null,
          certificateEndsAt: null,
        }),
        peers: read([{ ...peer, name: hostile, running: true, topics: [hostile, hostile], waiting: 0 }]),
        schedules: { state: "failed", why: hostile, isAway: false },
        causes: read({
          causes: [
            {
              ...cause,
              topic: hostile,
              errorCode: hostile,
              cause: hostile.repeat(10_000),
              count: 1,
              newestAt: before(0),
            },
          ],
          examined: 10_000,
          olderThanId: "1",
        }),
      },
      problem: hostile,
    };
    for (const columns of [undefined, 200, 80, 33, 20, 7]) {
      const text = shown({ columns }, view).join("\n");
      expect(text).not.toMatch(/[^\P{Cc}\n]|[\u202a-\u202e\u2066-\u2069]/u);
      // No half of a character.
      expect(Buffer.from(text).toString()).toBe(text);
    }
    expect(shown({ columns: 200 }, view).join("\n")).toContain("\\u001b]0;title\\u0007");
    expect(shown({}, view).join("\n")).toContain("DEAD LETTERS (newest 10000)");
  });
});
