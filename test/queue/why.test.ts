/** Why a message waits, on the level of SQL: each cause is planted, named by `hawser.why`, and taken away. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { queueFunctions, type WhyResult, whyFunctions } from "../../generated/ts/rows/queue.js";
import { type Login, login } from "../installation/support/logins.js";
import { type World, world } from "../store/support/world.js";
import { TestWorker } from "./support/test-worker.js";

let w: World;
let client: pg.Client;
let other: pg.Client;
let work: pg.Client;

beforeAll(async () => {
  w = await world();
  client = w.operator;
  other = await w.connect();
  work = await w.connect();
});
afterAll(() => w?.[Symbol.asyncDispose]());
beforeEach(async () => {
  for (const each of [client, other, work]) await each.query("ROLLBACK");
  await client.query(
    `TRUNCATE hawser_data.queue, hawser_data.flow_edges, hawser_data.flow_ends, hawser_data.cancellations, hawser_data.workers, hawser_data.served_topics,
              hawser_data.dead_letters, hawser_data.results, hawser_data.topic_settings, hawser_data.topic_starts`,
  );
});

/** @param rest further arguments, in SQL */
const put = async (rest = "", topic = "t", on = client): Promise<bigint> =>
  BigInt((await on.query(`SELECT hawser.enqueue($1, 'x'::text${rest}) AS id`, [topic])).rows[0].id);
const open = async (options: Parameters<typeof TestWorker.open>[1] = {}): Promise<TestWorker> =>
  await TestWorker.open(work, { concurrency: 1, ...options });
const conditions = async (id: bigint, on = client): Promise<WhyResult[]> =>
  await whyFunctions(on).why({ id, topic: null, key: null });
/** Conditions that are not met. */
const held = async (id: bigint, on = client): Promise<WhyResult[]> =>
  (await conditions(id, on)).filter(({ isMet }) => !isMet);
/** Names of these. */
const causes = async (id: bigint): Promise<string[]> => (await held(id)).map(({ condition }) => condition);
const takes = async (worker: TestWorker, id: bigint): Promise<boolean> =>
  (await worker.take({ looksBehind: true })).some((taken) => taken.id === id);
const says = (condition: string, explanation: RegExp, remedy: RegExp, more: Partial<WhyResult> = {}) =>
  expect.objectContaining({
    condition,
    explanation: expect.stringMatching(explanation),
    remedy: expect.stringMatching(remedy),
    ...more,
  });
const failure = { attempt: 1, at: new Date(0), code: "handler_failed", message: "no paper" };

it("names all conditions in their order, and none that is not met where a worker takes the message", async () => {
  const worker = await open();
  const id = await put(", key => 'k'");
  const all = await conditions(id);
  expect(all.map(({ condition }) => condition)).toEqual(
    ["waits", "server_writes", "not_held", "due", "role_may_enqueue", "served"].concat(
      ...["not_paused", "within_limits", "first_of_key", "free", "room"],
    ),
  );
  for (const one of all)
    expect(one).toEqual({
      ...{ jobId: id, nth: one.nth, condition: one.condition, isMet: true },
      ...{ holder: null, since: null, explanation: null, remedy: null },
    });
  expect(await takes(worker, id)).toBe(true);
});

