/**
 * The page, `hawser top` and `hawser doctor` of a busy installation: what each reads, that no statement writes temporary files, and
 * that each number is the one that a plain count finds. The times are printed, not asserted.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { examinedDeadLetters, shownRows } from "../../src/operating/console/sections.js";
import { hawserProcess } from "../cli/support/hawser.js";
import { eventually } from "../support/eventually.js";
import { ManualClock } from "../support/manual-clock.js";
import * as full from "./support/full-world.js";
import { pageClient } from "./support/page-world.js";
import { type StatementTimes, StatementWatch } from "./support/statement-times.js";

let world: full.FullWorld;
/** Texts of the pages that were opened, by path. */
const texts = new Map<string, string>();
const ids: Record<"job" | "later" | "held" | "dead" | "role", string> = {} as never;

beforeAll(async () => {
  world = await full.fullWorld();
  const of = (where: string) =>
    world.value<string>(`SELECT id::text FROM hawser_data.queue WHERE ${where} ORDER BY id DESC LIMIT 1`);
  ids.job = await of("later IS NULL AND worker IS NULL");
  ids.later = await of("later = 'peer'");
  ids.held = await of("later = 'held'");
  ids.dead = await world.value("SELECT max(id)::text FROM hawser_data.dead_letters WHERE origin = 'queue'");
  ids.role = await world.value("SELECT session_user::text");
}, 600_000);
afterAll(() => world?.[Symbol.asyncDispose]());

/** Pages of a list, the first one first. */
const parts = (path: string, rows: number): string[] =>
  Array.from({ length: Math.ceil(rows / shownRows) }, (_, nth) =>
    nth === 0 ? path : `${path}${path.includes("?") ? "&" : "?"}from=${nth * shownRows}`,
  );
const [busiest, plain, paused, unserved] = [1, 250, 101, 500].map(full.topicName) as [string, string, string, string];

const paths = (): string[] => [
  "/?span=day",
  ...parts("/topics", full.topics),
  "/topics?sort=oldest",
  "/topics?sort=waiting&order=descending",
  "/topics?filter=orders-25",
  ...parts("/backlog", 1_800),
  "/backlog?sort=messages&order=descending",
  "/backlog?filter=worker-001",
  "/jobs",
  "/jobs?state=waiting",
  "/jobs?state=running",
  "/jobs?state=held",
  "/jobs?state=later",
  "/jobs?state=dead",
  "/jobs?state=done",
  "/jobs?key=customer-300",
  "/jobs?header=tenant%3Dtenant-7",
  `/jobs?topic=${busiest}`,
  `/jobs?topic=${busiest}&state=running`,
  `/jobs?topic=${busiest}&after=${ids.job}`,
  `/jobs?after=${ids.job}`,
  "/later",
  "/later?from=100",
  "/later?sort=bytes&order=descending",
  "/later?filter=orders-007",
  "/dead",
  `/dead?through=${Number(ids.dead) - 100}`,
  `/dead?topic=${plain}`,
  "/dead?code=rejected",
  `/dead?cause=${encodeURIComponent(`order #: ${full.causeName(7)} is unknown`)}`,
  `/dead/${ids.dead}`,
  `/dead/${ids.dead}?payload=1`,
  `/dead/${ids.dead}/edit`,
  "/causes",
  "/message",
  `/message?id=${ids.job}`,
  `/message?id=${ids.later}`,
  `/message?id=${ids.held}`,
  "/message?id=message-50",
  "/peers",
  "/peers?sort=waiting&order=descending",
  "/peers?filter=worker-09",
  `/peer?name=${full.peerName(1)}`,
  `/peer?name=${full.peerName(99)}`,
  "/schedules",
  "/schedules?sort=next&order=descending",
  `/schedule?name=schedule-1&role=${ids.role}`,
  "/outbox",
  "/streams",
  "/streams?sort=behind&order=descending",
  "/stream?name=subscription-1",
  ...[busiest, plain, paused, unserved].map((name) => `/topic?name=${name}`),
  `/topic?name=${plain}&span=day`,
  `/topic/limit?name=${plain}`,
  "/actions",
  "/audit",
  "/audit?action=pause",
];

const temporary = () =>
  world.rows("SELECT temp_files, temp_bytes FROM pg_stat_database WHERE datname = current_database()");
/** Resolves when only the connections of the world are left, so that what others counted is in the statistics. */
const others = () =>
  world.value<number>(
    "SELECT count(*)::integer FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'hawser' AND backend_type = 'client backend'",
  );

