/**
 * Four roles enqueue at the same rate for a topic of one peer, with the same keys. One of them also enqueues tens of thousands of
 * messages for that topic, with keys of the others, for each listener of its own invention, and for thousands of topics that
 * nobody serves, and a login without rights holds the advisory locks by which workers say that they wait. What is counted is how
 * many messages of the hostile role are handled between the call that enqueues a message of another role and its handler: no
 * clock, so that it is the same on a slow machine. HAWSER_ROLES_SECONDS says how long they enqueue.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { expect, it } from "vitest";
import { Peer } from "../../src/peer/index.js";
import { eventually } from "../support/eventually.js";
import { ownPostgres } from "./support/own-postgres.js";
import { prepareForSql } from "./support/sql-database.js";

const seconds = Number(process.env["HAWSER_ROLES_SECONDS"] ?? 10);
const perSecond = 50;
const honest = ["ann", "bob", "cyd"] as const;
const hostile = "mal";
/** Messages of a burst, of which each kind has its own. */
const burst = 20_000;
/** Most hostile messages before half of the others. A worker takes some hundreds ahead; in one line for all roles it would be bursts. */
const limit = burst / 4;

it("a role that enqueues as much as it can for a topic delays only itself, and its keys hold up no other role", {
  timeout: 300_000 + seconds * 1_000,
}, async () => {
  await using postgres = await ownPostgres();
  await prepareForSql(postgres.url);
  const admin = new pg.Client({ connectionString: postgres.url });
  await admin.connect();
  await admin.query("CREATE ROLE stranger LOGIN PASSWORD 'stranger'");
  for (const role of [...honest, hostile]) {
    await admin.query(`CREATE ROLE ${role} LOGIN PASSWORD '${role}' IN ROLE hawser_peer`);
  }
  const stranger = new pg.Client({ connectionString: roleUrl(postgres.url, "stranger") });
  await stranger.connect();
  for (let bucket = 0; bucket < 32; bucket++) {
    await stranger.query("SELECT pg_advisory_lock(hashtextextended($1, 0))", [`hawser:queue:${bucket}`]);
  }
  /** Messages of others that were not handled yet, each with how many of the hostile role had been when it was enqueued. */
  const sent = new Map<string, number>();
  let ofHostile = 0;
  const between: number[] = [];
  await using peer = new Peer({ name: "worker-1", topic: "work", databaseUrl: postgres.url });
  await peer.handle("work", { transactional: true }, ({ payload }) => {
    const text = payload.toString();
    const before = sent.get(text);
    if (before === undefined) {
      ofHostile += 1;
      return;
    }
    sent.delete(text);
    between.push(ofHostile - before);
  });
  await peer.start();
  const ending = new AbortController();
  const attacking = attack(postgres.url, ending.signal);
  const writing = [...honest, hostile].map((role) => {
    return writer(postgres.url, role, ending.signal, (text) => {
      if (role !== hostile) sent.set(text, ofHostile);
    });
  });
  try {
    await delay(seconds * 1_000);
    ending.abort();
    await Promise.all([attacking, ...writing]);
    await eventually("all messages of the others are handled", () => sent.size === 0, 60_000);
    const { rows } = await admin.query<{ left: number }>(
      "SELECT count(*)::integer AS left FROM hawser_data.queue WHERE topic = 'work'",
    );
    const [half, most] = [0.5, 1].map(
      (part) => between.toSorted((one, other) => one - other)[Math.ceil(between.length * part) - 1]!,
    );
    console.log(
      `${between.length} messages beside a role that attacks; between one and its handler ${half} of its ${ofHostile} were handled in the median, ${most} at most; ${rows[0]!.left} wait`,
    );
    expect(half).toBeLessThan(limit);
    // Otherwise the peer was faster than the attack, and nothing was shown.
    expect(rows[0]!.left).toBeGreaterThan(burst / 4);
  } finally {
    await stranger.end();
    await admin.end();
  }
});

/** Enqueues messages one after another at `perSecond`. */
async function writer(url: string, role: string, signal: AbortSignal, onSend: (text: string) => void): Promise<void> {
  const client = new pg.Client({ connectionString: roleUrl(url, role) });
  await client.connect();
  const startedAt = performance.now();
  for (let nth = 0; !signal.aborted; nth += 1) {
    await delay(Math.max(0, startedAt + (nth * 1_000) / perSecond - performance.now()));
    const text = `${role} ${nth}`;
    onSend(text);
    await client.query("SELECT hawser.enqueue('work', $1::text, key => $2)", [text, `k${nth % 10}`]);
  }
  await client.end();
}

/** Enqueues one burst after another as the hostile role. */
async function attack(url: string, signal: AbortSignal): Promise<void> {
  const client = new pg.Client({ connectionString: roleUrl(url, hostile) });
  await client.connect();
  for (let nth = 0; !signal.aborted; nth += 1) {
    await client.query(
      "SELECT hawser.enqueue('work', 'x', key => 'k' || n % 10) FROM generate_series(1, $1::integer) AS n",
      [burst],
    );
    await client.query("SELECT hawser.enqueue('work', 'x') FROM generate_series(1, $1::integer) AS n", [burst]);
    await client.query(
      "SELECT hawser.enqueue('topic-' || $2::text || '-' || n, 'x') FROM generate_series(1, $1::integer / 4) AS n",
      [burst, nth],
    );
    await delay(500);
  }
  await client.end();
}

function roleUrl(url: string, role: string): string {
  const own = new URL(url);
  own.username = role;
  own.password = role;
  return own.href;
}