describe("a message that no worker serves", () => {
  it("waits for a worker of the topic", async () => {
    const id = await put();
    expect(await held(id)).toEqual([
      says("served", /^no worker serves the topic "t"$/, /^Start a worker that handles "t"$/),
    ]);
    expect(await takes(await open(), id)).toBe(true);
  });

  it("has a topic one letter off that of a worker", async () => {
    await open({ topics: ["reports", "mails"] });
    const id = await put("", "reprots");
    expect(await held(id)).toEqual([
      says("served", /workers serve "reports": .* mistyped/, /^If so, correct the name/, { holder: "reports" }),
    ]);
    expect(await takes(await open({ topics: ["reprots"] }), id)).toBe(true);
  });

  it("waits for one that served it before", async () => {
    const first = await open({ name: "billing-1" });
    await first.close();
    const id = await put();
    expect(await held(id)).toEqual([
      says("served", /the last one was "billing-1"$/, /^Start/, { holder: "billing-1", since: expect.any(Date) }),
    ]);
  });

  it("waits for a member of its group, and for a listener that is away", async () => {
    const worker = await open({ name: "w1" });
    const ofGroup = await put();
    const ofName = await put(", listener => 'away'").catch(() => undefined);
    await client.query("UPDATE hawser_data.queue SET recipient = '#red' WHERE id = $1", [String(ofGroup)]);
    const forName = ofName ?? (await put());
    await client.query("UPDATE hawser_data.queue SET recipient = '@away' WHERE id = $1", [String(forName)]);
    expect(await held(ofGroup)).toEqual([
      says("served", /^no member of the group "red"/, /^Start a worker with the group "red"/),
    ]);
    expect(await held(forName)).toEqual([
      says("served", /^it is for the listener "away", which is away/, /hawser peers reassign away OTHER$/),
    ]);
    expect(await takes(worker, ofGroup)).toBe(false);
    expect(await takes(await open({ name: "away" }), forName)).toBe(true);
    expect(await takes(await open({ name: "w2", group: "red" }), ofGroup)).toBe(true);
  });
});

it("is due later", async () => {
  const worker = await open();
  const id = await put(", deliver_at => now() + interval '1 hour'");
  expect(await held(id)).toEqual([says("due", /^it is due in 60 min$/, /hawser jobs cancel/)]);
  await client.query("UPDATE hawser_data.queue SET due_at = now()");
  expect(await causes(id)).toEqual([]);
  await client.query("SELECT hawser.bring_due(NULL, NULL)");
  expect(await takes(worker, id)).toBe(true);
});

it("was put off by a retry", async () => {
  const worker = await open();
  const id = await put();
  const [taken] = await worker.take();
  await worker.retry(taken!, 3_600_000, failure);
  expect(await held(id)).toEqual([
    says(
      "due",
      /^it has failed once, last with handler_failed: no paper\. It is tried again in 60 min$/,
      /^Mend the handler/,
      { since: new Date(0) },
    ),
  ]);
  await client.query("UPDATE hawser_data.queue SET due_at = now()");
  expect(await takes(worker, id)).toBe(true);
});

it("waits for another one of its key, which a worker has", async () => {
  const worker = await open({ name: "w1" });
  const first = await put(", key => 'k'");
  const [taken] = await worker.take();
  const id = await put(", key => 'k'");
  const second = await open({ name: "w2" });
  expect(await takes(second, id)).toBe(false);
  expect(await held(id)).toEqual([
    says(
      "first_of_key",
      /^the message \d+ has the key "k", too, and comes first; the worker "w1" has it$/,
      new RegExp(`^hawser why ${first}$`),
      { holder: String(first), since: expect.any(Date) },
    ),
  ]);
  await worker.done(taken!);
  expect(await causes(id)).toEqual([]);
  expect(await takes(second, id)).toBe(true);
});

it("is of a paused topic", async () => {
  const worker = await open();
  const id = await put();
  await queueFunctions(client).pauseTopic({ topic: "t" });
  expect(await takes(worker, id)).toBe(false);
  expect(await held(id)).toEqual([
    says("not_paused", /paused/, /^hawser topics resume t$/, { holder: "postgres", since: expect.any(Date) }),
  ]);
  await queueFunctions(client).resumeTopic({ topic: "t" });
  expect(await takes(worker, id)).toBe(true);
});

describe("a topic with limits", () => {
  it.each([
    ["running => 1", /^1 of 1 messages of the topic run/],
    [
      "rate => '1/h'",
      /^the rate of the topic is used up, 1\/h with a burst of 1: the next one may start in 3[56]\d{5} ms$/,
    ],
    ["running_per_key => 1", /^1 of 1 messages of the key "a" run/],
  ])("has no place left: %s", async (limits, explanation) => {
    await client.query(
      `SELECT hawser.limit_topic('t', ${limits}${limits.startsWith("running_per") ? ", key_header => 'tenant'" : ""})`,
    );
    const worker = await open();
    const headers = `, headers => '{"tenant": "a"}'`;
    await put(headers);
    expect(await worker.take({ most: 1 })).toHaveLength(1);
    const id = await put(headers);
    expect(await takes(worker, id)).toBe(false);
    expect(await held(id)).toEqual([
      says("within_limits", explanation, /^Wait, or give higher numbers: hawser topics limit t --/),
    ]);
    await client.query("SELECT hawser.limit_topic('t')");
    expect(await causes(id)).toEqual([]);
    expect(await takes(worker, id)).toBe(true);
  });
});

