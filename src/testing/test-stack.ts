/**
 * A test's share of the servers of its run: its own database and NATS account, connections that can be cut, and
 * programs that end with the stack.
 */
import { HawserError, namesOf, unknownOption } from "../errors/index.js";
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
   * Run `hawser serve` for the database, so that SQL functions reach NATS and NATS reaches SQL functions. Default
   * false.
   */
  readonly serve?: boolean | undefined;
}

/** Options of cutting connections. */
interface CutOptions {
  /** Keep the connections open without passing data, as in a broken network. Default false: they are reset. */
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

/** Database and NATS account of a test. */
export interface TestStack extends AsyncDisposable {
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
   * Starts a program, which is killed when the stack is dropped or this process ends.
   *
   * @param command such as `node`
   * @throws HawserError `startup_failed` if there is no such program
   */
  start(command: string, args: readonly string[], options?: ProgramOptions): Promise<TestProgram>;
  /** Ends the stack's programs, drops the database, and empties the NATS account. */
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
  const problem = unknownOption(options, "a test stack", known);
  if (problem !== undefined) throw new HawserError("invalid_argument", problem);
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
      cut: ({ silent = false } = {}) => this.#keeper.call("cut", { id: this.id, side, silent }),
      restore: () => this.#keeper.call("restore", { id: this.id, side }),
    };
  }

  async start(command: string, args: readonly string[], options: ProgramOptions = {}): Promise<TestProgram> {
    const program = await startProgram(command, args, options);
    this.#programs.add(program);
    await this.#keeper.call("adopt", { pid: program.pid });
    void program.ended.then(() => this.#programs.delete(program));
    return program;
  }

  async drop(): Promise<void> {
    await Promise.all([...this.#programs].map((program) => program.kill()));
    await this.#keeper.call("drop", { id: this.id });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.drop();
  }
}
