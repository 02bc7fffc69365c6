/**
 * Fixtures of most tests of the store: a database, stores on it, names, a channel.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { openStore, type Store, type StoreOptions } from "../../../src/jobs-and-peers/peer-store/store.js";
import type { Lease, Listener, Sender } from "../../../src/jobs-and-peers/store/index.js";
import { type TestDatabase, testDatabase } from "../../support/database.js";
import { eventually } from "../../support/eventually.js";

/** A database and what is open on it. Disposing ends everything and drops it. */
export interface World extends AsyncDisposable {
  readonly url: string;
  readonly store: Store;
  /** A client beside the store, as an operator has one. */
  readonly operator: pg.Client;
  /** Another client, ended with the world. */
  connect(): Promise<pg.Client>;
  /** Takes a name on the store. */
  take(name: string): Promise<Lease>;
  /** The key of a channel. */
  channelOf(sender: Sender, listenerName: string): Promise<number>;
  /** Resolves once the session `pid` waits for a lock. */
  waitsForLock(pid: number): Promise<void>;
}

/** The listeners of a topic, as a sender finds them that has met none. */
export async function listenersOf(store: Store, topic: string): Promise<readonly Listener[]> {
  return (await store.listenersAndRoutes({ name: "reader", sourceTopic: "reader" }, topic)).listeners;
}

/** Makes a world. */
export async function world(options: StoreOptions & { readonly migrated?: boolean } = {}): Promise<World> {
  const database: TestDatabase = await testDatabase({ migrated: options.migrated ?? true });
  const clients: pg.Client[] = [];
  const connect = async (): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: database.url });
    client.on("error", () => undefined);
    await client.connect();
    clients.push(client);
    return client;
  };
  const store = await openStore({ databaseUrl: database.url, ...options });
  const operator = await connect();
  return {
    url: database.url,
    store,
    operator,
    connect,
    take: (name) => store.takeName(name, { waitMs: 0 }),
    channelOf: store.openChannel,
    waitsForLock: (pid) =>
      eventually(`session ${pid} waits for a lock`, async () => {
        const { rows } = await operator.query(
          "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'",
          [pid],
        );
        return rows.length === 1;
      }),
    [Symbol.asyncDispose]: async () => {
      await store.close();
      for (const client of clients) await client.end();
      await database.drop();
    },
  };
}

/** Plain messages for topic id 1. */
export function textMessages(...texts: string[]): { topicId: number; payload: Uint8Array }[] {
  return texts.map((text) => ({ topicId: 1, payload: Buffer.from(text) }));
}

/** Ends the database session that has a name, as an administrator would. */
export async function terminateHolder(
  operator: { query(text: string, values: unknown[]): Promise<unknown> },
  name: string,
): Promise<void> {
  await operator.query("SELECT pg_terminate_backend(pid) FROM hawser_data.owners WHERE what = 'peer:' || $1", [name]);
}

/** Takes a name for the client's session, if it is free: the first step alone. Returns the new epoch. */
export async function own(client: pg.Client, name: string): Promise<string | undefined> {
  const life = randomBytes(8).readBigInt64BE();
  const { rows } = await client.query("SELECT taken, epoch FROM hawser.own_name($1, 'twin', $2)", [name, life]);
  return rows[0].taken ? rows[0].epoch : undefined;
}

/** Takes a name for the client's session, whoever has it. Returns the new epoch. */
export async function takeOver(client: pg.Client, name: string): Promise<string> {
  let epoch: string | undefined;
  // Its holder may just be coming back after the loss of its session.
  await eventually(`"${name}" is taken over`, async () => {
    await client.query("SELECT FROM hawser.end_ownership($1, true)", [name]);
    epoch = await own(client, name);
    return epoch !== undefined;
  });
  const { rows } = await client.query("SELECT held FROM hawser.raise_fence($1, $2)", [name, epoch]);
  if (rows[0].held !== true) throw new Error(`another one has taken "${name}" over`);
  return epoch!;
}