it("waits for a transaction that changes the limits of its topic", async () => {
  await client.query("SELECT hawser.limit_topic('t', running => 1)");
  const worker = await open();
  const id = await put();
  await other.query("BEGIN");
  await other.query("SELECT hawser.limit_topic('t', running => 1)");
  expect(await takes(worker, id)).toBe(false);
  expect(await held(id)).toEqual([
    says("within_limits", /^the session \d+ of the role "postgres" has locked the settings of the topic/, /terminate/),
  ]);
  await other.query("ROLLBACK");
  expect(await causes(id)).toEqual([]);
});

it("comes after one that has not ended, is dead, or was cancelled", async () => {
  const worker = await open();
  const first = await put();
  const id = BigInt(
    (await client.query("SELECT hawser.enqueue_after('t', 'x'::text, $1) AS id", [[String(first)]])).rows[0].id,
  );
  expect(await held(id)).toEqual([
    says("not_held", /^it comes after the message \d+, which has not ended$/, /^hawser why/, { holder: String(first) }),
  ]);
  const [taken] = await worker.take();
  const letter = await worker.giveUp(taken!);
  for (let round = 0; round < 3; round++) await client.query("SELECT hawser.bring_due(NULL, NULL)");
  expect(await held(id)).toEqual([
    says(
      "not_held",
      /is a dead letter$/,
      new RegExp(`^Mend the handler, then hawser dead retry ${letter}, or hawser jobs cancel --flow ${id}$`),
      { holder: String(first) },
    ),
  ]);
  await client.query("SELECT hawser.retry_dead_letters($1)", [[String(letter)]]).catch(() => undefined);
  await client.query("DELETE FROM hawser_data.dead_letters");
  expect(await held(id)).toEqual([
    says("not_held", /(was cancelled or discarded|has not ended)$/, /^hawser (jobs cancel --flow|why)/),
  ]);
});

describe("a message that does not wait any more", () => {
  it("is a dead letter", async () => {
    const worker = await open();
    const id = await put();
    const [taken] = await worker.take();
    const letter = await worker.giveUp(taken!, failure);
    expect(await held(id)).toEqual([
      says(
        "waits",
        /^it is a dead letter since its attempt \d+: handler_failed: no$/,
        new RegExp(`hawser dead retry ${letter}$`),
        { since: expect.any(Date) },
      ),
    ]);
  });

  it("was handled or cancelled, and that is kept", async () => {
    const worker = await open({ name: "w1" });
    await client.query("BEGIN");
    const [done, cancelled] = [await put(), await put()];
    for (const id of [done, cancelled]) await client.query("SELECT hawser.keep_result($1, 60000)", [String(id)]);
    await client.query("COMMIT");
    await client.query("SELECT hawser.cancel($1)", [String(cancelled)]);
    const [taken] = await worker.take();
    const place = [[taken!.topic], [taken!.recipient], [taken!.role], [String(taken!.rank)]];
    await work.query("SELECT hawser.done_batch($1, $2, $3, $4, false, $5)", [
      ...place,
      JSON.stringify([[String(taken!.rank), 42, "7"]]),
    ]);
    const ended = { condition: "waits", since: expect.any(Date) };
    expect(await held(cancelled)).toMatchObject([{ ...ended, explanation: "it was cancelled" }]);
    expect(await held(done)).toMatchObject([
      { ...ended, explanation: 'the worker "w1" has handled it', holder: "w1", remedy: null },
    ]);
  });

  it("may not be committed yet, or was handled, or never was", async () => {
    const gone = await put();
    await client.query("DELETE FROM hawser_data.queue");
    expect(await held(gone)).toEqual([
      says("waits", /^it was handled or cancelled, and nothing of it is kept/, /hawser topics keep/),
    ]);
    await other.query("BEGIN");
    const id = await put("", "t", other);
    const { rows } = await other.query("SELECT pg_backend_pid() AS pid");
    const holder = `session ${rows[0].pid}`;
    expect(await held(id)).toEqual([says("waits", /may not have ended/, /pg_terminate_backend/, { holder })]);
    expect(await held(id + 1_000_000n)).toEqual([
      says("waits", /^no message has had this id yet$/, /^Look for the id/),
    ]);
    await other.query("COMMIT");
    expect(await causes(id)).toEqual(["served"]);
  });
});

