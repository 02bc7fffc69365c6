/**
 * A hostile pass by logins that have a position: the relay, a worker of the queue, the leader of `hawser serve`, the owner of a name. Each
 * calls every function that it may execute with its position's own ids, with ids of the rows of others, and with NULL.
 */
import pg from "pg";
import { expect } from "vitest";
import { Random } from "../../../simulator/random.js";
import { testDatabase } from "../../../support/database.js";
import { atDepth } from "../../../support/depth.js";
import { callsOf } from "./attack.js";
import { type AttackerRole, attackerRoles, functionsOf } from "./catalog.js";

/** Random seed, which makes a run repeatable. */
const seed = Number(process.env["HAWSER_FAULT_SEED"] ?? 1);
const forNats = "payload-for-nats-of-the-victim";
const forPeers = "payload-for-peers-of-the-victim";
const perKind = 5;

/** A login, and what it may do in its position. */
export interface Position {
  readonly name: string;
  readonly role: AttackerRole;
  /** Statement that takes the position, with its ids as columns that are named as parameters. */
  readonly take: string;
  /** Functions of which at least one call must have succeeded. */
  readonly uses: readonly string[];
  /** Payloads of others that docs/security-model.md lets it read. */
  readonly reads: readonly string[];
  /** Kinds of messages that it may lose or delay, according to docs/security-model.md. */
  readonly stops: readonly ("nats" | "peer")[];
}

/** All positions of an installation. */
export const positions: readonly Position[] = [
  {
    name: "a worker of the queue",
    role: "hawser_peer",
    take: "SELECT worker AS p_worker FROM hawser.open_worker('mine', '{victim-topic}', NULL, 60000, 1, NULL)",
    uses: ["take", "extend"],
    reads: [forPeers],
    stops: ["peer"],
  },
  {
    name: "the relay",
    role: "hawser_bridge",
    take: "SELECT 'mine' AS p_owner, turn AS p_turn FROM hawser.outbox_take('mine', NULL)",
    uses: ["outbox_turn_nats", "outbox_rotate"],
    reads: [forNats],
    stops: ["nats"],
  },
  {
    name: "the leader",
    role: "hawser_bridge",
    take: "SELECT 'mine' AS p_owner, epoch AS p_epoch FROM hawser.take_lead('mine', $1, $2)",
    uses: ["keep_lead", "raise_lead"],
    reads: [forNats],
    stops: ["nats"],
  },
  {
    name: "the owner of a name",
    role: "hawser_peer",
    take: "SELECT 'attack-peer' AS p_name, epoch AS p_epoch FROM hawser.own_name('attack-peer', 'mine', 1)",
    uses: ["keep_name", "enter_directory"],
    reads: [forPeers],
    stops: ["peer"],
  },
];

/**
 * Calls every function that the login of a position may execute, each call rolled back, after a look at what it would have read and
 * stopped.
 */
