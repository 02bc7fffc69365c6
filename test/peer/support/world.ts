/**
 * Fixtures of the tests of peers: a database of their own, an operator's session with it, and peers that record.
 */
import pg from "pg";
import { tables as outboxTables } from "../../../generated/ts/rows/outbox.js";
import { tables as peerTables } from "../../../generated/ts/rows/peer.js";
import { tables as queueTables } from "../../../generated/ts/rows/queue.js";
import { peerSettingsDefaults } from "../../../generated/ts/settings/peer.js";
import { silentLogger, systemClock } from "../../../src/foundation/runtime/index.js";
import {
  type HandleOptions,
  type Message,
  Peer,
  type PeerOptions,
  type PeerStatus,
  type Subscription,
  type TransactionalMessage,
  Worker,
  type WorkerHandleOptions,
  type WorkerOptions,
} from "../../../src/jobs-and-peers/peer/index.js";
import { acquireDatabase } from "../../../src/jobs-and-peers/peer-store/shared-database.js";
import { type TestDatabase, type TestDatabaseOptions, testDatabase } from "../../support/database.js";
import { eventually } from "../../support/eventually.js";
import { Log } from "./log.js";

/**
 * Whether a message is delivered or stored, sent or dropped, is not to depend on how slow the machine is: by default a
 * sender waits longer for its listener than one would elsewhere, and a listener reports busy later.
 */
const patient: NonNullable<PeerOptions["tuning"]> = {
  ackTimeoutMs: 20_000,
  busyAfterMs: 20_000,
  connectWaitMs: 20_000,
};

/** A handler of the tests. The client is there if the peer is transactional. */
export type Handler = (message: TransactionalMessage) => unknown;

/** Options of a peer of the tests, and those of its recording handlers. */
export type TestPeerOptions = Partial<PeerOptions> & Pick<HandleOptions, "transactional">;

/** A message as a handler saw it. */
export interface Received {
  readonly topic: string;
  readonly senderTopic: string | undefined;
  readonly sender: string | undefined;
  readonly enqueuedBy: string | undefined;
  readonly text: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly attempt: number;
  readonly delivery: Message["delivery"];
}

/** A peer that remembers its messages and its statuses. */
export class TestPeer extends Peer {
  readonly received = new Log<Received>();
  readonly statuses = new Log<PeerStatus>();

  readonly #options: HandleOptions;
  readonly #subscriptions = new Map<string, readonly Subscription[]>();
  #then: Handler | undefined;

  constructor({ transactional, ...options }: PeerOptions & Pick<HandleOptions, "transactional">) {
    super(options);
    this.#options = { transactional };
    this.on("status", (status) => this.statuses.push(status));
  }