describe("a message that somebody has", () => {
  it("is a worker's, which says how long its handlers run", async () => {
    const worker = await open({ name: "w1" });
    const id = await put();
    const [taken] = await worker.take();
    const running = { full: true, oldest_ms: 90_000, topics: { t: { running: 1, oldest_ms: 90_000, full: true } } };
    await queueFunctions(work).extend({ worker: worker.id, looks: false, running: JSON.stringify(running) });
    const next = await put();
    expect(await held(id)).toContainEqual(
      says("free", /^the worker "w1" has it: .*the oldest for 90 s$/, /timeoutMs/, {
        holder: "w1",
        since: expect.any(Date),
      }),
    );
    expect(await held(next)).toEqual([
      says(
        "room",
        /^all places of the 1 workers of the topic are taken; in "w1", a handler has been running for 90 s$/,
        /hang.*timeoutMs/,
        { holder: "w1" },
      ),
    ]);
    await worker.done(taken!);
    await queueFunctions(work).extend({ worker: worker.id, looks: false, running: null });
    expect(await causes(next)).toEqual([]);
  });

  it("is to be cancelled", async () => {
    const worker = await open({ name: "w1" });
    const id = await put();
    await worker.take();
    await client.query("SELECT hawser.cancel($1)", [String(id)]);
    expect(await held(id)).toEqual([
      says("free", /^it is to be cancelled, when its handler in the worker "w1" has ended$/, /signal/),
    ]);
  });

  it("is taken over when a worker is silent for long enough", async () => {
    const worker = await open({ name: "w1", leaseMs: 600_000 });
    const id = await put();
    await worker.take();
    await client.query("UPDATE hawser_data.workers SET beat_at = now() - interval '400 s'");
    expect(await held(id)).toContainEqual(
      says(
        "free",
        /^the worker "w1" has it, and has been silent for 4\d\d s: another one takes it over in [12]\d\d s$/,
        /^Wait for the takeover, or start "w1" again$/,
      ),
    );
    await client.query("UPDATE hawser_data.workers SET beat_at = now() - interval '700 s'");
    const second = await open({ name: "w2" });
    await second.extend();
    expect(await takes(second, id)).toBe(true);
  });

  it("is locked by a transaction", async () => {
    const worker = await open();
    const id = await put();
    await other.query("BEGIN");
    await other.query("SELECT FROM hawser_data.queue WHERE id = $1 FOR UPDATE", [String(id)]);
    expect(await takes(worker, id)).toBe(false);
    expect(await held(id)).toEqual([
      says("free", /^the session \d+ of the role "postgres" has locked it/, /pg_terminate_backend/),
    ]);
    await other.query("ROLLBACK");
    expect(await takes(worker, id)).toBe(true);
  });

  it("is locked by transactions that share the lock", async () => {
    await open();
    const id = await put();
    const locked = await put();
    for (const session of [other, client]) {
      await session.query("BEGIN");
      await session.query("SELECT FROM hawser_data.queue WHERE id = $1 FOR SHARE", [String(locked)]);
    }
    expect(await held(locked)).toEqual([says("free", /^the session \d+ of the role "postgres" has locked it/, /./)]);
    expect(await causes(id)).toEqual([]);
  });
});

it("is of a topic whose workers have not been heard of since it came", async () => {
  await open({ name: "w1" });
  const id = await put();
  await client.query("UPDATE hawser_data.workers SET is_idle = true, beat_at = now() - interval '99 s'");
  expect(await causes(id)).toEqual([]);
  await client.query("UPDATE hawser_data.queue SET enqueued_at = now() - interval '50 s'");
  expect(await held(id)).toEqual([
    says("served", /^nothing else holds it, and no worker .* heard of for 99 s; the last one was "w1"$/, /^Start/),
  ]);
  await client.query("UPDATE hawser_data.workers SET beat_at = now() - interval '49 s'");
  expect(await causes(id)).toEqual([]);
});