export async function expectHarmless({ role, take, uses, reads, stops }: Position): Promise<void> {
  await using database = await testDatabase();
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  try {
    const logins = new Map(attackerRoles.map((each) => [each, `${each}_${database.name}`]));
    await client.query("BEGIN");
    for (const [each, login] of logins) {
      await client.query(`CREATE ROLE ${login} ${each === "none" ? "" : `IN ROLE ${each}`}`);
    }
    await client.query("SELECT hawser.enqueue('victim.out', $1, stream => false) FROM generate_series(1, $2)", [
      forNats,
      perKind,
    ]);
    await client.query("SELECT hawser.enqueue('victim-topic', $1) FROM generate_series(1, $2)", [forPeers, perKind]);
    const { rows } = await client.query(
      "SELECT id::text FROM hawser_data.outbox UNION ALL SELECT id::text FROM hawser_data.queue ORDER BY 1",
    );
    const ids = { numbers: rows.map(({ id }) => id as string), texts: ["victim-topic", "victim.out"] };
    // Roles of the whole server, without a commit: nothing of them stays. Subtransactions undo each call.
    const asAttacker = `SET LOCAL SESSION AUTHORIZATION ${logins.get(role)}`;
    const { rows: lead } = await client.query("SELECT epoch, beat FROM hawser_data.owners WHERE what = 'serve'");
    await client.query(asAttacker);
    const taken = await client.query({
      text: take,
      values: take.includes("$1") ? [lead[0].epoch, lead[0].beat] : [],
    });
    await client.query("SET LOCAL SESSION AUTHORIZATION DEFAULT");
    expect(Object.values(taken.rows[0])).not.toContain(null);
    const own = { ...argumentsOfTurn(ids.numbers), ...(taken.rows[0] as Record<string, string>) };
    expect(await waiting(client)).toEqual({ nats: perKind, peer: perKind });

    const random = new Random(seed);
    const functions = (await functionsOf(client, logins)).filter(
      ({ callers, schema }) => callers.has(role) && schema === "hawser",
    );
    expect(functions.length).toBeGreaterThan(role === "hawser_peer" ? 50 : 15);
    const wrong: string[] = [];
    const succeeded = new Set<string>();
    for (const called of functions) {
      // A relay decides by itself what has been handed over: each argument of its turn gets each hostile value.
      const valuesPerArgument = called.name.startsWith("outbox_turn_") ? undefined : atDepth(5);
      const options = { role, ids, random, valuesPerArgument, pairs: atDepth(5), own };
      for (const { label, sql } of callsOf(called, options)) {
        await client.query("SAVEPOINT attack");
        const shown = await client.query(`${asAttacker}; SET LOCAL statement_timeout = '60s'; ${sql}`).then(
          (results) => {
            succeeded.add(called.name);
            return JSON.stringify((results as unknown as pg.QueryResult[]).at(-1)!.rows, withBytes);
          },
          async () => await client.query("ROLLBACK TO attack").then(() => ""),
        );
        await client.query(asAttacker);
        const letters = await client.query("SELECT d::text AS letter FROM hawser_data.dead_letters AS d").then(
          (result) => JSON.stringify(result.rows),
          async () => await client.query("ROLLBACK TO attack").then(() => ""),
        );
        await client.query("SET LOCAL SESSION AUTHORIZATION DEFAULT");
        for (const payload of [forNats, forPeers]) {
          const hex = Buffer.from(payload).toString("hex");
          const leaked = [shown, letters].some((text) => text.includes(payload) || text.includes(hex));
          if (leaked && !reads.includes(payload)) wrong.push(`${label} shows ${payload}`);
        }
        const after = await waiting(client);
        for (const kind of ["nats", "peer"] as const) {
          if (after[kind] < perKind && !stops.includes(kind))
            wrong.push(`${label}: ${after[kind]} of ${perKind} messages of the kind ${kind} are left`);
        }
        await client.query("ROLLBACK TO attack");
      }
    }
    expect(wrong).toEqual([]);
    expect([...succeeded]).toEqual(expect.arrayContaining([...uses]));
  } finally {
    await client.end();
  }
}

/** Arguments of a turn by which it reads and takes what there is, whomever the messages belong to. */
function argumentsOfTurn(ids: readonly string[]): Record<string, string> {
  const dead = ids.map((id) => ({ id, code: "hostile", message: "hostile", attempts: 1 }));
  return {
    p_dead: JSON.stringify(dead),
    p_done_from: "3:3:",
    p_series: "[]",
    p_skipped: "{}",
    p_read: "poll",
    p_read_from: "3:3:",
    p_read_series: "[]",
    p_read_excluded: "[]",
  };
}

/** Bytes as hexadecimal digits. */
function withBytes(_name: string, value: unknown): unknown {
  const { type, data } = (value ?? {}) as { type?: string; data?: number[] };
  return type === "Buffer" ? Buffer.from(data!).toString("hex") : value;
}

/** Number of the victim's messages that wait, by kind. */
async function waiting(client: pg.Client): Promise<{ readonly nats: number; readonly peer: number }> {
  const { rows } = await client.query(
    `SELECT (SELECT count(*)::int FROM hawser.outbox_undone(NULL, 1000, NULL)) AS nats,
            (SELECT count(*)::int FROM hawser_data.queue AS q WHERE q.payload = convert_to($1, 'UTF8')) AS peer`,
    [forPeers],
  );
  return rows[0];
}