  /** Starts with a handler of the messages and requests of its own topic that records, and then does what `handler` does. */
  async record(handler?: Handler): Promise<void> {
    this.#then = handler;
    if (!this.#subscriptions.has(this.topic)) await this.recordTopic(this.topic);
    await this.start();
  }

  /** Handles a topic as {@link record} does, and answers its requests. */
  async recordTopic(topic: string): Promise<void> {
    await this.#handleAll(topic, (message) => {
      this.received.push(received(message));
      return this.#then?.(message);
    });
  }

  /** Handles a topic no more. */
  async leave(topic: string): Promise<void> {
    for (const subscription of this.#subscriptions.get(topic) ?? []) await subscription.stop();
    this.#subscriptions.delete(topic);
  }

  /** Starts with a handler of its own topic that records nothing. */
  async startWith(handler: Handler): Promise<void> {
    await this.#handleAll(this.topic, handler);
    await this.start();
  }

  async #handleAll(topic: string, handler: Handler): Promise<void> {
    const either = (message: Message): unknown => handler(message as TransactionalMessage);
    this.#subscriptions.set(topic, [
      await this.handle(topic, this.#options, either),
      await this.respond(topic, this.#options, either),
    ]);
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

/** Options of a worker of the tests, and those of its recording handlers. */
export type TestWorkerOptions = Partial<WorkerOptions> & Pick<WorkerHandleOptions, "transactional">;

/** A worker that remembers its messages and its statuses, as {@link TestPeer}. */
export class RecordingWorker extends Worker {
  readonly received = new Log<Received>();
  readonly statuses = new Log<PeerStatus>();
  readonly topic: string;

  readonly #options: WorkerHandleOptions;
  readonly #subscriptions = new Map<string, Subscription>();
  #then: Handler | undefined;

  constructor(topic: string, { transactional, ...options }: TestWorkerOptions) {
    super(options);
    this.topic = topic;
    this.#options = { transactional };
    this.on("status", (status) => this.statuses.push(status));
  }

  /** Starts with a handler of its topic that records, and then does what `handler` does. */
  async record(handler?: Handler): Promise<void> {
    this.#then = handler;
    await this.recordTopic(this.topic);
    await this.start();
  }

  /** Handles a topic as {@link record} does. */
  async recordTopic(topic: string): Promise<void> {
    const subscription = await this.handle(topic, this.#options, (message) => {
      this.received.push(received(message));
      return this.#then?.(message as TransactionalMessage);
    });
    this.#subscriptions.set(topic, subscription);
  }

  /** Handles a topic no more. */
  async leave(topic: string): Promise<void> {
    await this.#subscriptions.get(topic)?.stop();
  }

  /** The texts received so far. */
  get texts(): string[] {
    return this.received.all.map(({ text }) => text);
  }

  /** Resolves with a status of that kind, past or future. */
  saw<Kind extends PeerStatus["kind"]>(kind: Kind): Promise<Extract<PeerStatus, { kind: Kind }>> {
    return this.statuses.find((status): status is Extract<PeerStatus, { kind: Kind }> => status.kind === kind);
  }
}

/** Copies the parts of a message that a handler sees. */
export function received(message: Message): Received {
  const { topic, senderTopic, sender, enqueuedBy, attempt, delivery } = message;
  const headers = [...message.headers];
  return { topic, senderTopic, sender, enqueuedBy, text: message.text(), headers, attempt, delivery };
}

/** A database, and what is done for its peers. */
export interface PeerWorldOptions extends TestDatabaseOptions {
  /** True: the session and the pool of the peers stay open while no peer runs. */
  readonly keepsConnections?: boolean;
}

/** A database and the peers on it. Disposing stops them and drops it. */
export class PeerWorld implements AsyncDisposable {
  #database!: TestDatabase;
  #operator!: pg.Client;
  #secrets: { id: number; secret: Buffer }[] = [];
  readonly #peers: (TestPeer | RecordingWorker)[] = [];
  #releaseConnections: (() => Promise<void>) | undefined;

  /** Makes the database. */
  async open(options: PeerWorldOptions): Promise<void> {
    this.#database = await testDatabase(options);
    this.#operator = new pg.Client({ connectionString: this.url });
    this.#operator.on("error", () => undefined);
    this.#operator.setTypeParser(pg.types.builtins.INT8, Number);
    await this.#operator.connect();
    if (options.migrated ?? true)
      this.#secrets = await this.query("SELECT id, secret FROM hawser_peer_data.mesh_secret");
    if (options.keepsConnections !== true) return;
    const first = { clock: systemClock, logger: silentLogger, poolSize: peerSettingsDefaults.poolSize };
    this.#releaseConnections = (await acquireDatabase({ databaseUrl: this.url }, first)).release;
  }

  get url(): string {
    return this.#database.url;
  }

  /** A peer, not running yet. Its topic is its name up to the first hyphen. */
  peer(name: string, options: TestPeerOptions = {}): TestPeer {
    const topic = name.split("-")[0] as string;
    const tuning = { ...patient, ...options.tuning };
    const made = new TestPeer({ name, topic, databaseUrl: this.url, ...options, tuning });
    this.#peers.push(made);
    return made;
  }

  /** A worker, not running yet. Its topic is its name up to the first hyphen. */
  worker(name: string, options: TestWorkerOptions = {}): RecordingWorker {
    const made = new RecordingWorker(name.split("-")[0]!, { name, databaseUrl: this.url, ...options });
    this.#peers.push(made);
    return made;
  }