describe("roles", () => {
  const connected = async ({ url }: Login): Promise<pg.Client> => {
    const session = new pg.Client({ connectionString: url });
    await session.connect();
    return session;
  };

  it("that may not enqueue any more have no turn, and others learn nothing of a message", async () => {
    await using mine = await login(w.url, "IN ROLE hawser_peer");
    await using yours = await login(w.url, "IN ROLE hawser_peer");
    const [me, you] = [await connected(mine), await connected(yours)];
    try {
      await open();
      const id = await put(", deliver_at => now() + interval '1 hour'", "t", me);
      const nothing =
        /^it was handled or cancelled, and nothing of it is kept; or it was rolled back, or is of a role that you are not a member of$/;
      expect(await held(id, you)).toEqual([says("waits", nothing, /./)]);
      await client.query("UPDATE hawser_data.queue SET due_at = now()");
      await client.query(`REVOKE hawser_peer FROM ${mine.role}`);
      expect(await held(id)).toEqual([
        says("role_may_enqueue", /may not enqueue for peers any more$/, /^GRANT hawser_peer TO/),
      ]);
    } finally {
      await Promise.all([me.end(), you.end()]);
    }
  });
});

it("finds the first message of a topic, and of a key", async () => {
  const [first, second, keyed] = [await put(), await put(", key => 'j'"), await put(", key => 'k'")];
  const found = async (topic: string | null, key: string | null) =>
    (await whyFunctions(client).why({ id: null, topic, key }))[0]!;
  expect((await found("t", null)).jobId).toBe(first);
  expect((await found("t", "j")).jobId).toBe(second);
  expect((await found("t", "k")).jobId).toBe(keyed);
  expect(await found("t", "none")).toMatchObject({
    ...{ jobId: null, condition: "waits", isMet: false },
    explanation: 'no enqueued message of the topic "t" with the key "none" waits that you may see',
  });
  await expect(found(null, null)).rejects.toMatchObject({
    message: expect.stringContaining("must be the id of a message"),
  });
});

describe("what a worker says is wrong", () => {
  it.each([
    ...[
      "5",
      "[]",
      '"full"',
      "{}",
      '{"full": "maybe"}',
      '{"full": 1, "topics": []}',
      '{"topics": {"t": 7}}',
      '{"full": true, "topics": "x"}',
    ],
    '{"full": true, "topics": {"t": {"running": {"a": "; rm"}, "oldest_ms": "90 s", "full": "yes"}, "u": null}}',
    '{"full": true, "topics": {"t": {"running": 1e300, "oldest_ms": 1e300}}}',
    '{"full": true, "topics": {"t": {"running": -1.5, "oldest_ms": -1e300}}}',
    `{"full": true, "topics": {"t": ${"[".repeat(1000)}${"]".repeat(1000)}}}`,
    `{"full": true, "topics": {${Array.from({ length: 2000 }, (_, n) => `"${n}": {"oldest_ms": "x"}`).join(", ")}}}`,
  ])("and is no more believed than it can be: %.60s", async (running) => {
    const worker = await open({ name: "w1" });
    const id = await put();
    await worker.take();
    const next = await put();
    await queueFunctions(work).extend({ worker: worker.id, looks: false, running });
    expect(await held(id)).toContainEqual(says("free", /^the worker "w1" has it: (?!.*rm)/, /./));
    const isFull = running.startsWith('{"full": true');
    expect(await causes(next)).toEqual(isFull ? ["room"] : []);
    await (await open({ name: "w2" })).extend();
    expect(await causes(next)).toEqual([]);
  });

  it("about when it failed", async () => {
    const worker = await open();
    const id = await put();
    const [taken] = await worker.take();
    await worker.retry(taken!, 60_000, { at: "gestern", code: 5, message: ["%s"] });
    expect(await held(id)).toEqual([
      says("due", /^it has failed once, last with 5: \["%s"\]\. It is/, /./, { since: null }),
    ]);
  });
});

