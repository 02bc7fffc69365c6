/** Sets the NATS server that a database's SQL functions use while a program runs, and restores the previous one. */
import { tables } from "../../../generated/ts/rows/nats.js";
import type { Database } from "../../jobs-and-peers/store/index.js";
import { withCommandDatabase } from "./command-database.js";

type Options = Readonly<Record<string, string>>;

/** NATS server that a database defines. */
export interface DefinedNatsServer {
  /** Options as strings, as in CREATE SERVER. They may contain secrets. */
  readonly options: Options;
  /** Foreign server that defines the options; null if `hawser.set_nats_server` set them. */
  readonly foreignServer: string | null;
}

/** Input of {@link defineNatsServer}. */
export interface NatsServerDefinition {
  readonly databaseUrl: string | undefined;
  /** Options as strings, as in CREATE SERVER. */
  readonly options: Options;
  /** Returns true if the current definition may be replaced. Default: never. */
  readonly replaces?: ((present: DefinedNatsServer) => boolean) | undefined;
}

/** Result of {@link defineNatsServer}. */
export interface NatsServerOutcome {
  /** Definition before the call; undefined if there was none. */
  readonly before: DefinedNatsServer | undefined;
  /** True if the options were set; false if `before` was kept. */
  readonly isSet: boolean;
}

/**
 * Sets the options, unless a NATS server is defined that must not be replaced.
 *
 * @throws HawserError as `withCommandDatabase`; `store_failed` for a role that lacks the privilege
 */
export function defineNatsServer(definition: NatsServerDefinition): Promise<NatsServerOutcome> {
  const { databaseUrl, options, replaces = () => false } = definition;
  return withCommandDatabase(databaseUrl, async (database) => {
    // `hawser serve` applies changes of the foreign server, but it may not be running.
    await database.query("read which NATS server is defined", { text: "SELECT hawser.follow_nats_server()" });
    const before = await definedServer(database);
    if (before !== undefined && !replaces(before)) return { before, isSet: false };
    await setOptions(database, options);
    return { before, isSet: true };
  });
}

/**
 * Restores the definition before {@link defineNatsServer}. A NATS server that was defined since then is kept.
 *
 * @returns false if another definition was kept
 * @throws HawserError as {@link defineNatsServer}
 */
export function restoreNatsServer(
  { databaseUrl, options }: Pick<NatsServerDefinition, "databaseUrl" | "options">,
  before: DefinedNatsServer | undefined,
): Promise<boolean> {
  return withCommandDatabase(databaseUrl, async (database) => {
    const present = await definedServer(database);
    if (present === undefined || present.foreignServer !== null || !isSame(present.options, options)) return false;
    // Without explicit options, those of the foreign server apply again.
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