  /** The same, running with a handler that records. */
  async working(name: string, options?: TestWorkerOptions, handler?: Handler): Promise<RecordingWorker> {
    const made = this.worker(name, options);
    await made.record(handler);
    return made;
  }

  /** A peer as {@link peer}, running with a handler that records. */
  async started(name: string, options?: TestPeerOptions, handler?: Handler): Promise<TestPeer> {
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
    const insert =
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name, durable) VALUES ($1, $2, $3, $4)";
    await this.query(insert, [topic, addr, name, durable]);
  }

  /** A sender `a-1`, and `b-1`, which has handled a message of it with this text and stopped. */
  async left(text: string): Promise<[sender: TestPeer, listener: TestPeer]> {
    const [a, b] = await this.running("a-1", "b-1");
    await a.send("b", text);
    await b.stop();
    return [a, b];
  }

  /** The number of messages that wait: those that are stored for a listener, and those that are enqueued. */
  async storedMessages(): Promise<number> {
    const [row] = await this.query<{ count: number }>(
      "SELECT (SELECT count(*) FROM hawser_peer_data.stored_messages) + (SELECT count(*) FROM hawser_data.queue) AS count",
    );
    return row?.count ?? 0;
  }

  /** Resolves when nothing waits any more: all that has left its sender is handled, or a dead letter. */
  async handled(): Promise<void> {
    await eventually("nothing waits", async () => (await this.storedMessages()) === 0);
  }

  /** The dead letters, in order, once there are that many. */
  async deadLetters(count: number): Promise<Record<string, unknown>[]> {
    let letters: Record<string, unknown>[] = [];
    await eventually(`there are ${count} dead letters`, async () => {
      letters = await this.query("SELECT * FROM hawser_data.dead_letters ORDER BY id");
      return letters.length >= count;
    });
    return letters;
  }

  /** Stops the peers and leaves the database as it was. */
  async reset(): Promise<void> {
    await this.#stopPeers();
    await this.query((this.#releaseConnections === undefined ? endSessionsSql : "") + emptySql);
    for (const { id, secret } of this.#secrets) {
      await this.query("INSERT INTO hawser_peer_data.mesh_secret (id, secret) VALUES ($1, $2)", [id, secret]);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stopPeers();
    await this.#releaseConnections?.();
    this.#releaseConnections = undefined;
    await this.#operator.end();
    await this.#database.drop();
  }

  async #stopPeers(): Promise<void> {
    await Promise.all(this.#peers.splice(0).map((each) => each.stop({ timeoutMs: 2_000 })));
  }
}

/** Ends all other sessions. */
const endSessionsSql = `
  SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';`;

/** Tables whose rows a database always has, and those of names, which are counted on. */
const keptTables: readonly string[] = [
  ...[peerTables.databaseSetting, peerTables.fence, peerTables.idCounter, peerTables.migration, peerTables.owner],
  ...[outboxTables.outboxState, outboxTables.outboxTurn, queueTables.sampling],
];

/**
 * Empties the tables, and removes what tests have made in the schema `public`. The schema itself stays: dropping one makes all
 * sessions plan all of their statements again.
 */
const emptySql = `
  ${[peerTables, outboxTables, queueTables]
    .flatMap((tables): string[] => Object.values(tables))
    .filter((table) => !keptTables.includes(table))
    .map((table) => `DELETE FROM ${table};`)
    .join("")}
  DO $$
  DECLARE
    made record;
  BEGIN
    FOR made IN SELECT type, identity FROM pg_depend, pg_identify_object(classid, objid, objsubid)
        WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'public'::regnamespace LOOP
      EXECUTE format('DROP %s IF EXISTS %s CASCADE', made.type, made.identity);
    END LOOP;
  END
  $$`;

/** Makes a world. */
export async function peerWorld(options: PeerWorldOptions = {}): Promise<PeerWorld> {
  const world = new PeerWorld();
  await world.open(options);
  return world;
}
