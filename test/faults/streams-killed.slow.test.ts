/**
 * `hawser serve`, nats-server or Postgres is killed, Postgres fails over to a standby that lacks the last second, or a backup is
 * restored, while a stream lands in tables: the messages whose rows are gone come again, and no others. NATS was told that they are
 * done, so only Postgres can know. HAWSER_STREAM_MESSAGES says how many messages there are at least, HAWSER_FAULT_KILLS how many
 * kills, HAWSER_FAULT_SEED repeats the choices of a run (not its timing).
 */
import { setTimeout as delay } from "node:timers/promises";
import { type JetStreamManager, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startPrimaryAndStandby } from "../support/standby.js";
import { faultSeed, killsPerLoop, loopTimeoutMs, patienceMs } from "./support/kills.js";
import { ownPostgres } from "./support/own-postgres.js";
import { ServeGroup } from "./support/serve-group.js";
import { prepareForSql } from "./support/sql-database.js";
import { restartPostgres, storm } from "./support/storm.js";

const messages = Number(process.env["HAWSER_STREAM_MESSAGES"] ?? 8_000);
/** Slow enough that they come before, during and after the failover. */
const perSecond = Math.min(Math.ceil(messages / 6), 10_000);
const chunkMs = 10;
const timeout = patienceMs + messages;

const names = ["in-order", "side-by-side"] as const;

const setUpSql = [
  "CREATE TABLE landed (nth bigserial, name text, id integer, subject text)",
  ...names.map(
    (name, nth) => `
      CREATE FUNCTION land_${nth}(payload bytea, subject text) RETURNS void LANGUAGE sql
        AS $$INSERT INTO public.landed (name, id, subject) SELECT '${name}', convert_from(payload, 'UTF8')::integer, subject$$`,
  ),
  "SELECT nats_subscribe_stream('IN', 'land_0', 'in-order')",
  "SELECT nats_subscribe_stream('IN', 'land_1', 'side-by-side', key_token => 2)",
];

/** Status of a subscription, and its landed rows, in one snapshot. */
interface Seen {
  readonly name: string;
  readonly position: number;
  /** The greatest number that is done. */
  readonly furthest: number;
  /** Messages that are done beyond the position. */
  readonly beyond: number;
  readonly missing: number;
  readonly missingFrom: number | null;
  readonly missingTo: number | null;
  readonly problem: string | null;
  readonly rows: number;
  readonly ids: number;
  /** Rows of messages that are not done. */
  readonly stray: number;
}

// Messages done beyond the position may form tens of thousands of ranges: the query never searches them row by row.
const seenSql = `
  WITH s AS MATERIALIZED (SELECT * FROM hawser_bridge_data.stream_subscriptions),
       beyond AS MATERIALIZED (
         SELECT s.name, n AS id
           FROM s CROSS JOIN unnest(s.done) AS r (one) CROSS JOIN generate_series(lower(r.one), upper(r.one) - 1) AS n)
  SELECT s.name, coalesce(s.position, 0)::float8 AS position, s.missing::float8, s.missing_from::float8 AS "missingFrom",
         s.missing_to::float8 AS "missingTo", s.problem, l.*,
         coalesce(upper(s.done) - 1, s.position, 0)::float8 AS furthest,
         (SELECT count(*)::float8 FROM beyond AS b WHERE b.name = s.name) AS beyond,
         (SELECT count(*)::float8
            FROM (SELECT id FROM landed WHERE name = s.name AND id > s.position
                  EXCEPT SELECT id FROM beyond AS b WHERE b.name = s.name) AS other) AS stray
    FROM s
   CROSS JOIN LATERAL (
           SELECT count(*)::float8 AS rows, count(DISTINCT id)::float8 AS ids FROM landed WHERE name = s.name) AS l
   ORDER BY s.name`;

/** Rows that come behind a later one, which for one subscription nothing may, and for the other nothing of its subject. */
const lateSql = `
  SELECT count(*)::integer AS late
    FROM (SELECT id < lag(id) OVER (PARTITION BY name, CASE name WHEN 'side-by-side' THEN subject END ORDER BY nth) AS late
            FROM landed) AS l WHERE late`;

/** The messages' way, from the first to the last. */
interface Landing {
  readonly nats: TestNatsServer;
  /** Resolves with how both stand as soon as both have come so far. */
  reach(url: string, position: number): Promise<readonly Seen[]>;
  /** Resolves when NATS was told that more is done: its consumers would not deliver again what comes behind that. */
  acknowledged(than: readonly Seen[]): Promise<void>;
  /** Ends publishing with many messages at once. Resolves when NATS has them. */
  burst(count: number): Promise<void>;
  /** Takes from the stream all messages up to this one. */
  purge(number: number): Promise<void>;
  /** Ends publishing, and resolves with the number of the last message when all are done. */
  end(url: string): Promise<readonly [seen: readonly Seen[], last: number]>;
}

