/**
 * A test's share of the servers of its run: its own database and NATS account, connections that can be cut, and peers
 * and programs that end with the stack.
 */
import pg from "pg";
import { checkOptionNames, HawserError, namesOf } from "../../foundation/errors/index.js";
import {
  type AnyPeer,
  type AnyTopics,
  Peer,
  type PeerOptions,
  type SqlClient,
  type TopicMap,
} from "../../jobs-and-peers/peer/index.js";
import { furtherUrls, libpqVariables } from "../dev/index.js";
import type { Caller, MadeStack, Side } from "./calls.js";
import { keeperOfRun } from "./connect-keeper.js";
import { type Migrations, readMigrations } from "./migrations.js";
import { type ProgramOptions, startProgram, type TestProgram } from "./program.js";

/** Options of a test stack. */
export interface TestStackOptions {
  /**
   * Migrations of the database besides Hawser's: a file or folder of SQL (in the order of the paths), or a program that
   * prepares the database. They run once, in a template that is copied for all stacks with the same migrations.
   */
  readonly migrations?: Migrations | undefined;
  /**
   * True to run `hawser serve` for the database, so that SQL functions reach NATS and NATS reaches SQL functions.
   * Default false.
   */
  readonly serve?: boolean | undefined;
}

/** Options of {@link Connections.cut}. */
interface CutOptions {
  /** True to keep the connections open without passing data, as in a broken network. Default false: they are reset. */
  readonly silent?: boolean | undefined;
}

/** Connections of a stack to one of its servers. */
interface Connections {
  /**
   * Ends all connections, and refuses new ones until `restore`. The server and other stacks are not affected.
   *
   * @throws HawserError `not_supported` for an external server that is reached by TLS, a socket file or several
   * addresses
   */
  cut(options?: CutOptions): Promise<void>;
  restore(): Promise<void>;
}

/** Options of a peer of a stack. */
type StackPeerOptions = Omit<PeerOptions, "databaseUrl" | "pool" | "sessionUrl">;

/** Database and NATS account of a test; also a client of the database, as for `enqueue`. */
export interface TestStack extends AsyncDisposable, SqlClient {
  /** Unique identifier of letters, digits and `_`. */
  readonly id: string;
  /**
   * URL that connects to the database as the superuser of the run's Postgres, or as the user of HAWSER_DATABASE_URL.
   */
  readonly databaseUrl: string;
  /**
   * URL of a NATS with JetStream, without credentials. Its messages, streams and services are invisible to other
   * stacks, unless the server is the one of HAWSER_NATS_URL, which all stacks share.
   */
  readonly natsUrl: string;
  readonly postgres: Connections;
  readonly nats: Connections;
  /**
   * Runs a statement in the database and commits it. Statements that run at the same time use different connections, up
   * to ten; further ones wait.
   *
   * @param values values of the parameters `$1`, `$2`, … Default: none
   * @throws HawserError (as a rejection) `not_running` if the stack has been dropped; errors of Postgres
   */
  // biome-ignore lint/suspicious/noExplicitAny: as in node-postgres, the caller knows the columns.
  query<Row extends pg.QueryResultRow = any>(text: string, values?: unknown[]): Promise<pg.QueryResult<Row>>;
  /**
   * Creates a peer that uses the stack's database; start it like any other peer. The end of the stack stops it.
   *
   * @template Topics map of topics, as of a {@link Peer}
   * @param options options of a {@link Peer} except the URLs; `name` is required
   * @throws HawserError `invalid_argument`, `internal_topic`; `not_running` if the stack has been dropped
   */
  peer<Topics extends TopicMap<Topics> = AnyTopics>(options: StackPeerOptions): Peer<Topics>;
  /**
   * Starts a program. It is killed when the stack is dropped or this process ends. Its environment is that of this
   * process, in which `HAWSER_DATABASE_URL`, `HAWSER_NATS_URL`, `NATS_URL` and the `PG*` variables of an address name the
   * servers of the stack, and other `PG*` variables and other URLs for Hawser are removed; `env` overrides them.
   *
   * @param command such as `node`
   * @throws HawserError `startup_failed` if there is no such program
   */
  start(command: string, args: readonly string[], options?: ProgramOptions): Promise<TestProgram>;
  /**
   * Kills the stack's programs, stops its peers, each within its `stopTimeoutMs` (default 10,000 ms), drops the
   * database, and empties the NATS account. Connections to Postgres that were cut are restored first, so that the peers
   * can stop.
   */
  drop(): Promise<void>;
}

const known = namesOf<TestStackOptions>({ migrations: true, serve: true });

/**
 * Creates a database and a NATS account for a test, or for the tests of a file. Postgres and nats-server are started
 * once per run, whatever the number of files and workers, and stopped at its end. The servers of HAWSER_DATABASE_URL
 * and HAWSER_NATS_URL are used instead if set.
 *
 * const stack = await testStack({ migrations: "migrations" });
 * after(() => stack.drop());
 *
 * @throws HawserError `dev_server_failed`, `invalid_argument`, `busy` with 256 stacks; the errors of the migrations
 */
