/**
 * What is due later, on the level of SQL: each poll begins where the last one ended, and nothing that is written meanwhile
 * is missed; no role waits for another one's messages.
 */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Login, login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";

let database: TestDatabase;
let client: pg.Client;
let ann: pg.Client;
let mal: pg.Client;
const logins: (Login & AsyncDisposable)[] = [];
const clients: pg.Client[] = [];

beforeAll(async () => {
  database = await testDatabase();
  client = await connected();
  for (const _ of ["ann", "mal"]) logins.push(await login(database.url, "IN ROLE hawser_nats, hawser_peer"));
  [ann, mal] = (await Promise.all(logins.map(({ url }) => connected(url)))) as [pg.Client, pg.Client];
});
beforeEach(async () => {
  for (const each of [ann, mal]) await each.query("ROLLBACK");
  await client.query(
    `TRUNCATE hawser_data.outbox, hawser_data.queue, hawser_data.flow_edges, hawser_data.flow_ends,
       hawser_data.unique_keys, hawser_data.unique_locks`,
  );
});
afterAll(async () => {
  for (const one of clients) await one.end();
  for (const each of logins) await each[Symbol.asyncDispose]();
  await database?.drop();
});

async function connected(url = database.url): Promise<pg.Client> {
  const one = new pg.Client({ connectionString: url, statement_timeout: 30_000 });
  await one.connect();
  clients.push(one);
  return one;
}

interface Found {
  readonly brought: number;
  readonly due_from: unknown;
  readonly seen: string;
  readonly due_in_ms: string | null;
  readonly problem: string | null;
}

/** Polls as one process does: each begins where its last one has ended. */
class Polls {
  #last: Found | undefined;

