/**
 * The two outboxes of migration 2 become one: what waits in them, in the middle of a set, comes once, and their relays do nothing
 * more.
 */
import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import { releasedMigrations } from "../../generated/ts/sql/migrations.js";
import { migrate } from "../../src/store/index.js";
import { natsTurn, peerTurn, takeNats, takePeers, workingRelay } from "../outbox/support/turns.js";
import { testDatabase } from "../support/database.js";

const nats = "SELECT hawser.enqueue_nats('s', ARRAY[convert_to($1, 'UTF8')], NULL, 'k', NULL, true, NULL, $2)";
const peer = "SELECT hawser.enqueue_peer('t', ARRAY[convert_to($1, 'UTF8')], NULL, 'k', NULL, NULL, $2)";
/** As the relays of migration 2 call it. */
const oldTurn = `SELECT id, done_to, convert_from(payload, 'UTF8') AS text
  FROM hawser.run_outbox_turn('old', $1, $2, $3, $4, $5, true, $6, NULL, $2, $3, $4, $7, 1000000, NULL, NULL)`;
const oldHandOver = "SELECT handed FROM hawser.hand_over_enqueued('old', NULL, $1, 1000000, NULL, NULL)";

it("what waited in both is handed on once, and old relays are refused", async () => {
  const database = await testDatabase({ migrated: false });
  onTestFinished(() => database.drop());
  await migrate({ databaseUrl: database.url }, releasedMigrations);
  const connected = async (): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    onTestFinished(() => client.end());
    return client;
  };
  const client = await connected();
  const enqueue = async (on: pg.Client, name: string, deliverAt: string | null = null): Promise<void> => {
    await on.query(nats, [`n-${name}`, deliverAt]);
    await on.query(peer, [`p-${name}`, deliverAt]);
  };
  const { rows: taken } = await client.query("SELECT * FROM hawser.take_outbox('old', NULL)");
  const [{ turn, done_from: from }] = taken;
  await client.query("SELECT hawser.take_peer_outbox('old')");
  // Its ids are among those that are done, and it commits behind the set. Without a key: the others would wait.
  const late = await connected();
  await late.query("BEGIN");
  await late.query(nats.replace("'k'", "NULL"), ["n-late", null]);
  await late.query(peer.replace("'k'", "NULL"), ["p-late", null]);
  for (const name of ["1", "2", "3", "4", "5"]) await enqueue(client, name);
  const next = (by: number) => String(BigInt(turn) + BigInt(by));
  const { rows: read } = await client.query(oldTurn, [next(1), from, null, 0, [], null, 3]);
  expect(read.map(({ text }) => text)).toEqual(["n-1", "n-2", "n-3", null]);
  const { done_to: to } = read.at(-1);
  // The second one is a dead letter, the third one is under way.
  const dead = [{ id: read[1].id, code: "refused", message: "no", attempts: 5 }];
  await client.query(oldTurn, [next(2), from, to, read[0].id, [read[1].id], JSON.stringify(dead), 0]);
  expect((await client.query(oldHandOver, [3])).rows).toEqual([{ handed: 3 }]);
  await late.query("COMMIT");
  await enqueue(client, "6");
  await enqueue(client, "later", new Date(Date.now() + 3_600_000).toISOString());

  await migrate({ databaseUrl: database.url });

  expect(await workingRelay(client, "nats")).not.toBe("old");
  const statusSql =
    "SELECT kind, waiting::integer, later::integer, dead_letters::integer FROM hawser.outbox_status ORDER BY kind";
  const status = (await client.query(statusSql)).rows;
  expect(status).toEqual([
    { kind: "nats", waiting: 5, later: 1, dead_letters: 1 },
    { kind: "peer", waiting: 4, later: 1, dead_letters: 0 },
  ]);
  for (const gone of [
    "SELECT hawser.take_outbox('old', NULL)",
    "SELECT hawser.take_peer_outbox('old')",
    "SELECT hawser.rotate_outbox('old', 0)",
    "SELECT hawser.rotate_peer_outbox('old', 0)",
    oldHandOver.replace("$1", "1"),
  ])
    await expect(client.query(gone), gone).rejects.toMatchObject({ code: "42883" });
  await expect(client.query(oldTurn, [next(3), from, to, read[0].id, [], null, 0])).rejects.toMatchObject({
    code: "42883",
  });

  const { turn: first, position } = await takeNats(client, "new");
  expect(position).toMatchObject({ to, after: read[0].id, skipped: [read[1].id] });
  // What the old relay had begun, and what came since.
  const { to: end, after } = position;
  const page = { kind: "page", role: null, from: position.from, to: end!, after } as const;
  const begun = await natsTurn(client, "new", { turn: first + 1n, position, read: page });
  expect(begun.hasMore).toBe(false);
  const found = await natsTurn(client, "new", { turn: first + 2n, position, read: { kind: "look", from: end! } });
  // A relay leaves out what is skipped.
  expect([...begun.messages, ...found.messages].map(({ text, role }) => [role, text]).toSorted()).toEqual(
    ["n-2", "n-3", "n-4", "n-5", "n-6", "n-late"].map((text) => ["", text]),
  );
  const empty = { from: found.to, to: null, after: "0", series: [], skipped: [] };
  await natsTurn(client, "new", { turn: first + 3n, position: empty, mustSave: true });

  await takePeers(client, "new");
  await client.query("SELECT hawser.enqueue('t', 'p-7', key => 'k')");
  for (let turns = 0; (await peerTurn(client, "new", 1)).has_more; turns++) expect(turns).toBeLessThan(20);
  const { rows: stored } = await client.query(
    "SELECT convert_from(payload, 'UTF8') AS text, headers FROM hawser_data.conn_messages ORDER BY epoch, number",
  );
  const texts = stored.map(({ text }) => text);
  expect(texts.toSorted()).toEqual(["1", "2", "3", "4", "5", "6", "7", "late"].map((name) => `p-${name}`));
  expect(texts.filter((text) => text < "p-7")).toEqual(["p-1", "p-2", "p-3", "p-4", "p-5", "p-6"]);
  // Who enqueued what waited is not known; its key is told once, as that of the others.
  const headersOf = (name: string) => stored.find(({ text }) => text === name).headers;
  expect(headersOf("p-6")).toEqual([
    ["message-origin", "::"],
    ["message-key", "k"],
  ]);
  expect(headersOf("p-late")).toEqual([["message-origin", "::"]]);
  expect(headersOf("p-7")[0][1]).toMatch(/^::.+/);
  expect((await client.query(statusSql)).rows).toMatchObject([{ waiting: 0 }, { waiting: 0 }]);
});
