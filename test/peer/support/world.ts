/**
 * What the tests of peers begin with: a database of their own, an operator's look into it, and peers that record.
 */
import pg from "pg";
import { type Handler, type Message, Peer, type PeerOptions, type PeerStatus } from "../../../src/peer/index.js";
import { type TestDatabase, type TestDatabaseOptions, testDatabase } from "../../support/database.js";
import { eventually } from "../../support/eventually.js";
import { Log } from "./log.js";

/**
 * Whether a message is delivered or stored, sent or dropped, is not to depend on how slow the machine is: by default a
 * sender waits longer for its listener than one would elsewhere.
 */
const patient: Partial<PeerOptions> = { ackTimeoutMs: 20_000, connectWaitMs: 20_000 };

/** A message as a handler saw it. */
export interface Received {
  readonly to: string;
  readonly from: string | undefined;
  readonly sender: string | undefined;
  readonly enqueuedBy: string | undefined;
  readonly text: string;
  readonly headers: Message["headers"];
  readonly attempt: number;
  readonly delivery: Message["delivery"];
}

/** A peer that remembers its messages and its statuses. */
export class TestPeer extends Peer {
  readonly received = new Log<Received>();
  readonly statuses = new Log<PeerStatus>();

  constructor(options: PeerOptions) {
    super(options);
    this.on("status", (status) => this.statuses.push(status));
  }

  /** Runs with a handler that records, and then does what `handler` does. */
  async record(handler?: Handler): Promise<void> {
    await this.run((message) => {
      this.received.push(received(message));
      return handler?.(message);
    });
  }

  /** The texts received so far. */
  get texts(): string[] {
    return this.received.all.map(({ text }) => text);
  }

  /** Resolves with a status of that kind, past or future. */
  saw<Kind extends PeerStatus["kind"]>(
    kind: Kind,
    wanted: (status: Extract<PeerStatus, { kind: Kind }>) => boolean = () => true,
    from = 0,
  ): Promise<Extract<PeerStatus, { kind: Kind }>> {
    return this.statuses.find(
      (status): status is Extract<PeerStatus, { kind: Kind }> =>
        status.kind === kind && wanted(status as Extract<PeerStatus, { kind: Kind }>),
      from,
    );
  }
}

/** What a handler sees of a message, to be kept. */
export function received(message: Message): Received {
  const { to, from, sender, enqueuedBy, headers, attempt, delivery } = message;
  return { to, from, sender, enqueuedBy, text: Buffer.from(message.payload).toString(), headers, attempt, delivery };
}

/** A database and the peers on it. Disposing stops them and drops it. */
export class PeerWorld implements AsyncDisposable {
  #database!: TestDatabase;
  #operator!: pg.Client;
  #secrets: { id: number; secret: Buffer }[] = [];
  readonly #peers: TestPeer[] = [];

  /** Makes the database. */
  async open(options: TestDatabaseOptions): Promise<void> {
    this.#database = await testDatabase(options);
    this.#operator = new pg.Client({ connectionString: this.url });
    this.#operator.on("error", () => undefined);
    this.#operator.setTypeParser(pg.types.builtins.INT8, Number);
    await this.#operator.connect();
    if (options.migrated ?? true) this.#secrets = await this.query("SELECT id, secret FROM hawser.mesh_secret");
  }

  get url(): string {
    return this.#database.url;
  }

  /** A peer, not running yet. Its topic is its name up to the first hyphen. */
  peer(name: string, options: Partial<PeerOptions> = {}): TestPeer {
    const topic = name.split("-")[0] as string;
    const own = { name, topic, listen: "127.0.0.1:0", databaseUrl: this.url };
    const made = new TestPeer({ ...own, ...patient, ...options });
    this.#peers.push(made);
    return made;
  }

  /** The same, running with a handler that records. */
  async started(name: string, options?: Partial<PeerOptions>, handler?: Handler): Promise<TestPeer> {
    const made = this.peer(name, options);
    await made.record(handler);
    return made;
  }

  /** Several such peers, started at once. */
  running<const Names extends readonly string[]>(...names: Names): Promise<{ [K in keyof Names]: TestPeer }> {
    return Promise.all(names.map((name) => this.started(name))) as Promise<{ [K in keyof Names]: TestPeer }>;
  }

  /** Runs a statement as superuser, with numbers for bigint columns. */
  async query<Row extends object>(text: string, values?: unknown[]): Promise<Row[]> {
    return (await this.#operator.query<Row>(text, values)).rows;
  }

  /** Enters a listener into the directory, as an operator would. By default one that is nowhere. */
  async list(topic: string, name: string, { addr = "127.0.0.1:1", durable = false } = {}): Promise<void> {
    const insert = "INSERT INTO hawser.topic_addr (topic, addr, client_name, durable) VALUES ($1, $2, $3, $4)";
    await this.query(insert, [topic, addr, name, durable]);
  }

  /** A sender `a-1`, and `b-1`, which has handled a message of it with this text and stopped. */
  async left(text: string): Promise<[sender: TestPeer, listener: TestPeer]> {
    const [a, b] = await this.running("a-1", "b-1");
    await a.sendTo("b", text);
    await b.stop();
    return [a, b];
  }

  /** The number of stored messages. */
  async storedMessages(): Promise<number> {
    const [row] = await this.query<{ count: number }>("SELECT count(*) FROM hawser.conn_messages");
    return row?.count ?? 0;
  }

  /** The dead letters, in order, once there are that many. */
  async deadLetters(count: number): Promise<Record<string, unknown>[]> {
    let letters: Record<string, unknown>[] = [];
    await eventually(`there are ${count} dead letters`, async () => {
      letters = await this.query("SELECT * FROM hawser.dead_letters ORDER BY id");
      return letters.length >= count;
    });
    return letters;
  }

  /** Stops the peers and leaves the database as it was. */
  async reset(): Promise<void> {
    await this.#stopPeers();
    await this.query(emptySql);
    for (const { id, secret } of this.#secrets) {
      await this.query("INSERT INTO hawser.mesh_secret (id, secret) VALUES ($1, $2)", [id, secret]);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stopPeers();
    await this.#operator.end();
    await this.#database.drop();
  }

  async #stopPeers(): Promise<void> {
    await Promise.all(this.#peers.splice(0).map((each) => each.stop({ deadlineMs: 2_000 })));
  }
}

/** Ends all other sessions, empties the tables, and removes what tests have made. */
const emptySql = `
  SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';
  ${["topic_addr", "sender_listener", "conn_key_map", "topic_key", "conn_sender", "conn_mess_number"].map(deleteSql).join("")}
  ${["conn_messages", "done_messages", "parked_messages"].map(deleteSql).join("")}
  ${["peers", "dead_letters", "mesh_secret", "outbox", "peer_waiting_topics"].map(deleteSql).join("")}
  DROP SCHEMA public CASCADE;
  CREATE SCHEMA public`;

function deleteSql(table: string): string {
  return `DELETE FROM hawser.${table};`;
}

/** Makes a world. */
export async function peerWorld(options: TestDatabaseOptions = {}): Promise<PeerWorld> {
  const world = new PeerWorld();
  await world.open(options);
  return world;
}