  async next(on = client): Promise<Found> {
    const known = [this.#last === undefined ? null : JSON.stringify(this.#last.due_from), this.#last?.seen];
    this.#last = (await on.query<Found>("SELECT * FROM hawser.bring_due($1, $2)", known)).rows[0]!;
    return this.#last;
  }

  /** Polls until the last one has brought nothing. @returns what is in the queue, in its order */
  async all(): Promise<string[]> {
    while ((await this.next()).brought > 0);
    const { rows } = await client.query(
      "SELECT convert_from(payload, 'UTF8') AS text FROM hawser_data.queue WHERE later IS NULL ORDER BY rank",
    );
    return rows.map(({ text }) => text);
  }
}

const later = async (payload: string, delay: string, on = ann): Promise<string> =>
  (
    await on.query("SELECT hawser.enqueue('t', $1, deliver_at => clock_timestamp() + $2::interval) AS id", [
      payload,
      delay,
    ])
  ).rows[0].id;

/** Waits until the clock of Postgres is that far. */
const untilDue = (): Promise<unknown> =>
  client.query(
    "SELECT pg_sleep(extract(epoch FROM max(due_at) - clock_timestamp())) FROM hawser_data.queue WHERE due_at < now() + interval '10 s'",
  );

describe("a poll for what is due", () => {
  it("finds what is due before all that earlier polls have found", async () => {
    const polls = new Polls();
    await later("tomorrow", "1 day");
    expect(Number((await polls.next()).due_in_ms)).toBeGreaterThan(80_000_000);
    await later("in an hour", "1 hour");
    await later("soon", "1 min", mal);
    await client.query("UPDATE hawser_data.queue SET due_at = now() + interval '20 ms' WHERE payload = 'soon'");
    const { due_in_ms } = await polls.next();
    expect(Number(due_in_ms)).toBeLessThan(3_600_000);
    await untilDue();
    expect(await polls.all()).toEqual(["soon"]);
  });

  it("tells no time where there is nothing", async () => {
    const none = { due_in_ms: null, schedule_in_ms: null };
    const { rows } = await client.query(
      `SELECT b.due_in_ms, b.schedule_in_ms FROM hawser.bring_due(NULL, NULL) AS b
        UNION ALL SELECT l.due_in_ms, NULL FROM hawser.least_due('nats', NULL) AS l
        UNION ALL SELECT l.due_in_ms, NULL FROM hawser.least_due('nats', pg_current_snapshot()) AS l`,
    );
    expect(rows).toEqual([none, none, none]);
  });

  it("finds what a transaction writes that is open during other polls, for itself or in a place before them", async () => {
    const polls = new Polls();
    await ann.query("BEGIN");
    await later("late", "20 ms");
    await later("kept", "1 day", mal);
    await polls.next();
    await later("other", "20 ms", mal);
    await untilDue();
    expect(await polls.all()).toEqual(["other"]);
    await ann.query("COMMIT");
    expect(await polls.all()).toEqual(["other", "late"]);
  });

  it("finds what is replaced with something that is due earlier, and what is released", async () => {
    const polls = new Polls();
    const unique = "SELECT hawser.enqueue_unique('t', $1, 'u', replaces => true, deliver_at => $2)";
    await ann.query(unique, ["first", new Date(Date.now() + 86_400_000)]);
    const first = await later("first of two", "1 day");
    await ann.query("SELECT hawser.enqueue_after('t', 'second of two', ARRAY[$1::bigint])", [first]);
    await polls.next();
    await ann.query(unique, ["replaced", null]);
    expect(await polls.all()).toEqual(["replaced"]);
    await client.query(
      "INSERT INTO hawser_data.flow_ends (role, id, is_done) SELECT role, id, true FROM hawser_data.queue WHERE id = $1",
      [first],
    );
    expect(await polls.all()).toEqual(["replaced", "second of two"]);
  });
});

/** What a role has in the queue, and in the outbox. */
const broughtOf = async (role: pg.Client): Promise<number> => {
  const { rows } = await client.query(
    `SELECT (SELECT count(*) FROM hawser_data.queue WHERE role = $1 AND later IS NULL)::int
          + (SELECT count(*) FROM hawser_data.outbox WHERE role = $1)::int AS count`,
    [role.user],
  );
  return rows[0].count;
};
/** @returns what was wrong with a message, if anything was */
const bringForNats = async (): Promise<string | null> =>
  (
    await client.query(
      "SELECT b.problem FROM hawser.least_due('nats', NULL) AS l CROSS JOIN LATERAL hawser.bring_later('nats', l.due_from) AS b",
    )
  ).rows[0].problem;

describe("a role with many messages that are due", () => {
  /** @param ago so long ago they were due */
  const manyDue = async (on: pg.Client, kind: "nats" | "peer", count: number, ago: string): Promise<void> => {
    await client.query(
      `INSERT INTO hawser_data.queue (topic, recipient, role, rank, id, later, later_xid, due_at, payload, message_id)
       SELECT 't', '~', $2, n.id, n.id, $1, pg_current_xact_id(), clock_timestamp() - $4::interval, 'x', CASE $1 WHEN 'nats' THEN n.id::text END
         FROM (SELECT nextval('hawser_data.outbox_id_seq') AS id FROM generate_series(1, $3)) AS n`,
      [kind, on.user, count, ago],
    );
  };

  it.each(["nats", "peer"] as const)("does not hold up another one's for %s", async (kind) => {
    await manyDue(mal, kind, 3000, "1 hour");
    await manyDue(ann, kind, 1, "1 second");
    await (kind === "nats" ? bringForNats() : new Polls().next());
    expect([await broughtOf(ann), await broughtOf(mal)]).toEqual([1, 500]);
  });

  it.each(["nats", "peer"] as const)(
    "neither holds up another one's nor its own for %s while it has locked them",
    async (kind) => {
      await manyDue(mal, kind, 3000, "1 hour");
      await client.query("BEGIN; SELECT FROM hawser_data.queue FOR UPDATE");
      const others = await connected();
      await others.query("SELECT set_config('lock_timeout', '10s', false)");
      for (const on of [ann, mal]) await manyDueOn(others, on, kind);
      const polls = new Polls();
      for (;;) {
        if (kind === "nats")
          await others.query("SELECT hawser.bring_later('nats', l.due_from) FROM hawser.least_due('nats', NULL) AS l");
        else await polls.next(others);
        expect(await broughtOf(ann)).toBe(1);
        if ((await broughtOf(mal)) === 1) break;
      }
      await client.query("ROLLBACK");
    },
  );

  const manyDueOn = async (on: pg.Client, of: pg.Client, kind: string): Promise<unknown> =>
    await on.query(
      `INSERT INTO hawser_data.queue (topic, recipient, role, rank, id, later, later_xid, due_at, payload, message_id)
       SELECT 't', '~', $2, n.id, n.id, $1, pg_current_xact_id(), clock_timestamp(), 'x', CASE $1 WHEN 'nats' THEN 'm' END
         FROM nextval('hawser_data.outbox_id_seq') AS n (id)`,
      [kind, of.user],
    );

  it("does not hold up what another one has released", async () => {
    const behind = async (on: pg.Client, count: number): Promise<void> => {
      const first = await later("first", "1 day", on);
      await client.query(
        `WITH held AS (
           INSERT INTO hawser_data.queue (topic, recipient, role, rank, id, later, payload)
           SELECT 't', '~', $1, n.id, n.id, 'held', 'x' FROM (SELECT nextval('hawser_data.outbox_id_seq') AS id FROM generate_series(1, $3)) AS n RETURNING id
         ), edges AS (
           INSERT INTO hawser_data.flow_edges (before_id, after_id, cancels) SELECT $2, h.id, false FROM held AS h
         )
         INSERT INTO hawser_data.flow_ends (role, id, is_done) VALUES ($1, $2, true)`,
        [on.user, first, count],
      );
    };
    await behind(mal, 1200);
    await behind(ann, 1);
    await client.query("BEGIN");
    await client.query("SELECT FROM hawser_data.queue WHERE later = 'held' AND role = $1 FOR KEY SHARE", [mal.user]);
    const others = await connected();
    await new Polls().next(others);
    await client.query("ROLLBACK");
    expect([await broughtOf(ann), await broughtOf(mal)]).toEqual([1, 0]);
  });
});

describe("a message that cannot be brought in", () => {
  it.each(["nats", "peer"] as const)("is put off and named, and the others for %s are brought in", async (kind) => {
    const table = kind === "nats" ? "outbox" : "queue";
    const [of, rest] = kind === "nats" ? ["a.b", ", stream => true"] : ["t", ""];
    await client.query(
      `ALTER TABLE hawser_data.${table} ADD CONSTRAINT is_good CHECK (payload <> 'bad'${kind === "peer" ? " OR later IS NOT NULL" : ""})`,
    );
    try {
      for (const [on, payload] of [
        [mal, "good"],
        [mal, "bad"],
        [mal, "good"],
        [ann, "good"],
      ] as const)
        await on.query(
          `SELECT hawser.enqueue('${of}', $1${rest}, deliver_at => clock_timestamp() + interval '10 ms')`,
          [payload],
        );
      await untilDue();
      let problem: string | null = null;
      // A poll of a slow machine may end before it comes to the bad one.
      while (problem === null) problem = kind === "nats" ? await bringForNats() : (await new Polls().next()).problem;
      await (kind === "nats" ? bringForNats() : new Polls().all());
      expect([await broughtOf(ann), await broughtOf(mal)]).toEqual([1, 2]);
      expect(problem).toMatch(/^the message \d+ of the role ".*" is put off for an hour: .*is_good/);
      const left = await client.query(
        "SELECT convert_from(payload, 'UTF8') AS text, due_at > now() + interval '50 min' AS is_late FROM hawser_data.queue WHERE later IS NOT NULL",
      );
      expect(left.rows).toEqual([{ text: "bad", is_late: true }]);
    } finally {
      await client.query(`ALTER TABLE hawser_data.${table} DROP CONSTRAINT is_good`);
    }
  });

  it("may be due at a time that cannot be subtracted", async () => {
    const [first] = [await later("first", "1 hour"), await later("last", "1 hour"), await later("other", "10 ms", mal)];
    await client.query("UPDATE hawser_data.queue SET due_at = '-infinity' WHERE id = $1", [first]);
    await client.query("UPDATE hawser_data.queue SET due_at = 'infinity' WHERE payload = 'last'");
    await client.query("INSERT INTO hawser_data.flow_ends (role, id, is_done) VALUES ($1, $2, true)", [
      ann.user,
      first,
    ]);
    await untilDue();
    await ann.query("BEGIN");
    await ann.query("SELECT hawser.cancel($1)", [first]);
    const polls = new Polls();
    expect(await polls.all()).toEqual(["other"]);
    await ann.query("ROLLBACK");
    expect(await polls.all()).toEqual(["other", "first"]);
  });
});

describe("a time that nothing can be due at", () => {
  const times = ["-infinity", "infinity", "0044-03-15 BC", "1969-12-31 23:59:59Z", "294276-12-31", "3000-01-01"];
  const calls = {
    enqueue: "hawser.enqueue('t', 'x', deliver_at => $1)",
    "enqueue for NATS": "hawser.enqueue('t', 'x', stream => true, deliver_at => $1)",
    enqueue_batch: "hawser.enqueue_batch('t', ARRAY['x'::bytea], deliver_at => $1)",
    enqueue_unique: "hawser.enqueue_unique('t', 'x', 'k', deliver_at => $1)",
    "enqueue_unique that replaces": "hawser.enqueue_unique('t', 'x', 'waits', replaces => true, deliver_at => $1)",
    enqueue_after: "hawser.enqueue_after('t', 'x', ARRAY[hawser.enqueue('t', 'x')], deliver_at => $1)",
    "enqueue_after nothing": "hawser.enqueue_after('t', 'x', '{}', deliver_at => $1)",
  };

  it.each(Object.entries(calls))("is refused by %s, with a remedy", async (_, call) => {
    await ann.query("SELECT hawser.enqueue_unique('t', 'x', 'waits', deliver_at => now() + interval '1 hour')");
    for (const time of times) {
      await expect(ann.query(`SELECT ${call}`, [time]), time).rejects.toMatchObject({
        code: "22023",
        message: expect.stringMatching(
          /^hawser\.enqueue\w*: the argument deliver_at is .*, and must be within 3660 days, and not before 1970$/,
        ),
        hint: expect.stringContaining("Give such a moment"),
      });
    }
  });
});
