/**
 * What a test has of the servers of its run: a database and a NATS account of its own, connections that can be cut, and
 * programs that end with it.
 */
import { HawserError, namesOf, unknownOption } from "../errors/index.js";
import type { Caller, MadeStack, Side } from "./calls.js";
import { keeperOfRun } from "./connect-keeper.js";
import { type Migrations, readMigrations } from "./migrations.js";
import { type ProgramOptions, startProgram, type TestProgram } from "./program.js";

/** What a test needs. */
export interface TestStackOptions {
  /**
   * What the database has beside what Hawser installs: a file or folder of SQL (in the order of the paths), or a program
   * that prepares it. It is run once, in a template that all stacks with the same migrations are copies of.
   */
  readonly migrations?: Migrations | undefined;
  /** Run `hawser serve` for the database: SQL functions reach NATS, and NATS reaches SQL functions. Default false. */
  readonly serve?: boolean | undefined;
}

/** How connections are cut. */
interface CutOptions {
  /** They stay, and nothing passes or answers: what a broken network looks like. Default false: they are reset. */
  readonly silent?: boolean | undefined;
}

/** The connections of a stack to one of its servers. */
interface Connections {
  /**
   * Ends them all, and refuses others until `restore`. The server and other stacks notice nothing.
   *
   * @throws HawserError `not_supported` for a server of the user's own that is reached by TLS, a socket file or several addresses
   */
  cut(options?: CutOptions): Promise<void>;
  restore(): Promise<void>;
}

/** A database and a NATS of a test's own. */
export interface TestStack extends AsyncDisposable {
  /** Of letters, digits and `_`, unlike that of any other stack. */
  readonly id: string;
  /** Connects to the database as the superuser of the run's Postgres, or as the user of HAWSER_DATABASE_URL. */
  readonly databaseUrl: string;
  /**
   * A NATS with JetStream, without credentials. What is published, stored or served here is there for nobody else, unless
   * the server is that of HAWSER_NATS_URL: all stacks share that one.
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
  /** Ends its programs, drops the database, and empties the NATS account. */
  drop(): Promise<void>;
}

const known = namesOf<TestStackOptions>({ migrations: true, serve: true });

/**
 * Makes a database and a NATS account for a test, or for the tests of a file. Postgres and nats-server are started once for
 * the whole run, whatever the number of files and workers, and end with it. Those of HAWSER_DATABASE_URL and
 * HAWSER_NATS_URL are used instead.
 *
 *     const stack = await testStack({ migrations: "migrations" });
 *     after(() => stack.drop());
 *
 * @throws HawserError `dev_server_failed`, `invalid_argument`, `busy` with 256 stacks; what the migrations throw
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