/** Publishes what two subscriptions take, until the body ends that. @param url of the server that has them at first */
async function whileLanding(url: string, body: (landing: Landing) => Promise<void>): Promise<void> {
  await using nats = await startNatsServer({ jetStream: true });
  await prepareForSql(url, nats.url);
  const publisher = await connect({ servers: nats.url, maxReconnectAttempts: -1, reconnectTimeWait: 50 });
  let isEnough = false;
  try {
    const manager = await jetstreamManager(publisher);
    await manager.streams.add({ name: "IN", subjects: ["in.*"] });
    await onServer(url, ...setUpSql);
    let published = 0;
    const publishNext = () => publisher.publish(`in.${++published % 7}`, String(published));
    const publish = async () => {
      const begunAt = performance.now();
      while (published < messages || !isEnough) {
        publishNext();
        const aheadMs = (published * 1_000) / perSecond - (performance.now() - begunAt);
        if (aheadMs > chunkMs) await delay(chunkMs);
      }
      await publisher.flush();
    };
    const publishing = publish();
    publishing.catch(() => undefined);
    const reach: Landing["reach"] = async (where, position) => {
      const isThereSql = `SELECT bool_and(position >= ${position}) AS "isThere" FROM hawser_bridge_data.stream_subscriptions`;
      const isThere = async () => {
        const [row] = await rowsOf(where, isThereSql).catch(() => []);
        return row?.["isThere"] === true;
      };
      await eventually(`both have come to ${position}`, isThere, 60_000 + messages);
      return look(where);
    };
    await body({
      ...{ nats, reach },
      acknowledged: (than) =>
        eventually("NATS was told that more is done", async () => {
          const told = await Promise.all(than.map(({ name }) => acknowledgedOf(manager, name)));
          return than.every(({ position }, nth) => told[nth]! > position);
        }),
      burst: async (count) => {
        isEnough = true;
        await publishing;
        for (let n = 0; n < count; n += 1) publishNext();
        await publisher.flush();
      },
      purge: async (number) => void (await manager.streams.purge("IN", { seq: number + 1 })),
      end: async (where) => {
        isEnough = true;
        await publishing;
        let last = 0;
        // A server that has just started again answers late.
        await eventually("the stream answers", async () => {
          last = await manager.streams.info("IN").then(
            ({ state }) => state.last_seq,
            () => 0,
          );
          return last > 0;
        });
        const seen = await reach(where, last);
        expect(await rowsOf(where, lateSql)).toEqual([{ late: 0 }]);
        return [seen, last];
      },
    });
  } finally {
    isEnough = true;
    await publisher.close();
  }
}

/** Checks that the landed rows are exactly the messages that are done, once each. @returns the snapshot */
async function look(url: string): Promise<readonly Seen[]> {
  const seen = (await rowsOf(url, seenSql)) as unknown as Seen[];
  for (const { name, position, beyond, missing, rows, ids, stray } of seen) {
    expect({ name, rows, ids, stray }).toEqual({ name, rows: position + beyond - missing, ids: rows, stray: 0 });
  }
  return seen;
}

async function acknowledgedOf(manager: JetStreamManager, name: string): Promise<number> {
  let acknowledged = 0;
  for await (const consumer of manager.consumers.list("IN")) {
    if (!consumer.name.startsWith(`hawser_${name}_`)) continue;
    acknowledged = Math.max(acknowledged, consumer.ack_floor.stream_seq);
  }
  return acknowledged;
}

/** Both have lost rows. Says how many. */
function lostBetween(before: readonly Seen[], after: readonly Seen[]): string {
  const lost = before.map(({ rows }, nth) => rows - after[nth]!.rows);
  expect(Math.min(...lost)).toBeGreaterThan(0);
  return lost.join(" and ");
}

/** Expected status of both subscriptions in the end, with nothing missing. */
function completeTo(last: number): readonly object[] {
  const all = { position: last, beyond: 0, missing: 0, missingFrom: null, missingTo: null, problem: null, rows: last };
  return names.map((name) => expect.objectContaining({ name, ...all }));
}

const rowsIn = (seen: readonly Seen[]): string => seen.map(({ rows }) => rows).join(" and ");

const kills = Math.max(3, killsPerLoop(2));

