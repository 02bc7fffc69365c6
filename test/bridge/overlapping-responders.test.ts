/**
 * A responder gets no requests for which a function of another role is registered: overlapping subjects are refused.
 */
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Login, login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase, testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";

let database: TestDatabase;
let operator: pg.Client;
const open: pg.Client[] = [];
const logins: (Login & AsyncDisposable)[] = [];

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client(url);
  await client.connect();
  open.push(client);
  return client;
}

/** A session of a login of its own that may register responders. */
async function role(): Promise<pg.Client & { readonly role: string }> {
  const made = await login(database.url, "IN ROLE hawser_nats");
  logins.push(made);
  return Object.assign(await connected(made.url), { role: made.role });
}

const register = (client: pg.Client, subject: string) =>
  client.query("SELECT litmus_pgnats_register_responder($1, 'public.answer(bytea)'::regprocedure)", [subject]);

beforeAll(async () => {
  database = await testDatabase();
  operator = await connected(database.url);
  await operator.query("CREATE FUNCTION public.answer(p bytea) RETURNS bytea LANGUAGE sql AS 'SELECT p'");
});
afterAll(async () => {
  await Promise.all(open.map((client) => client.end()));
  for (const one of logins) await one[Symbol.asyncDispose]();
  await database?.[Symbol.asyncDispose]();
});

/** All subjects of one to `length` words of an alphabet, which may end in `last`, too. */
function subjectsOf(words: readonly string[], length: number, last: readonly string[] = []): string[] {
  const shorter = length === 1 ? [] : subjectsOf(words, length - 1);
  const beginnings = length === 1 ? [""] : shorter.filter((one) => one.split(".").length === length - 1);
  const longest = beginnings.flatMap((one) =>
    [...words, ...last].map((word) => (one === "" ? word : `${one}.${word}`)),
  );
  return length === 1 ? longest : [...subjectsOf(words, length - 1, last), ...longest];
}

it("subjects overlap where NATS delivers one message for both: all pairs of up to three words of a, b, * and >", async () => {
  const patterns = subjectsOf(["a", "b", "*"], 3, [">"]);
  expect(patterns).toHaveLength(4 + 12 + 36);
  // One word more than the patterns have: for what '>' stands for.
  const subjects = subjectsOf(["a", "b", "c"], 4);
  const nats = await connect({ servers: testNatsUrl() });
  const prefix = `overlap${Date.now()}`;
  const got = new Map(patterns.map((pattern) => [pattern, new Set<string>()]));
  for (const pattern of patterns) {
    nats.subscribe(`${prefix}.${pattern}`, { callback: (_, { subject }) => void got.get(pattern)!.add(subject) });
  }
  for (const subject of subjects) nats.publish(`${prefix}.${subject}`);
  await nats.flush();
  await eventually("all that NATS delivers is here", async () => got.get(">")!.size === subjects.length);
  await nats.close();
  const delivered = patterns.flatMap((one) =>
    patterns.map((other) => [...got.get(one)!].some((subject) => got.get(other)!.has(subject))),
  );
  const { rows } = await operator.query<{ overlap: boolean }>(
    `SELECT hawser.subjects_overlap(a.p, b.p) AS overlap
       FROM unnest($1::text[]) WITH ORDINALITY AS a (p, n), unnest($1::text[]) WITH ORDINALITY AS b (p, n) ORDER BY a.n, b.n`,
    [patterns],
  );
  expect(rows.map(({ overlap }) => overlap)).toEqual(delivered);
});

describe("a responder", () => {
  it("of another role is refused wherever requests could reach both, with who has the other one and what to do", async () => {
    const [owner, attacker] = [await role(), await role()];
    await register(owner, "al.r");
    for (const subject of ["al.*", "*.r", "al.>", ">", "*.*"]) {
      await expect(register(attacker, subject), subject).rejects.toMatchObject({
        code: "42501",
        message:
          `a responder for "${subject}" would also get requests to "al.r", which a function answers that "${owner.role}" ` +
          `has registered, and "${attacker.role}" is not in that role`,
        hint: `Choose subjects that no request can have in common, or have "${owner.role}" unregister it first.`,
      });
    }
    for (const subject of ["al.s", "al", "*.s.t", "b.c"]) await register(attacker, subject);
    // Its own, and those of roles that it is in, are its own affair.
    await register(owner, "al.r.x");
    await register(operator, "al.r.>");
  });

  it("comes in once where two roles register overlapping ones at the same time", async () => {
    for (const [mine, theirs] of [
      ["race.a", "race.*"],
      ["*.b2.c2", "race.b2.*"],
      ["race.q.>", "race.q.y"],
    ] as const) {
      const [one, other] = [await role(), await role()];
      await one.query("BEGIN");
      await register(one, mine);
      const late = register(other, theirs).then(
        () => "registered",
        (error: pg.DatabaseError) => error.code,
      );
      await eventually("the other one waits", async () => {
        const { rowCount } = await operator.query(
          "SELECT FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'",
          [other.role],
        );
        return rowCount === 1;
      });
      await one.query("COMMIT");
      expect(await late).toBe("42501");
      await one.query("SELECT litmus_pgnats_unregister_responder($1)", [mine]);
    }
  });
});