it("reads each page without temporary files", { timeout: 600_000 }, async () => {
  const before = await temporary();
  const open = await others();
  const clock = new ManualClock();
  using watch = new StatementWatch();
  const lines: string[] = [];
  {
    await using client = pageClient({ databaseUrl: world.database.url, samples: false }, clock);
    // Opens all connections of the page.
    await Promise.all(["/topics", "/peers", "/backlog"].map((path) => client.get(path)));
    // The others are of the examination, which the overview starts.
    watch.isOpen = false;
    const visit = async (path: string, turn: () => void = () => undefined): Promise<void> => {
      const taken: StatementTimes[] = [];
      // Further parts of a list only for their numbers.
      for (let nth = 0; nth < (path.includes("from=") ? 1 : 3); nth += 1) {
        turn();
        watch.next();
        const { status, text } = await client.get(path);
        taken.push(watch.next());
        expect([path, status, /class="(failed|denied)"/.exec(text)?.[0]]).toEqual([path, 200, undefined]);
        texts.set(path, text);
      }
      lines.push(lineOf(path, taken));
    };
    await eventually(
      "the installation is examined",
      async () => !(await client.get("/")).text.includes("is being examined"),
    );
    await visit("/", () => clock.advance(4_100));
    watch.isOpen = true;
    for (const path of paths()) await visit(path);
  }
  await eventually("its connections have ended", async () => (await others()) <= open);
  console.log(["ms of SQL: first, least   ms of CPU   statements", ...lines].join("\n"));
  expect(await temporary()).toEqual(before);
});

/** @param taken the first visit, with plans to be made, and others */
function lineOf(path: string, taken: readonly StatementTimes[]): string {
  const least = taken.toSorted((a, b) => a.ms - b.ms)[0]!;
  const cpu = Math.min(...taken.map(({ cpuMs }) => cpuMs ?? Number.NaN));
  const cells = [taken[0]!.ms, least.ms, cpu].map((ms) => (Number.isNaN(ms) ? "?" : ms.toFixed(0)).padStart(6));
  return `${cells.join("")}${String(least.statements).padStart(4)}  ${path}`;
}

