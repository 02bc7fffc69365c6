/**
 * Row security on Hawser's own tables, as an event trigger of a platform switches it on: rows that it hides count as
 * hidden, never as missing.
 */
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { tables as natsTables } from "../../generated/ts/rows/nats.js";
import { tables as outboxTables } from "../../generated/ts/rows/outbox.js";
import { tables as peerTables } from "../../generated/ts/rows/peer.js";
import { type Handler, type PeerWorld, peerWorld } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";

/** Switches row security off for all tables. */
const unforcedSql = `DO $$ DECLARE one text; BEGIN
  FOR one IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'hawser'::regnamespace AND (relrowsecurity OR relforcerowsecurity)
  LOOP EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', one); END LOOP;
END $$`;

const login = `test_rows_${randomBytes(4).toString("hex")}`;
let world: PeerWorld;
let databaseUrl: string;

beforeAll(async () => {
  world = await peerWorld();
  await onServer(world.url, `CREATE ROLE ${login} LOGIN PASSWORD 'test' IN ROLE hawser_peer`);
  const url = new URL(world.url);
  url.username = login;
  url.password = "test";
  databaseUrl = url.href;
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
  await onServer(process.env["HAWSER_TEST_DATABASE_URL"]!, `DROP ROLE ${login}`);
});
beforeEach(async () => {
  await world.reset();
  await world.query(unforcedSql);
});

/** Switches row security on for a table, or on for its owner too. */
async function switchOn(table: string, mode: Mode): Promise<void> {
  await world.query(`ALTER TABLE hawser.${table} ENABLE ROW LEVEL SECURITY`);
  if (mode === "FORCE") await world.query(`ALTER TABLE hawser.${table} FORCE ROW LEVEL SECURITY`);
}

type Mode = "ENABLE" | "FORCE";

const texts = Array.from({ length: 23 }, (_, nth) => `message ${nth}`);

it.each<[Mode, table: string]>([
  ["ENABLE", "conn_messages"],
  ["FORCE", "conn_messages"],
  ["ENABLE", "topic_key"],
  ["ENABLE", "conn_mess_number"],
  ["FORCE", "conn_mess_number"],
  ["FORCE", "done_messages"],
  ["FORCE", "peers"],
])("%s on %s loses and dead-letters none of the stored messages, and names the remedy", async (mode, table) => {
  await onServer(
    world.url,
    "CREATE TABLE effects (id serial, payload text)",
    `GRANT USAGE ON SCHEMA public TO ${login}`,
  );
  await onServer(
    world.url,
    `GRANT ALL ON ALL TABLES IN SCHEMA public TO ${login}`,
    `GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO ${login}`,
  );
  const options = { databaseUrl, transactional: true, defaults: { durable: true, retry: { attempts: 2, delayMs: 1 } } };
  const record: Handler = ({ client, payload }) =>
    client.query("INSERT INTO effects (payload) VALUES ($1)", [Buffer.from(payload).toString()]);
  const before = await world.started("b-1", options, record);
  await before.stop();
  // As superuser, to whom row security does not apply: not of the same pool, so that the listener has to read the topic's key.
  const sender = await world.started("a-1");
  for (const text of texts) expect(await sender.send("b", text)).toMatchObject({ outcome: "stored" });

  await switchOn(table, mode);
  const listener = world.peer("b-1", options);
  const told: string[] = [];
  const ends = listener.record(record).catch((error: Error) => told.push(error.message));
  await eventually(
    "an error names the table and the remedy",
    () => {
      const statuses = listener.statuses.all.flatMap((status) => ("message" in status ? String(status.message) : []));
      return [...told, ...statuses].some((text) =>
        text.endsWith(`ALTER TABLE hawser.${table} DISABLE ROW LEVEL SECURITY`),
      );
    },
    20_000,
  );
  await ends;

  await world.query(`ALTER TABLE hawser.${table} DISABLE ROW LEVEL SECURITY`);
  if (told.length > 0) await listener.start();
  const effects = () => world.query<{ payload: string }>("SELECT payload FROM effects ORDER BY id");
  await eventually("all have arrived", async () => (await effects()).length >= texts.length, 20_000);
  await sender.send("b", "last");
  expect((await effects()).map(({ payload }) => payload)).toEqual([...texts, "last"]);
  expect(await world.query("SELECT FROM hawser.dead_letters")).toEqual([]);
  expect(listener.statuses.all.filter(({ kind }) => kind === "gap")).toEqual([]);
});

it("no function of Hawser that names a table depends on the row_security of its caller's session", async () => {
  const names = [peerTables, outboxTables, natsTables].flatMap((each) => Object.values(each));
  const functions = await world.query<{ name: string; source: string; isFixed: boolean }>(
    `SELECT oid::regprocedure::text AS name, prosrc AS source, 'row_security=off' = ANY (coalesce(proconfig, '{}')) AS "isFixed"
       FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace OR pronamespace = 'public'::regnamespace AND proname ~ 'nats'`,
  );
  const reading = functions.filter(({ source }) =>
    names.some((name) => new RegExp(`${name.replace(".", "\\.")}\\b`).test(source)),
  );
  expect(reading.length).toBeGreaterThan(50);
  // Called within a function that has fixed it.
  const internal = ["hawser.gateway_call(text)", "hawser.gateway_lost(text,integer)"];
  expect(reading.filter(({ name, isFixed }) => !isFixed && !internal.includes(name)).map(({ name }) => name)).toEqual(
    [],
  );
});
