/**
 * Row security on Hawser's own tables, as an event trigger of a platform switches it on: rows that it hides count as
 * hidden, never as missing.
 */
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { tables as natsTables } from "../../generated/ts/rows/nats.js";
import { tables as outboxTables } from "../../generated/ts/rows/outbox.js";
import { tables as peerTables } from "../../generated/ts/rows/peer.js";
import type { HawserError } from "../../src/errors/index.js";
import { enqueueBatch } from "../../src/peer/index.js";
import { type Handler, type PeerWorld, peerWorld } from "../peer/support/world.js";
import { testServerUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";

/** Switches row security off for all tables. */
const unforcedSql = `DO $$ DECLARE one text; BEGIN
  FOR one IN SELECT oid::regclass FROM pg_class WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace) AND (relrowsecurity OR relforcerowsecurity)
  LOOP EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', one); END LOOP;
END $$`;

const login = `test_rows_${randomBytes(4).toString("hex")}`;

beforeAll(() => onServer(testServerUrl(), `CREATE ROLE ${login} LOGIN PASSWORD 'test' IN ROLE hawser_peer`));
afterAll(() => onServer(testServerUrl(), `DROP ROLE ${login}`));

/** The world's database as the login sees it; row security does not apply to superusers. */
function asLogin(world: PeerWorld): string {
  const url = new URL(world.url);
  url.username = login;
  url.password = "test";
  return url.href;
}

const texts = Array.from({ length: 23 }, (_, nth) => `message ${nth}`);

interface Case {
  readonly mode: "ENABLE" | "FORCE";
  readonly table: string;
  /** What the listener does when row security is switched on: it does not start with it, and does not go on with it. */
  readonly when: "starts" | "runs";
}

// Side by side: each waits for seconds until somebody tries again.
it.concurrent.each<Case>([
  { mode: "ENABLE", table: "stored_messages", when: "starts" },
  { mode: "ENABLE", table: "stored_messages", when: "runs" },
  { mode: "FORCE", table: "stored_messages", when: "runs" },
  { mode: "ENABLE", table: "topics", when: "runs" },
  { mode: "ENABLE", table: "cursors", when: "runs" },
  { mode: "FORCE", table: "cursors", when: "runs" },
  { mode: "FORCE", table: "marks", when: "runs" },
  { mode: "FORCE", table: "peers", when: "starts" },
])(
  "$mode on $table while a listener $when loses and dead-letters no stored message, and names the remedy",
  async ({ mode, table, when }) => {
    await using world = await peerWorld({ nats: false });
    await world.query(`
      CREATE TABLE effects (id serial, payload text); GRANT USAGE ON SCHEMA public TO ${login};
      GRANT ALL ON ALL TABLES IN SCHEMA public TO ${login}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO ${login}`);
    const options = {
      databaseUrl: asLogin(world),
      transactional: true,
      defaults: { durable: true, retry: { attempts: 2, delayMs: 1 } },
    };
    const record: Handler = ({ client, payload }) =>
      client.query("INSERT INTO effects (payload) VALUES ($1)", [Buffer.from(payload).toString()]);
    const listener = world.peer("b-1", options);
    await listener.record(record);
    const sender = await world.started("a-1");
    if (when === "starts") {
      await listener.stop();
      for (const text of texts) expect(await sender.send("b", text)).toMatchObject({ outcome: "stored" });
    }

    await world.query(`ALTER TABLE hawser_data.${table} ENABLE ROW LEVEL SECURITY`);
    if (mode === "FORCE") await world.query(`ALTER TABLE hawser_data.${table} FORCE ROW LEVEL SECURITY`);
    const told: string[] = [];
    const tell = ({ message, remedy }: HawserError) => told.push(`${message} ${remedy}`);
    const named = () => {
      const statuses = listener.statuses.all.flatMap((status) => ("message" in status ? String(status.message) : []));
      return [...told, ...statuses].some((text) =>
        text.includes(`ALTER TABLE hawser_data.${table} DISABLE ROW LEVEL SECURITY`),
      );
    };
    if (when === "starts") await listener.record(record).catch(tell);
    // Without FORCE they are stored, by functions of the tables' owner.
    else await enqueueBatch(world, "b", texts).catch(tell);
    await eventually("an error names the table and the remedy", named);

    await world.query(unforcedSql);
    if (when === "starts") await listener.start();
    else if (told.length > 0) await enqueueBatch(world, "b", texts);
    const effects = () => world.query<{ payload: string }>("SELECT payload FROM effects ORDER BY id");
    await eventually("all have arrived", async () => (await effects()).length >= texts.length);
    expect((await effects()).map(({ payload }) => payload).sort()).toEqual([...texts].sort());
    expect(await world.query("SELECT FROM hawser_data.dead_letters")).toEqual([]);
    expect(listener.statuses.all.filter(({ kind }) => kind === "gap")).toEqual([]);
  },
);

it.concurrent("a trigger of a user over a table with row security stops the commits with an error that names its function, until that sets row_security", async () => {
  await using world = await peerWorld({ nats: false });
  await world.query(`
    GRANT USAGE ON SCHEMA public TO PUBLIC; CREATE TABLE audit (text text); ALTER TABLE audit ENABLE ROW LEVEL SECURITY;
    CREATE POLICY everyone ON audit USING (true) WITH CHECK (true); GRANT ALL ON audit TO PUBLIC;
    CREATE FUNCTION public.audit_letter() RETURNS trigger LANGUAGE plpgsql
      AS 'BEGIN INSERT INTO public.audit VALUES (NEW.topic); RETURN NULL; END';
    CREATE TRIGGER audit_letter AFTER INSERT ON hawser_data.dead_letters FOR EACH ROW EXECUTE FUNCTION public.audit_letter()`);
  const listener = await world.started(
    "b-1",
    { databaseUrl: asLogin(world), defaults: { retry: { attempts: 1 } } },
    ({ payload }) => {
      if (Buffer.from(payload).toString() === "bad") throw new Error("bad");
    },
  );
  const sender = await world.started("a-1", { tuning: { ackTimeoutMs: 1_000 } });
  const sends = [sender.send("b", "bad"), sender.send("b", "good")];
  const remedy =
    "a trigger of yours runs in Hawser's transaction: ALTER FUNCTION public.audit_letter() SET row_security = on";
  await eventually("an error names the function", () =>
    listener.statuses.all.some((status) => "message" in status && String(status.message).includes(remedy)),
  );
  await world.query("ALTER FUNCTION public.audit_letter() SET row_security = on");
  await Promise.all(sends);
  await eventually("the letter is there", async () => (await world.query("SELECT FROM audit")).length === 1);
  expect(await world.query("SELECT FROM hawser_data.dead_letters")).toHaveLength(1);
  expect(await world.storedMessages()).toBe(0);
});

it.concurrent("no function of Hawser that names a table depends on the row_security of its caller's session", async () => {
  await using world = await peerWorld();
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
  const others = /^hawser\.gateway_(call|lost)\(/;
  expect(reading.filter(({ name, isFixed }) => !isFixed && !others.test(name)).map(({ name }) => name)).toEqual([]);
});
