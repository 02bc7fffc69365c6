/**
 * Telling a database which NATS server its SQL functions use, for as long as a program runs, and undoing that.
 */
import { tables } from "../../generated/ts/rows/nats.js";
import { withCommandDatabase } from "./command-database.js";
import type { Database } from "./database.js";

type Options = Readonly<Record<string, string>>;

/** The NATS server that a database names. */
export interface DefinedNatsServer {
  /** As in CREATE SERVER: strings. They may hold secrets. */
  readonly options: Options;
  /** The foreign server that defines them; null: `hawser.set_nats_server` has set them. */
  readonly foreignServer: string | null;
}

/** What to tell. */
export interface NatsServerDefinition {
  readonly databaseUrl: string | undefined;
  /** As in CREATE SERVER: strings. */
  readonly options: Options;
  /** Whether a definition that is there is replaced. Default: never. */
  readonly replaces?: ((present: DefinedNatsServer) => boolean) | undefined;
}

/** What {@link defineNatsServer} found, and did. */
export interface NatsServerOutcome {
  /** What was defined before; undefined if nothing was. */
  readonly before: DefinedNatsServer | undefined;
  /** The options are set now; false: `before` was left as it is. */
  readonly isSet: boolean;
}

/**
 * Sets the options, unless a NATS server is defined that is not to be replaced.
 *
 * @throws HawserError as `withCommandDatabase`; `store_failed` for options that are not right, and for a role that may not
 */
export function defineNatsServer(definition: NatsServerDefinition): Promise<NatsServerOutcome> {
  const { databaseUrl, options, replaces = () => false } = definition;
  return withCommandDatabase(databaseUrl, async (database) => {
    // Perhaps no `hawser serve` runs that would have read a changed foreign server.
    await database.query("read which NATS server is defined", { text: "SELECT hawser.follow_nats_server()" });
    const before = await definedServer(database);
    if (before !== undefined && !replaces(before)) return { before, isSet: false };
    await setOptions(database, options);
    return { before, isSet: true };
  });
}

/**
 * Undoes what {@link defineNatsServer} has set: what was defined before is defined again. If another NATS server
 * has been defined since, that one stays.
 *
 * @returns false if it stays
 * @throws HawserError as {@link defineNatsServer}
 */
export function restoreNatsServer(
  { databaseUrl, options }: Pick<NatsServerDefinition, "databaseUrl" | "options">,
  before: DefinedNatsServer | undefined,
): Promise<boolean> {
  return withCommandDatabase(databaseUrl, async (database) => {
    const present = await definedServer(database);
    if (present === undefined || present.foreignServer !== null || !isSame(present.options, options)) return false;
    // Without options, what a foreign server says counts again.
    await setOptions(database, before === undefined || before.foreignServer !== null ? null : before.options);
    return true;
  });
}

async function definedServer(database: Database): Promise<DefinedNatsServer | undefined> {
  const [present] = await database.query<{ options: Options | null; name: string | null }>(
    "read which NATS server is defined",
    { text: `SELECT s.options, s.server_name AS name FROM ${tables.natsServer} AS s` },
  );
  if (present === undefined || present.options === null) return undefined;
  return { options: present.options, foreignServer: present.name };
}

async function setOptions(database: Database, options: Options | null): Promise<void> {
  await database.query("define the NATS server", {
    text: "SELECT hawser.set_nats_server($1)",
    values: [options === null ? null : JSON.stringify(options)],
  });
}

function isSame(some: Options, others: Options): boolean {
  const names = Object.keys(some);
  return names.length === Object.keys(others).length && names.every((name) => some[name] === others[name]);
}
