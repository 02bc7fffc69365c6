/**
 * A database with the SQL functions, logins that may call them, and a session as the executor that calls wrappers.
 */
import pg from "pg";
import { type Login, login } from "../../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../../support/database.js";

/** A wrapper as a superuser sees it. */
export interface Bound {
  readonly id: string;
  readonly wrapper: string;
  readonly token: Buffer;
  readonly runAs: string;
}

/** A message for a wrapper. */
export interface Delivered {
  readonly payload: Buffer;
  readonly subject?: string;
  readonly headers?: string | null;
  readonly id?: string;
}

/** The database, and who is in it. */
export interface BindingWorld extends AsyncDisposable {
  readonly database: TestDatabase;
  /** As superuser. */
  readonly client: pg.Client;
  /** The name of the executor's login. */
  readonly executor: string;
  rows<Row extends object = Record<string, unknown>>(sql: string, values?: unknown[]): Promise<Row[]>;
  /** A login in `hawser_nats`, with a schema of its own on its path. */
  user(): Promise<Login>;
  /** A session; it ends with the world. */
  connect(url: string): Promise<pg.Client>;
  /** A session as the executor. */
  connectExecutor(): Promise<pg.Client>;
  /** The handlers of a subject, the oldest first. */
  bound(subject: string): Promise<Bound[]>;
  /** Bindings as operators see them: `subject callback`. */
  subscriptions(): Promise<string[]>;
}

/** The error of a statement, which has to fail. */
export async function errorOf(client: pg.Client, sql: string, values?: unknown[]): Promise<pg.DatabaseError> {
  const outcome: unknown = await client.query(sql, values).catch((error: unknown) => error);
  if (outcome instanceof pg.DatabaseError) return outcome;
  throw new Error(`${sql} did not fail with an error of Postgres`, { cause: outcome });
}

/** Calls a wrapper with a batch, as the bridge does. @returns how many it says that it has handled */
export async function deliver(
  executor: pg.Client,
  { wrapper, token }: Pick<Bound, "wrapper" | "token">,
  messages: readonly Delivered[],
): Promise<number> {
  const lengths = messages.map(({ payload }) => payload.length);
  const offsets = lengths.map((_, n) => 1 + lengths.slice(0, n).reduce((sum, each) => sum + each, 0));
  const { rows } = await executor.query<{ done: string }>(
    `SELECT hawser_run.${pg.escapeIdentifier(wrapper)}(NULL::${tokenType(wrapper)}, $1::bytea, $2::bytea, $3::integer[], $4::integer[], $5::text[], $6::text[], $7::text[]) AS done`,
    [
      token,
      Buffer.concat(messages.map(({ payload }) => payload)),
      offsets,
      lengths,
      messages.map(({ subject = "s" }) => subject),
      messages.map(({ headers = null }) => headers),
      messages.map(({ id = "" }) => id),
    ],
  );
  return Number(rows[0]!.done);
}

/** Calls the wrapper of a responder, as the bridge does. */
export async function ask(
  executor: pg.Client,
  { wrapper, token }: Pick<Bound, "wrapper" | "token">,
  payload: Buffer,
  subject = "s",
  reply = "r",
): Promise<Buffer | null> {
  const { rows } = await executor.query<{ answer: Buffer | null }>(
    `SELECT hawser_run.${pg.escapeIdentifier(wrapper)}(NULL::${tokenType(wrapper)}, $1::bytea, $2::bytea, $3::text, $4::text) AS answer`,
    [token, payload, subject, reply],
  );
  return rows[0]?.answer ?? null;
}

/** With its own type for its first argument nobody else's function is ever called in its place. */
function tokenType(wrapper: string): string {
  return `hawser_run.token_${wrapper.slice(-16)}`;
}

/** Makes one. */
export async function bindingWorld(): Promise<BindingWorld> {
  const undo: (() => Promise<unknown>)[] = [];
  const database = await testDatabase();
  undo.push(() => database.drop());
  const connect = async (url: string): Promise<pg.Client> => {
    const client = new pg.Client(url);
    // Its next query reports it.
    client.on("error", () => undefined);
    await client.connect();
    undo.push(() => client.end());
    return client;
  };
  const client = await connect(database.url);
  const rows = async <Row extends object>(sql: string, values?: unknown[]): Promise<Row[]> =>
    (await client.query<Row>(sql, values)).rows;
  const [executor] = await rows<{ name: string; password: string }>(
    "SELECT user_name AS name, password FROM hawser_bridge_data.executor_login",
  );
  const executorUrl = new URL(database.url);
  executorUrl.username = executor!.name;
  executorUrl.password = executor!.password;
  return {
    database,
    client,
    executor: executor!.name,
    rows,
    connect,
    connectExecutor: () => connect(executorUrl.href),
    async user() {
      const made = await login(database.url, "IN ROLE hawser_nats");
      undo.push(async () => made[Symbol.asyncDispose]());
      await client.query(`CREATE SCHEMA ${made.role} AUTHORIZATION ${made.role}`);
      return made;
    },
    bound: (subject) =>
      rows<Bound>(
        `SELECT h.id, h.wrapper, h.token, pg_get_userbyid(p.proowner) AS "runAs"
           FROM hawser_bridge_data.nats_handlers AS h JOIN pg_proc AS p ON p.proname = h.wrapper AND p.pronamespace = 'hawser_run'::regnamespace
          WHERE h.subject = $1 ORDER BY h.id`,
        [subject],
      ),
    subscriptions: async () =>
      (
        await rows<{ subject: string; callback: string }>(
          "SELECT subject, callback FROM pgnats.subscriptions ORDER BY 1, 2",
        )
      ).map(({ subject, callback }) => `${subject} ${callback}`),
    async [Symbol.asyncDispose]() {
      for (const one of undo.splice(0).reverse()) await one();
    },
  };
}