it(`a stream lands once when serve, Postgres and NATS are killed (${kills} times, HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills) + timeout,
}, async () => {
  const random = new Random(faultSeed);
  await using postgres = await ownPostgres();
  const { url } = postgres;
  await whileLanding(url, async (landing) => {
    await using group = await ServeGroup.start(url, 2);
    await storm({
      ...{ random, count: kills },
      faults: {
        async leaderKilled() {
          const leader = await group.leader();
          await leader.crash();
          await leader.start();
        },
        async leaderStops() {
          const leader = await group.leader();
          await leader.stop();
          await leader.start();
        },
        Postgres: () => restartPostgres(postgres),
      },
      progress: () => delay(random.between(200, 1_500)),
    });
    // What is published while NATS is down is lost: it is killed when all is published, and much has still to land.
    await landing.burst(2 * messages);
    await landing.nats.kill();
    await landing.nats.restart();
    const [seen, last] = await landing.end(url);
    console.log(`${kills} kills: of ${last} messages there are ${rowsIn(seen)}`);
    expect(seen).toEqual(completeTo(last));
    expect(group.members.map(({ isRunning }) => isRunning)).toEqual([true, true]);
  });
});

it.each([
  ["lives on", false],
  ["is killed with it", true],
])(
  "a stream lands once when Postgres fails over to a standby that lacks the last second, and serve %s",
  { timeout },
  async (_, isKilled) => {
    await using servers = await startPrimaryAndStandby();
    const { primary, standby } = servers;
    await whileLanding(primary.url, async (landing) => {
      const either = primary.url.replace(/@([^/]+)/, `@$1,${new URL(standby.url).host}`);
      await using group = await ServeGroup.start(either, 2);
      await landing.reach(primary.url, messages / 4);
      await servers.cutOff();
      const has = await look(standby.url);
      await landing.reach(primary.url, Math.max(...has.map(({ furthest }) => furthest)) + perSecond / 2);
      await landing.acknowledged(has);
      const before = await look(primary.url);
      await Promise.all([primary.kill("SIGKILL"), isKilled && crash(group)]);
      const after = await look(standby.url);
      const lost = lostBetween(before, after);
      await servers.promote();
      if (isKilled) await restart(group);
      const [seen, last] = await landing.end(standby.url);
      console.log(
        `the standby lacked ${lost} of ${rowsIn(before)} rows; of ${last} messages there are ${rowsIn(seen)}`,
      );
      expect(seen).toEqual(completeTo(last));
      expect(group.members.map(({ isRunning }) => isRunning)).toEqual([true, true]);
    });
  },
);

it.each([
  ["lives on", false],
  ["is killed with it, and the stream has lost some of them meanwhile: they are told to be missing", true],
])("a stream lands once when a backup is restored, and serve %s", { timeout }, async (_, isKilled) => {
  await using postgres = await ownPostgres();
  const { url } = postgres;
  await whileLanding(url, async (landing) => {
    await using group = await ServeGroup.start(url, 2);
    await landing.reach(url, messages / 8);
    await postgres.kill("SIGINT");
    postgres.copyData();
    await postgres.start();
    // As much as the backup has, or more.
    const backup = await look(url);
    const furthest = Math.max(...backup.map((each) => each.furthest));
    await landing.reach(url, furthest + perSecond);
    await landing.acknowledged(backup);
    const before = await look(url);
    await Promise.all([postgres.kill("SIGKILL"), isKilled && crash(group)]);
    const purged = isKilled ? furthest + Math.floor(perSecond / 2) : 0;
    if (purged > 0) await landing.purge(purged);
    postgres.setDataBack();
    await postgres.start();
    const lost = lostBetween(before, backup);
    if (isKilled) await restart(group);
    const [seen, last] = await landing.end(url);
    const missing = seen.map((each) => each.missing).join(" and ");
    console.log(
      `the backup lacked ${lost} of ${rowsIn(before)} rows, or more; of ${last} messages there are ${rowsIn(seen)}, ` +
        `${missing} are told to be missing`,
    );
    expect(group.members.map(({ isRunning }) => isRunning)).toEqual([true, true]);
    if (purged === 0) {
      expect(seen).toEqual(completeTo(last));
      return;
    }
    for (const { name, missing: told, missingFrom, missingTo, position, beyond, problem } of seen) {
      expect({ missingTo, position, beyond, problem }).toEqual({
        missingTo: purged,
        position: last,
        beyond: 0,
        problem: null,
      });
      // Each one that is not there is told, and nothing else is.
      const gapSql = `
        SELECT count(*)::float8 AS missing, min(n)::float8 AS "missingFrom", max(n)::float8 AS "missingTo"
          FROM generate_series(1, ${last}) AS n WHERE NOT EXISTS (SELECT FROM landed AS l WHERE l.id = n AND l.name = '${name}')`;
      expect(await rowsOf(url, gapSql)).toEqual([{ missing: told, missingFrom, missingTo }]);
    }
  });
});

async function crash(group: ServeGroup): Promise<void> {
  await Promise.all(group.members.map((member) => member.crash()));
}

async function restart(group: ServeGroup): Promise<void> {
  await Promise.all(group.members.map((member) => member.start()));
}
