/**
 * Row security, plain and FORCE, switched on for each table of Hawser in turn, while messages are sent, stored, enqueued and
 * handled in transactions. Until it is off again each message arrives all the same, or an error names the table and the
 * remedy; in the end each has had its effect once.
 */

import { inspect } from "node:util";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { HawserError } from "../../src/foundation/errors/index.js";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import { serve } from "../../src/nats/serve/index.js";
import { login } from "../installation/support/logins.js";
import { peerWorld } from "../peer/support/world.js";
import { schemaOwner } from "../store/support/schema-owner.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { allTables, tableNamed } from "../support/tables.js";
import { patienceMs } from "./support/kills.js";
import { sqlDatabase } from "./support/sql-database.js";

/** All tables and partitions of a database. */
async function tablesOf(databaseUrl: string): Promise<string[]> {
  const found = await rowsOf(
    databaseUrl,
    "SELECT relname FROM pg_class WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND relkind IN ('r', 'p') ORDER BY oid",
  );
  const names = found.map(({ relname }) => `${relname}`);
  expect(names).toEqual(expect.arrayContaining(allTables.map((name) => name.split(".")[1])));
  return names;
}

const modes = ["ENABLE", "FORCE"] as const;
const messagesEach = 16;

it("row security on any table of Hawser stops messages with an error that names it, and loses and repeats none", {
  timeout: patienceMs + 20 * 60_000,
}, async () => {
  await using world = await peerWorld();
  await using user = await login(world.url, "IN ROLE hawser_peer");
  const owner = await schemaOwner(world.url);
  // Row security applies to neither.
  const [powers] = await world.query("SELECT rolsuper OR rolbypassrls AS powerful FROM pg_roles WHERE rolname = $1", [
    owner,
  ]);
  expect(powers).toEqual({ powerful: false });
  await world.query("CREATE TABLE effects (id serial, text text)");
  await world.query(`GRANT ALL ON effects, effects_id_seq TO ${user.role}`);

  const named = new Set<string>();
  const lines: string[] = [];
  const tell = (text: unknown): void => {
    const message = String(text);
    lines.push(message);
    // A start refuses forced row security, and does not read the table of migrations unless it is a plain one.
    for (const [, table] of message.matchAll(
      /(?:ALTER TABLE hawser\w*_data\.(?=\w+ DISABLE ROW LEVEL SECURITY)|the table hawser\w*_data\.(?=\w+: it has row security)|the relation hawser\w*_data\.(?=.*without row security))(\w+)/g,
    ))
      named.add(table!);
  };
  const logger = {
    ...silentLogger,
    // A count of repetitions may come when row security is on for another table.
    warn: (details: object, message: string) => {
      if (!("times" in details)) tell(`${message} ${inspect(details)}`);
    },
  };
  const options = { databaseUrl: user.url, logger, defaults: { durable: true, retry: { attempts: 2, delayMs: 1 } } };
  const shown = new Map<object, number>();
  const handle = async ({ client, payload }: { client?: pg.ClientBase; payload: Uint8Array }): Promise<void> => {
    await client!.query("INSERT INTO effects (text) VALUES ($1)", [Buffer.from(payload).toString()]);
  };
  const handler = handle as (message: unknown) => Promise<void>;
  const receiving = { ...options, transactional: true };
  const inGroup = { ...receiving, defaults: { ...options.defaults, group: true } };
  const peers = [
    await world.started("one-1", receiving, handler),
    await world.started("group-1", inGroup, handler),
    await world.started("group-2", inGroup, handler),
    await world.started("sender-1", { ...options, sendTimeoutMs: 120_000 }),
  ];
  const [one, , , sender] = peers as [(typeof peers)[0], (typeof peers)[0], (typeof peers)[0], (typeof peers)[0]];
  const session = new pg.Client(user.url);
  await session.connect();

  /** Reads the statuses that are new. */
  const readStatuses = (): void => {
    for (const peer of peers) {
      const { all } = peer.statuses;
      for (const status of all.slice(shown.get(peer) ?? 0)) if ("message" in status) tell(status.message);
      shown.set(peer, all.length);
    }
  };
  /** Texts that have to arrive, those that must not, and those of sends whose outcome is unknown. */
  const [promised, refused, unknown] = [new Set<string>(), new Set<string>(), new Set<string>()];
  let lastText = 0;
  const effects = async (): Promise<string[]> =>
    (await world.query<{ text: string }>("SELECT text FROM effects ORDER BY id")).map(({ text }) => text);
  /** The number of promised messages without an effect. */
  const missing = async (): Promise<number> => {
    const found = new Set(await effects());
    return [...promised].filter((text) => !found.has(text)).length;
  };

  const tables = await tablesOf(world.url);
  for (const table of tables) {
    for (const mode of modes) {
      named.clear();
      lines.length = 0;
      // Starts again while row security is on.
      await one.stop();
      await world.query(`ALTER TABLE ${tableNamed(table)} ENABLE ROW LEVEL SECURITY`);
      if (mode === "FORCE") await world.query(`ALTER TABLE ${tableNamed(table)} FORCE ROW LEVEL SECURITY`);
      const sends: Promise<unknown>[] = [];
      for (let nth = 0; nth < messagesEach; nth += 1) {
        const [text, topic] = [`${++lastText}`, nth % 4 < 2 ? "one" : "group"];
        promised.add(text);
        const sent =
          nth % 2 === 0 ? sender.send(topic, text) : session.query("SELECT hawser.enqueue($1, $2)", [topic, text]);
        const settled = sent.then(
          () => undefined,
          (error: HawserError | pg.DatabaseError) => {
            promised.delete(text);
            ("outcome" in error && error.outcome === "unknown" ? unknown : refused).add(text);
            // Postgres itself names table and remedy where a user calls a function.
            const said = error instanceof HawserError ? error.message : `${error.message}: ${error.hint}`;
            expect(said).toMatch(new RegExp(`"${table}".*ROW LEVEL SECURITY`));
            named.add(table);
          },
        );
        sends.push(settled);
        if (nth % 2 === 1) await settled;
      }
      let startFailed = false;
      const starting = one.start().catch((error: Error) => {
        startFailed = true;
        tell(error.message);
      });
      const what = `${mode} on ${table}`;
      await eventually(`all arrive, or an error names the table: ${what}`, async () => {
        readStatuses();
        return named.has(table) || (await missing()) === 0;
      }).catch((error) => {
        throw new Error(`${error.message} ${lines.slice(-20).join("\n")}`);
      });
      const wasNamed = named.has(table);
      await world.query(`ALTER TABLE ${tableNamed(table)} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY`);
      await starting;
      if (startFailed) await one.start();
      await Promise.all(sends);
      await eventually(`all have arrived: ${what}`, async () => (await missing()) === 0).catch(async (error) => {
        throw new Error(`${error.message} ${await missing()} of ${promised.size} missing: ${lines.join("\n")}`);
      });
      readStatuses();
      expect(
        [...named].filter((name) => name !== table),
        what,
      ).toEqual([]);
      console.log(`${what}: ${wasNamed ? "refused" : "not needed"}${startFailed ? ", start too" : ""}`);
    }
  }
  await session.end();
  const arrived = await effects();
  const sorted = (texts: Iterable<string>) => [...texts].map(Number).sort((one, other) => one - other);
  expect(sorted(arrived.filter((text) => !unknown.has(text)))).toEqual(sorted(promised));
  expect(new Set(arrived).size).toBe(arrived.length);
  expect(lastText).toBeGreaterThanOrEqual(1_000);
  console.log(`${promised.size} promised, ${refused.size} refused, ${unknown.size} unknown`);
  expect(await world.query("SELECT FROM hawser_data.dead_letters")).toEqual([]);
  expect(
    peers.flatMap((peer) => peer.statuses.all.filter(({ kind }) => kind === "gap" || kind === "name_lost")),
  ).toEqual([]);
});