describe("each number is the one of a plain count:", () => {
  /** What waits or runs by topic, and since when. */
  const byTopic = `
    SELECT m.topic, count(*)::integer AS waiting, min(m.at) AS oldest
      FROM (
        SELECT q.topic, q.enqueued_at AS at FROM hawser_data.queue AS q WHERE q.later IS NULL OR q.later = 'held'
        UNION ALL
        SELECT t.topic, s.stored_at FROM hawser_peer_data.stored_messages AS s JOIN hawser_peer_data.topics AS t ON t.id = s.topic_id
      ) AS m GROUP BY m.topic`;
  /** What waits for a peer, or a worker of its name has. */
  const byPeer = `
    SELECT m.name, count(*)::integer AS waiting
      FROM (
        SELECT w.name FROM hawser_data.queue AS q JOIN hawser_data.workers AS w ON w.id = q.worker
        UNION ALL
        SELECT substring(q.recipient FROM '^!?@(.*)$') FROM hawser_data.queue AS q WHERE q.worker IS NULL AND q.recipient ~ '^!?@'
        UNION ALL
        SELECT c.listener_name FROM hawser_peer_data.stored_messages AS s JOIN hawser_peer_data.channels AS c USING (channel_id)
      ) AS m GROUP BY m.name`;
  const counts = async (sql: string): Promise<Map<string, number>> =>
    new Map((await world.rows<Record<string, unknown>>(sql)).map((row) => Object.values(row) as [string, number]));
  const countOf = (sql: string) => world.value<number>(`SELECT count(*)::integer FROM ${sql}`);
  const sumOf = (numbers: Iterable<number>): number => [...numbers].reduce((sum, each) => sum + each, 0);

  it("topics, with what waits in each and since when", async () => {
    const expected = await world.rows<{ topic: string; waiting: number; oldest: Date }>(byTopic);
    const rows = parts("/topics", full.topics).flatMap((path) => tableIn(path, "topics").rows);
    expect(rows).toHaveLength(full.topics);
    expect(rows.map(({ Topic, Waiting }) => [Topic, numberOf(Waiting)]).sort()).toEqual(
      expected.map(({ topic, waiting }) => [topic, waiting]).sort(),
    );
    const oldest = new Map(expected.map((row) => [row.topic, row.oldest.toISOString()]));
    for (const row of rows) expect([row["Topic"], row["Oldest at"]]).toEqual([row["Topic"], oldest.get(row["Topic"]!)]);
    for (const path of parts("/topics", full.topics)) {
      const { rows: shown, sums } = tableIn(path, "topics");
      // Where all rows have the same number, it is said once.
      if (sums["Waiting"] !== undefined)
        expect(numberOf(sums["Waiting"])).toBe(sumOf(shown.map((row) => numberOf(row["Waiting"]))));
    }
    const most = expected.toSorted((a, b) => b.waiting - a.waiting).slice(0, shownRows);
    const descending = tableIn("/topics?sort=waiting&order=descending", "topics").rows;
    expect(descending.map((row) => numberOf(row["Waiting"]))).toEqual(most.map(({ waiting }) => waiting));
    expect(tableIn("/topics?filter=orders-25", "topics").rows).toHaveLength(10);
    for (const name of [busiest, plain, paused, unserved]) {
      const waiting = expected.find(({ topic }) => topic === name)!.waiting;
      expect([name, tileIn(`/topic?name=${name}`, "Waiting").value]).toEqual([name, waiting]);
      const { rows: pending } = tableIn(`/topic?name=${name}`, "pending");
      expect(sumOf(pending.map((row) => numberOf(row["Messages"])))).toBe(waiting);
    }
  });

  it("the backlog, in all of its parts", async () => {
    const rows = parts("/backlog", 1_800).flatMap((path) => tableIn(path, "pending").rows);
    const sums = new Map<string, number>();
    for (const { Topic, Messages } of rows) sums.set(Topic!, (sums.get(Topic!) ?? 0) + numberOf(Messages));
    expect([...sums].sort()).toEqual([...(await counts(byTopic))].sort());
    const heldRows = rows.filter(({ State }) => State === "held");
    expect(sumOf(heldRows.map((row) => numberOf(row["Messages"])))).toBe(
      await countOf("hawser_data.queue WHERE later = 'held'"),
    );
    const retrying = rows.filter(({ State }) => State === "retrying");
    expect(sumOf(retrying.map((row) => numberOf(row["Messages"])))).toBe(
      await countOf(
        `hawser_data.queue AS q WHERE q.later IS NULL AND q.due_at > now()
            AND NOT EXISTS (SELECT FROM hawser_data.topic_settings AS s WHERE s.topic = q.topic AND s.paused_at IS NOT NULL)`,
      ),
    );
  });

  it("peers and workers, with what each has", async () => {
    const expected = await counts(byPeer);
    const { rows, sums } = tableIn("/peers", "peers");
    expect(rows).toHaveLength(full.peers);
    expect(rows.map(({ Peer, Waiting }) => [Peer, numberOf(Waiting)]).sort()).toEqual(
      rows.map(({ Peer }) => [Peer, expected.get(Peer!) ?? 0]).sort(),
    );
    expect(numberOf(sums["Waiting"])).toBe(sumOf(expected.values()));
    const ended = rows.filter(({ State }) => State !== "running").map(({ State }) => State);
    expect([rows.length - ended.length, ended.filter((state) => state === "ended uncleanly").length]).toEqual([
      full.runningPeers,
      full.uncleanPeers,
    ]);
    for (const nth of [1, 99]) {
      const shown = tableIn(`/peer?name=${full.peerName(nth)}`, "pending").rows;
      expect(sumOf(shown.map((row) => numberOf(row["Messages"])))).toBe(expected.get(full.peerName(nth)));
    }
  });

  it("dead letters, and their causes among the newest", async () => {
    const letters = await world.rows<{ origin: string; topic: string; code: string; message: string; source: string }>(
      `SELECT origin, topic, error_code AS code, error_message AS message, source FROM hawser_data.dead_letters ORDER BY id DESC LIMIT ${examinedDeadLetters}`,
    );
    const grouped = new Map<string, number>();
    for (const { origin, topic, code, message } of letters) {
      const key = [message.replace(/\d+/g, "#"), code, topic, origin].join("\n");
      grouped.set(key, (grouped.get(key) ?? 0) + 1);
    }
    const { rows } = tableIn("/causes", "dead-letters");
    expect(rows).toHaveLength(shownRows);
    for (const row of rows) {
      const key = [row["Cause"], row["Code"], row["Topic or subject"], row["Origin"] ?? "queue"].join("\n");
      expect([key, numberOf(row["Dead letters"])]).toEqual([key, grouped.get(key)]);
    }
    for (const [path, where] of [
      [`/dead?topic=${plain}`, `topic = '${plain}'`],
      [
        `/dead?cause=${encodeURIComponent(`order #: ${full.causeName(7)} is unknown`)}`,
        `error_message ~ '^order \\d+: ${full.causeName(7)} is unknown$'`,
      ],
    ] as const) {
      const [, count] = /([\d,]+) dead letters match/.exec(texts.get(path)!)!;
      expect([path, numberOf(count)]).toEqual([path, await countOf(`hawser_data.dead_letters WHERE ${where}`)]);
    }
    for (const path of ["/dead", "/dead?code=rejected"])
      expect(texts.get(path)).toContain(`More than ${examinedDeadLetters} dead letters match`);
  });

  it("jobs of each state", async () => {
    const isPutOff = "due_at > now()";
    const states: Record<string, string> = {
      waiting: `SELECT id FROM hawser_data.queue WHERE later IS NULL AND worker IS NULL AND (${isPutOff}) IS NOT TRUE`,
      running: "SELECT id FROM hawser_data.queue WHERE worker IS NOT NULL",
      held: "SELECT id FROM hawser_data.queue WHERE later = 'held'",
      later: `SELECT id FROM hawser_data.queue WHERE later = 'peer' OR later IS NULL AND worker IS NULL AND ${isPutOff}`,
      dead: "SELECT job_id AS id FROM hawser_data.dead_letters WHERE job_id IS NOT NULL",
      done: "SELECT id FROM hawser_data.results",
    };
    const all = Object.values(states)
      .map((each) => `(${each})`)
      .join(" UNION ALL ");
    const key = "SELECT id FROM hawser_data.queue WHERE key = 'customer-300'";
    const tenant = `SELECT id FROM hawser_data.queue WHERE headers @> '[["tenant", "tenant-7"]]' UNION ALL SELECT job_id FROM hawser_data.dead_letters WHERE job_id IS NOT NULL AND headers @> '[["tenant", "tenant-7"]]'`;
    for (const [path, sql] of [
      ["/jobs", all],
      [`/jobs?after=${ids.job}`, `SELECT id FROM (${all}) AS a WHERE id < ${ids.job}`],
      ["/jobs?key=customer-300", key],
      ["/jobs?header=tenant%3Dtenant-7", tenant],
      ...Object.entries(states).map(([state, sql]) => [`/jobs?state=${state}`, sql] as const),
    ] as const) {
      const newest = await world.rows<{ id: string }>(
        `SELECT s.id::text AS id FROM (${sql}) AS s ORDER BY s.id DESC LIMIT ${shownRows}`,
      );
      expect([path, tableIn(path, "jobs").rows.map((row) => row["Id"]!.replace(/,/g, ""))]).toEqual([
        path,
        newest.map(({ id }) => id),
      ]);
    }
  });

  it("schedules, streams, what is due later, and the outbox", async () => {
    const { rows } = tableIn("/schedules", "schedules");
    expect(rows.map((row) => [row["Name"], row["Next at"]]).sort()).toEqual(
      (await world.rows<{ name: string; at: Date }>("SELECT name, next_at AS at FROM hawser_data.schedules"))
        .map(({ name, at }) => [name, at.toISOString()])
        .sort(),
    );
    expect(rows).toHaveLength(full.schedules);
    const landed = await counts(
      "SELECT 'STREAM-' || substring(subject FROM '\\d+') AS stream, count(*)::integer + 1 AS done FROM landed GROUP BY 1",
    );
    const streams = tableIn("/streams", "streams");
    expect(
      streams.rows.map((row) => [row["Stream"], numberOf(row["Done to"] ?? streams.constants["Done to"])]).sort(),
    ).toEqual([...landed].sort());
    const outbox = tableIn("/outbox", "outbox").rows;
    const [nats, peer] = ["nats", "peer"].map((kind) => outbox.find((row) => row["Kind"] === kind)!);
    expect([numberOf(nats!["Later"]), numberOf(peer!["Later"]), numberOf(peer!["Waiting"])]).toEqual([
      await countOf("hawser_data.queue WHERE later = 'nats'"),
      await countOf("hawser_data.queue WHERE later IN ('peer', 'held')"),
      await countOf("hawser_data.queue WHERE later IS NULL"),
    ]);
    const due = await world.rows<{ id: string }>(
      "SELECT id::text AS id FROM hawser_data.queue WHERE later IS NOT NULL ORDER BY coalesce(due_at, enqueued_at), id LIMIT 200",
    );
    expect(
      ["/later", "/later?from=100"].flatMap((path) => tableIn(path, "scheduled").rows.map((row) => row["Id"])),
    ).toEqual(due.map(({ id }) => id));
  });

  it("the overview, and the navigation", async () => {
    const expected = await world.rows<{ topic: string; waiting: number; oldest: Date }>(byTopic);
    const all = sumOf(expected.map(({ waiting }) => waiting));
    const states = new Map(
      parts("/topics", full.topics).flatMap((path) =>
        tableIn(path, "topics").rows.map((row) => [row["Topic"]!, row["State"]!] as const),
      ),
    );
    const unread = expected.filter(({ topic }) => ["unserved", "stopped", "blocked"].includes(states.get(topic)!));
    expect(unread.length).toBeGreaterThan(0);
    const tile = tileIn("/", "Waiting");
    expect([tile.value, numberOf(/[\d,]+/.exec(tile.more)?.[0])]).toEqual([
      all,
      sumOf(unread.map(({ waiting }) => waiting)),
    ]);
    const oldest = expected.toSorted((a, b) => a.oldest.getTime() - b.oldest.getTime());
    expect(tileIn("/", "Oldest").more).toBe(oldest[0]!.topic);
    expect(tableIn("/", "oldest").rows.map((row) => [row["Topic"], numberOf(row["Waiting"])])).toEqual(
      oldest.slice(0, 8).map(({ topic, waiting }) => [topic, waiting]),
    );
    const recent = tableIn("/", "recent").rows;
    const lastHour = await world.rows<{ message: string; topic: string; at: Date }>(
      "SELECT error_message AS message, topic, created_at AS at FROM hawser_data.dead_letters WHERE created_at > now() - interval '50 min'",
    );
    expect(recent).toHaveLength(8);
    for (const row of recent) {
      const same = lastHour.filter(
        ({ topic, message }) => topic === row["Topic"] && row["Cause"]!.startsWith(message.replace(/\d+/g, "#")),
      );
      expect(same.map(({ at }) => at.toISOString())).toContain(row["Last at"]);
    }
    for (const name of [busiest, plain]) {
      const { rows: causes } = tableIn(`/topic?name=${name}`, "causes");
      const ofTopic = `(SELECT * FROM hawser_data.dead_letters ORDER BY id DESC LIMIT ${examinedDeadLetters}) AS d WHERE topic = '${name}' AND origin <> 'subscription'`;
      expect([name, sumOf(causes.map((row) => numberOf(row["Count"])))]).toEqual([name, await countOf(ofTopic)]);
    }
    const text = textOf(texts.get("/")!);
    expect(text).toContain(`All causes of ${examinedDeadLetters.toLocaleString("en-US")}+ dead letters`);
    expect(text).toContain(`${full.runningPeers} peers and workers run, ${full.uncleanPeers} ended uncleanly`);
    const badges = [
      ...texts
        .get("/")!
        .matchAll(/<a href="([^"]+)"[^>]*>[^<]+ <span class="count[^"]*" title="[^"]*">.*?<\/span>([\d,]+\+?)/g),
    ];
    expect(Object.fromEntries(badges.map(([, to, count]) => [to, count]))).toEqual({
      "/topics": String(unread.length),
      "/backlog": all.toLocaleString("en-US"),
      "/later": (await countOf("hawser_data.queue WHERE later IS NOT NULL")).toLocaleString("en-US"),
      "/dead": `${examinedDeadLetters.toLocaleString("en-US")}+`,
      "/peers": String(full.uncleanPeers),
      "/schedules": String(full.schedules),
      "/streams": String(full.streams),
    });
  });

  it("`hawser top` and `hawser doctor`, as processes", { timeout: 300_000 }, async () => {
    const { url: databaseUrl } = world.database;
    const before = await temporary();
    const timed = async (...args: string[]) => {
      const taken: number[] = [];
      let end: Awaited<ReturnType<typeof hawserProcess>> | undefined;
      for (let nth = 0; nth < 3; nth += 1) {
        const begunAt = performance.now();
        end = await hawserProcess(args, { databaseUrl });
        taken.push(performance.now() - begunAt);
      }
      console.log(`hawser ${args.join(" ")}: ${taken.map((ms) => ms.toFixed(0)).join(", ")} ms`);
      return end!;
    };
    const doctor = await timed("doctor", "--json");
    expect(JSON.parse(doctor.stdout)).toMatchObject({ findings: expect.any(Array) });
    const { stdout } = await timed("top", "--once");
    const { stdout: json } = await timed("top", "--json");
    expect(await temporary()).toEqual(before);
    const top = JSON.parse(json);
    const expected = await counts(byTopic);
    expect(stdout).toContain(`PEERS (${full.peers})`);
    expect(stdout).toContain(`STREAMS (${full.streams})`);
    expect(stdout).toContain(`SCHEDULES (${full.schedules})`);
    expect(stdout).toContain(`DEAD LETTERS (newest ${examinedDeadLetters})`);
    const peers = await counts(byPeer);
    expect(
      top.peers.value.map(({ name, waiting }: { name: string; waiting: number }) => [name, waiting]).sort(),
    ).toEqual(top.peers.value.map(({ name }: { name: string }) => [name, peers.get(name) ?? 0]).sort());
    const jobs = top.outbox.value.find(({ kind }: { kind: string }) => kind === "peer");
    expect([jobs.waiting, jobs.hasMore]).toEqual([await countOf("hawser_data.queue WHERE later IS NULL"), false]);
    const pending: { topic: string; count: number; hasMore: boolean }[] = top.pending.value;
    for (const { topic, count, hasMore } of pending) {
      expect(hasMore).toBe(false);
      expect(count).toBeLessThanOrEqual(expected.get(topic)!);
    }
    const examined = sumOf(top.causes.value.causes.map(({ count }: { count: number }) => count));
    expect([top.causes.value.examined, examined <= examinedDeadLetters]).toEqual([examinedDeadLetters, true]);
  });
});