it("quotes a topic for the shell into which its remedy is copied", async () => {
  const topic = "a'b; $(reboot) %s";
  await open({ topics: [topic] });
  const id = await put("", topic);
  await queueFunctions(client).pauseTopic({ topic });
  await client.query("SELECT hawser.limit_topic($1, running => 1)", [topic]);
  await put("", topic);
  expect((await held(id))[0]!.remedy).toBe(`hawser topics resume 'a'\\''b; $(reboot) %s'`);
  await client.query("SELECT hawser.resume_topic($1)", [topic]);
  await (await TestWorker.open(work, { topics: [topic] })).take({ topics: [topic], most: 1 });
  const rest = await put("", topic);
  expect(await held(rest)).toEqual([
    says("within_limits", /1 of 1/, /: hawser topics limit 'a'\\''b; \$\(reboot\) %s' --running 1$/),
  ]);
});

it("counts what has started by those that workers have, with the present header of the limit", async () => {
  const worker = await open();
  await client.query("SELECT hawser.limit_topic('t', running_per_key => 1, key_header => 'tenant')");
  const headers = `, headers => '{"tenant": "a", "shop": "b"}'`;
  const id = await put(headers);
  const [taken] = await worker.take({ topics: ["t"] });
  const next = await put(headers);
  const apart = await put(`, headers => '{"tenant": "c", "shop": "b"}'`);
  expect(await causes(next)).toEqual(["within_limits"]);
  expect(await causes(apart)).toEqual([]);
  await client.query("SELECT hawser.limit_topic('t', running_per_key => 1, key_header => 'shop')");
  expect(await causes(apart)).toEqual(["within_limits"]);
  await worker.giveBack(taken!);
  expect([await causes(id), await causes(next), await causes(apart)]).toEqual([[], [], []]);
  expect((await worker.take({ topics: ["t"], looksBehind: true })).map((each) => each.id)).toEqual([id]);
});

it("is to be cancelled, and its worker is gone", async () => {
  const worker = await open();
  const id = await put();
  await worker.take();
  await client.query("SELECT hawser.cancel($1)", [String(id)]);
  await client.query("UPDATE hawser_data.workers SET gone_at = now()");
  const second = await open({ name: "w2" });
  expect(await held(id)).toEqual([says("free", /^it is to be cancelled, and nobody has it/, /./)]);
  expect(await takes(second, id)).toBe(false);
});

it("does not begin while a transaction relies on its unique key", async () => {
  const worker = await open();
  const { rows } = await client.query("SELECT hawser.enqueue_unique('t', 'x'::text, 'u') AS id");
  const id = BigInt(rows[0].id);
  await other.query("BEGIN");
  await other.query("SELECT hawser.enqueue_unique('t', 'x'::text, 'u')");
  expect(await held(id)).toEqual([
    says(
      "free",
      /^the session \d+ of the role "postgres" has locked it, or its unique key, in/,
      /pg_terminate_backend/,
    ),
  ]);
  await other.query("ROLLBACK");
  expect(await causes(id)).toEqual([]);
  expect(await takes(worker, id)).toBe(true);
});

it("asks what holds for workers, not what is set for the caller alone", async () => {
  await open();
  const id = await put();
  await client.query("SET default_transaction_read_only = on");
  expect(await causes(id)).toEqual([]);
  await client.query("SET default_transaction_read_only = off");
  const name = (await client.query("SELECT quote_ident(current_database()) AS name")).rows[0].name;
  await client.query(`ALTER DATABASE ${name} SET default_transaction_read_only = on`);
  expect(await causes(id)).toEqual(["server_writes"]);
  await client.query(`ALTER DATABASE ${name} RESET default_transaction_read_only`);
  await client.query("RESET default_transaction_read_only");
  expect(await causes(id)).toEqual([]);
});

it("finds no message for NATS of the same name", async () => {
  const nats = await put(", deliver_at => now() + interval '1 hour'");
  const id = await put(", deliver_at => now() + interval '2 hours'");
  await client.query("UPDATE hawser_data.queue SET later = 'nats' WHERE id = $1", [String(nats)]);
  expect((await whyFunctions(client).why({ id: null, topic: "t", key: null }))[0]!.jobId).toBe(id);
});