export async function testStack(options: TestStackOptions = {}): Promise<TestStack> {
  checkOptionNames(options, "a test stack", known);
  const migrations = options.migrations === undefined ? undefined : readMigrations(options.migrations);
  const keeper = await keeperOfRun();
  if (migrations !== undefined) {
    const { key } = migrations;
    const { make } = await keeper.call("template", { key });
    if (make !== null) {
      let failed = true;
      try {
        await migrations.run(make);
        failed = false;
      } finally {
        await keeper.call("prepared", { key, failed });
      }
    }
  }
  const made = await keeper.call("open", { template: migrations?.key ?? null, serve: options.serve ?? false });
  return new OpenStack(keeper, made);
}

class OpenStack implements TestStack {
  readonly id: string;
  readonly databaseUrl: string;
  readonly natsUrl: string;
  readonly postgres: Connections;
  readonly nats: Connections;
  readonly #keeper: Caller;
  readonly #programs = new Set<TestProgram>();
  readonly #peers = new Set<AnyPeer>();
  readonly #cutSides = new Set<Side>();
  /** Connections of {@link query}; undefined before the first statement. */
  #pool: pg.Pool | undefined;
  #dropping: Promise<void> | undefined;
  /** True when the peers have stopped; until then their handlers can run statements. */
  #isDropped = false;

  constructor(keeper: Caller, { id, databaseUrl, natsUrl }: MadeStack) {
    this.#keeper = keeper;
    this.id = id;
    this.databaseUrl = databaseUrl;
    this.natsUrl = natsUrl;
    this.postgres = this.#connections("postgres");
    this.nats = this.#connections("nats");
  }

  #connections(side: Side): Connections {
    return {
      cut: async ({ silent = false } = {}) => {
        await this.#keeper.call("cut", { id: this.id, side, silent });
        this.#cutSides.add(side);
      },
      restore: async () => {
        await this.#keeper.call("restore", { id: this.id, side });
        this.#cutSides.delete(side);
      },
    };
  }

  // biome-ignore lint/suspicious/noExplicitAny: as in the interface.
  async query<Row extends pg.QueryResultRow = any>(text: string, values?: unknown[]): Promise<pg.QueryResult<Row>> {
    if (this.#isDropped) throw this.#droppedError();
    if (this.#pool === undefined) {
      this.#pool = new pg.Pool({ connectionString: this.databaseUrl, allowExitOnIdle: true });
      // A cut ends idle connections; the next statement opens another one.
      this.#pool.on("error", () => undefined);
    }
    return await this.#pool.query<Row>(text, values);
  }

  peer<Topics extends TopicMap<Topics> = AnyTopics>(options: StackPeerOptions): Peer<Topics> {
    if (this.#dropping !== undefined) throw this.#droppedError();
    const given = (options ?? {}) as Partial<PeerOptions>;
    const own = (["databaseUrl", "pool", "sessionUrl"] as const).find((name) => given[name]);
    if (own !== undefined) {
      throw new HawserError(
        "invalid_argument",
        `${own}: a peer of a stack uses the database of the stack; leave it out, or make the peer with new Peer()`,
      );
    }
    const peer = new Peer<Topics>({ ...options, databaseUrl: this.databaseUrl });
    this.#peers.add(peer);
    return peer;
  }

  #droppedError(): HawserError {
    return new HawserError("not_running", `the stack ${this.id} has been dropped`);
  }

  async start(command: string, args: readonly string[], options: ProgramOptions = {}): Promise<TestProgram> {
    const program = await startProgram(command, args, options, this.#environment());
    this.#programs.add(program);
    await this.#keeper.call("addProgram", { pid: program.pid });
    void program.ended.then(() => this.#programs.delete(program));
    return program;
  }

  /** Variables with which a program finds the stack, and never the servers of the developer's shell. */
  #environment(): Record<string, string | undefined> {
    const { databaseUrl, natsUrl } = this;
    const ofShell = Object.keys(process.env).filter((name) => name.startsWith("PG"));
    return {
      ...furtherUrls,
      ...Object.fromEntries(ofShell.map((name) => [name, undefined])),
      ...libpqVariables(databaseUrl),
      HAWSER_DATABASE_URL: databaseUrl,
      HAWSER_NATS_URL: natsUrl,
      NATS_URL: natsUrl,
    };
  }

  drop(): Promise<void> {
    this.#dropping ??= this.#drop();
    return this.#dropping;
  }

  async #drop(): Promise<void> {
    try {
      await Promise.all([...this.#programs].map((program) => program.kill()));
      await this.#stopPeers();
    } finally {
      this.#isDropped = true;
      // Resolves when the statements that still run have ended, at the latest by the drop of the database.
      const poolEnded = this.#pool?.end();
      this.#pool = undefined;
      await this.#keeper.call("drop", { id: this.id });
      await poolEnded;
    }
  }

  async #stopPeers(): Promise<void> {
    if (this.#peers.size === 0) return;
    // A peer that cannot reach Postgres would wait until its deadline.
    if (this.#cutSides.has("postgres")) await this.postgres.restore();
    await Promise.all([...this.#peers].map((peer) => peer.stop()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.drop();
  }
}