/** Text without tags, on one line. */
function textOf(html: string): string {
  return html
    .replace(/<[^>]+>/g, " ")
    .replace(/\s+/g, " ")
    .replace(/ ([,.])/g, "$1")
    .trim();
}

/** Number with separators. It is whole: one with `+` is none. */
function numberOf(text = ""): number {
  return /^[\d,]+$/.test(text) ? Number(text.replaceAll(",", "")) : Number.NaN;
}

/** Table of a section of a page that was opened: cells by the heads of their columns, with the time of a cell with an age as `<head> at`. */
function tableIn(path: string, id: string) {
  const text = texts.get(path)!;
  const start = text.indexOf(`<section id="${id}"`);
  if (start < 0) throw new Error(`${path} has no section ${id}`);
  const section = text.slice(start, text.indexOf("</section>", start));
  const heads = [...section.matchAll(/<th [^>]*>(.*?)<\/th>/gs)].map(([, head]) => textOf(head!).replace(/ [▲▼]$/, ""));
  const rowsOf = (part: string): Record<string, string>[] =>
    [...part.matchAll(/<tr[^>]*>(.*?)<\/tr>/gs)].map(([, row]) => {
      const cells: Record<string, string> = {};
      [...row!.matchAll(/<td[^>]*>(.*?)<\/td>/gs)].forEach(([, cell], nth) => {
        cells[heads[nth]!] = textOf(cell!);
        const time = /<time datetime="([^"]+)"/.exec(cell!)?.[1];
        if (time !== undefined) cells[`${heads[nth]} at`] = time;
      });
      return cells;
    });
  const body = /<tbody[^>]*>(.*?)<\/tbody>/s.exec(section)?.[1] ?? "";
  const foot = /<tfoot[^>]*>(.*?)<\/tfoot>/s.exec(section)?.[1] ?? "";
  const constants: Record<string, string> = {};
  for (const part of textOf(/In all rows:(.*?)<\/p>/s.exec(section)?.[1] ?? "").split(" · ")) {
    const [head, ...value] = part.split(": ");
    constants[head!.trim()] = value.join(": ");
  }
  return { rows: rowsOf(body).map((row) => ({ ...constants, ...row })), sums: rowsOf(foot)[0] ?? {}, constants };
}

/** Tile of a page that was opened. */
function tileIn(path: string, name: string): { readonly value: number; readonly more: string } {
  const tiles = texts
    .get(path)!
    .matchAll(/<p class="name">(.*?)<\/p>\s*<p class="value">(.*?)<\/p><p class="more">(.*?)<\/p>/gs);
  for (const [, title, value, more] of tiles)
    if (textOf(title!) === name) return { value: numberOf(textOf(value!)), more: textOf(more!) };
  throw new Error(`${path} has no tile ${name}`);
}