it("row security on any table stops the relay for NATS and what reads a stream into a table, and loses and repeats none", {
  timeout: patienceMs + 20 * 60_000,
}, async () => {
  await using nats = await startNatsServer({ jetStream: true });
  await using database = await sqlDatabase(nats.url);
  await using user = await login(database.url, "IN ROLE hawser_bridge, hawser_nats");
  const watcher = await connect({ servers: nats.url });
  await (await jetstreamManager(watcher)).streams.add({ name: "IN", subjects: ["in.*"] });
  await watcher.close();
  await onServer(
    database.url,
    "CREATE TABLE landed (id serial, text text)",
    `CREATE FUNCTION land(payload bytea) RETURNS void LANGUAGE sql SECURITY DEFINER
       AS $$INSERT INTO public.landed (text) SELECT convert_from(payload, 'UTF8')$$`,
    "SELECT nats_subscribe_stream('IN', 'land', 'landing')",
  );
  const lines: string[] = [];
  const write = (details: object, message: string): void => {
    if (!("times" in details)) lines.push(`${message} ${inspect(details)}`);
  };
  const logger = { debug: () => undefined, info: write, warn: write, error: write };
  const server = await serve({ databaseUrl: user.url, listen: "127.0.0.1:0", logger });
  const session = new pg.Client(user.url);
  await session.connect();
  const promised = new Set<string>();
  let lastText = 0;
  const landed = async (): Promise<string[]> =>
    (await rowsOf(database.url, "SELECT text FROM landed ORDER BY id")).map(({ text }) => `${text}`);
  const missing = async (): Promise<number> => {
    const found = new Set(await landed());
    return [...promised].filter((text) => !found.has(text)).length;
  };
  try {
    await session.query("SELECT hawser.enqueue('in.one', 'first', stream => true)");
    promised.add("first");
    await eventually("the first has landed", async () => (await missing()) === 0);
    for (const table of await tablesOf(database.url)) {
      for (const mode of modes) {
        const what = `${mode} on ${table}`;
        lines.length = 0;
        let isNamed = false;
        await onServer(database.url, `ALTER TABLE ${tableNamed(table)} ENABLE ROW LEVEL SECURITY`);
        if (mode === "FORCE") await onServer(database.url, `ALTER TABLE ${tableNamed(table)} FORCE ROW LEVEL SECURITY`);
        for (let nth = 0; nth < messagesEach; nth += 1) {
          const text = `${++lastText}`;
          await session.query("SELECT hawser.enqueue('in.one', $1, stream => true)", [text]).then(
            () => promised.add(text),
            (error: pg.DatabaseError) => {
              expect(`${error.message}: ${error.hint}`).toMatch(new RegExp(`"${table}".*ROW LEVEL SECURITY`));
              isNamed = true;
            },
          );
        }
        const remedy = `ALTER TABLE ${tableNamed(table)} DISABLE ROW LEVEL SECURITY`;
        const told = () => lines.some((line) => line.includes(remedy));
        await eventually(
          `all land, or the log names the table: ${what}`,
          async () => told() || (await missing()) === 0,
        ).catch((error) => {
          throw new Error(`${error.message} ${lines.slice(-20).join("\n")}`);
        });
        console.log(`${what}: ${told() || isNamed ? "refused" : "not needed"}`);
        await onServer(
          database.url,
          `ALTER TABLE ${tableNamed(table)} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY`,
        );
        await eventually(`all have landed: ${what}`, async () => (await missing()) === 0).catch((error) => {
          throw new Error(`${error.message} ${lines.slice(-20).join("\n")}`);
        });
      }
    }
    const found = await landed();
    expect(lastText).toBeGreaterThanOrEqual(1_000);
    expect(found.toSorted()).toEqual([...promised].toSorted());
    expect(await rowsOf(database.url, "SELECT FROM hawser_data.dead_letters")).toEqual([]);
  } finally {
    await session.end();
    await server.stop();
  }
});
