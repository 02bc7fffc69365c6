/**
 * Row security on Hawser's own tables, as an event trigger of a platform switches it on: rows that it hides count as
 * hidden, never as missing.
 */
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { type PeerWorld, peerWorld, type TestPeer } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";

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
beforeEach(() => world.reset());

const on = (table: string, mode: "ENABLE" | "FORCE") =>
  onServer(
    world.url,
    `ALTER TABLE hawser.${table} ENABLE ROW LEVEL SECURITY`,
    ...(mode === "FORCE" ? [`ALTER TABLE hawser.${table} FORCE ROW LEVEL SECURITY`] : []),
  );
const off = (table: string) =>
  onServer(
    world.url,
    `ALTER TABLE hawser.${table} DISABLE ROW LEVEL SECURITY`,
    `ALTER TABLE hawser.${table} NO FORCE ROW LEVEL SECURITY`,
  );

/** Texts of messages, numbered. */
const texts = (count: number): string[] => Array.from({ length: count }, (_, nth) => `message ${nth}`);

/** Sends to the topic b, whose listener is away, so that all messages are stored. */
async function stored(sender: TestPeer, count: number): Promise<void> {
  for (const text of texts(count)) expect(await sender.send("b", text)).toMatchObject({ outcome: "stored" });
}

for (const [table, mode] of [
  ["conn_messages", "ENABLE"],
  ["conn_messages", "FORCE"],
  ["topic_key", "ENABLE"],
  ["conn_mess_number", "ENABLE"],
  ["conn_mess_number", "FORCE"],
  ["done_messages", "FORCE"],
  ["peers", "FORCE"],
] as const) {
  it(`${mode} on ${table} keeps stored messages until it is off again: none is lost, none is dead-lettered`, async () => {
    await onServer(world.url, "CREATE TABLE effects (payload text)", `GRANT ALL ON effects TO ${login}`);
    const options = {
      databaseUrl,
      transactional: true,
      defaults: { durable: true, retry: { attempts: 2, delayMs: 1 } },
    };
    const record = async ({ client, payload }: { client?: any; payload: Uint8Array }) => {
      await client.query("INSERT INTO effects VALUES ($1)", [Buffer.from(payload).toString()]);
    };
    const listener = await world.started("b-1", options, record);
    const sender = await world.started("a-1", { databaseUrl });
    await sender.send("b", "before");
    await listener.stop();
    await stored(sender, 23);
    await on(table, mode);
    const failed = listener.start().then(
      () => undefined,
      (error: Error) => error,
    );
    const shown = new Set<string>();
    await eventually("an error names the table and the remedy", async () => {
      const start = await Promise.race([failed, Promise.resolve(undefined)]);
      for (const one of listener.statuses.all) if ("message" in one) shown.add(String(one.message));
      if (start !== undefined) shown.add(start.message);
      return [...shown].some((text) => text.includes(`ALTER TABLE hawser.${table} DISABLE ROW LEVEL SECURITY`));
    }).catch((error) => {
      throw new Error(`${error.message}; shown: ${[...shown].join("\n")}`);
    });
    console.log([...shown]);
    await off(table);
    if ((await failed) !== undefined) await listener.start();
    await eventually("all arrive", async () => (await world.query("SELECT FROM effects")).length >= 24);
    const effects = await world.query<{ payload: string }>("SELECT payload FROM effects");
    expect(effects.map(({ payload }) => payload)).toEqual(["before", ...texts(23)]);
    expect(await world.query("SELECT FROM hawser.dead_letters")).toEqual([]);
    expect(listener.statuses.all.filter(({ kind }) => kind === "gap" || kind === "dead_letter")).toEqual([]);
  });
}
