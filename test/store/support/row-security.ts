/** Row security on Hawser's own tables beside a listener, whose login it applies to. */

import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect } from "vitest";
import type { HawserError } from "../../../src/foundation/errors/index.js";
import { enqueueBatch } from "../../../src/jobs-and-peers/peer/index.js";
import { type Handler, type PeerWorld, peerWorld } from "../../peer/support/world.js";
import { testServerUrl } from "../../support/database.js";
import { eventually } from "../../support/eventually.js";
import { onServer } from "../../support/on-server.js";
import { tableNamed } from "../../support/tables.js";

/** Switches row security off for all tables. */
const unforcedSql = `DO $$ DECLARE one text; BEGIN
  FOR one IN SELECT oid::regclass FROM pg_class WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND (relrowsecurity OR relforcerowsecurity)
  LOOP EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', one); END LOOP;
END $$`;

const login = `test_rows_${randomBytes(4).toString("hex")}`;

/** Makes the login for the tests of a file. */
export function withLogin(): void {
  beforeAll(() => onServer(testServerUrl(), `CREATE ROLE ${login} LOGIN PASSWORD 'test' IN ROLE hawser_peer`));
  afterAll(() => onServer(testServerUrl(), `DROP ROLE ${login}`));
}

/** The world's database as the login sees it; row security does not apply to superusers. */
export function asLogin(world: PeerWorld): string {
  const url = new URL(world.url);
  url.username = login;
  url.password = "test";
  return url.href;
}

const texts = Array.from({ length: 23 }, (_, nth) => `message ${nth}`);

/** Row security and a listener. */
export interface Case {
  readonly mode: "ENABLE" | "FORCE";
  readonly table: string;
  /** What the listener does when row security is switched on: it does not start with it, and does not go on with it. */
  readonly when: "starts" | "runs";
}

/** Row security on this table loses and dead-letters no message, and an error names the remedy. */
export async function expectNothingLost({ mode, table, when }: Case): Promise<void> {
  await using world = await peerWorld({ nats: false, keepsConnections: true });
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

  await world.query(`ALTER TABLE ${tableNamed(table)} ENABLE ROW LEVEL SECURITY`);
  if (mode === "FORCE") await world.query(`ALTER TABLE ${tableNamed(table)} FORCE ROW LEVEL SECURITY`);
  const told: string[] = [];
  const tell = ({ message, remedy }: HawserError) => told.push(`${message} ${remedy}`);
  const named = () => {
    const statuses = listener.statuses.all.flatMap((status) => ("message" in status ? String(status.message) : []));
    return [...told, ...statuses].some((text) =>
      text.includes(`ALTER TABLE ${tableNamed(table)} DISABLE ROW LEVEL SECURITY`),
    );
  };
  if (when === "starts") await listener.record(record).catch(tell);
  else if (table === "queue") await enqueueBatch(world, "b", texts).catch(tell);
  else for (const text of texts) sender.send("b", text).catch(tell);
  await eventually("an error names the table and the remedy", named);

  await world.query(unforcedSql);
  if (when === "starts") await listener.start();
  else if (table === "queue" && told.length > 0) await enqueueBatch(world, "b", texts);
  const effects = () => world.query<{ payload: string }>("SELECT payload FROM effects ORDER BY id");
  await eventually("all have arrived", async () => (await effects()).length >= texts.length);
  expect((await effects()).map(({ payload }) => payload).sort()).toEqual([...texts].sort());
  expect(await world.query("SELECT FROM hawser_data.dead_letters")).toEqual([]);
  expect(listener.statuses.all.filter(({ kind }) => kind === "gap")).toEqual([]);
}
