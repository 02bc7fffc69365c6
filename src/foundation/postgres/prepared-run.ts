/**
 * Prepared statements that are sent with one write and answered together: without the driver's per-query overhead, and
 * without a round trip for each.
 */
import pg from "pg";
import { serialize } from "pg-protocol";

/** Statement of a {@link PreparedRun}. */
export interface PreparedStatement {
  /** Name under which the session keeps the statement. Without it, the server parses the statement each time. */
  readonly name?: string;
  readonly text: string;
  /** Texts, bytes, booleans and arrays of integers. */
  readonly values?: readonly unknown[];
}

/** Columns of a row in text format. */
export type Columns = readonly (string | null)[];

/** Answers to all statements of a run. */
export interface Answers {
  readonly rows: Columns[];
  /** Command tag of each statement, such as `COMMIT`. */
  readonly commands: string[];
}

/** Members of the driver's connection that its types omit. */
interface DriverConnection extends pg.Connection {
  /** Texts of prepared statements. */
  readonly parsedStatements: Record<string, string>;
}

interface CommandComplete {
  readonly text: string;
}

/** Messages of statements without name and values, which are the same each time. */
const constantMessages = new WeakMap<PreparedStatement, Buffer>();

function messagesOf(statement: PreparedStatement, { parsedStatements }: DriverConnection): Buffer {
  const { name = "", text, values = [] } = statement;
  const known = constantMessages.get(statement);
  if (known !== undefined) return known;
  const isParsed = name !== "" && parsedStatements[name] === text;
  const messages = Buffer.concat([
    // After an error it is not known whether the statement was parsed. To close one that is not there is no error.
    ...(isParsed || name === "" ? [] : [serialize.close({ type: "S", name })]),
    ...(isParsed ? [] : [serialize.parse({ name, text })]),
    serialize.bind({ statement: name, values: values.map(parameter) }),
    serialize.execute(),
  ]);
  if (name === "" && values.length === 0) constantMessages.set(statement, messages);
  return messages;
}

/** Sends statements as one chunk, with messages behind them. */
function send(statements: readonly PreparedStatement[], connection: pg.Connection, ...behind: Buffer[]): void {
  if (!connection.stream.writable) return;
  const messages = statements.map((statement) => messagesOf(statement, connection as DriverConnection));
  connection.stream.write(Buffer.concat([...messages, ...behind]));
}

/** The statement has been carried out, and so has been parsed. */
function heed({ name, text }: PreparedStatement, connection: pg.Connection): void {
  if (name !== undefined) (connection as DriverConnection).parsedStatements[name] = text;
}

/** Statements, in the form that the driver accepts. After an error, the server leaves the rest out. */
export class PreparedRun implements pg.Submittable {
  /** Replaced by the driver if its option `query_timeout` is set. */
  callback: (error: Error | null, answers: Answers) => void;
  readonly #statements: readonly PreparedStatement[];
  readonly #answers: Answers = { rows: [], commands: [] };

  constructor(
    statements: readonly PreparedStatement[],
    callback: (error: Error | null, answers: Answers) => void = () => undefined,
  ) {
    this.#statements = statements;
    this.callback = callback;
  }

  submit(connection: pg.Connection): null {
    send(this.#statements, connection, serialize.sync());
    return null;
  }

  handleDataRow({ fields }: { readonly fields: Columns }): void {
    this.#answers.rows.push(fields);
  }

  handleCommandComplete({ text }: CommandComplete, connection: pg.Connection): void {
    heed(this.#statements[this.#answers.commands.length]!, connection);
    this.#answers.commands.push(text);
  }

  handleReadyForQuery(): void {
    this.callback(null, this.#answers);
  }

  handleError(error: Error): void {
    this.callback(error, this.#answers);
  }
}

/** Runs statements with one write. @throws the error of the first one that fails */
export function runPrepared(client: pg.ClientBase, statements: readonly PreparedStatement[]): Promise<Answers> {
  return new Promise((resolve, reject) => {
    client.query(new PreparedRun(statements, (error, answers) => (error === null ? resolve(answers) : reject(error))));
  });
}

/** Members of the driver's query that its types omit. */
interface DriverQuery extends pg.Query {
  submit(connection: pg.Connection): unknown;
  handleCommandComplete(message: CommandComplete, connection: pg.Connection): void;
}

/**
 * Runs a query of a user behind other statements, which have no names, with the same write. If one of these fails, the
 * server does not run the query.
 *
 * @param given arguments of the driver's `query`, for which {@link mayFollow}
 * @throws the error of the first one that fails
 */
export function queryBehind(
  client: pg.ClientBase,
  before: readonly PreparedStatement[],
  [config, values]: readonly unknown[],
): Promise<unknown> {
  let answered = 0;
  return new Promise((resolve, reject) => {
    const query = new pg.Query(config as string, values as unknown[], (error, result) => {
      if (error === null || error === undefined) return resolve(result);
      // As the driver does it: the trace of the socket would name nothing of the user.
      Error.captureStackTrace(error);
      reject(error);
    }) as DriverQuery;
    const own: Readonly<Record<PropertyKey, unknown>> = {
      submit: (connection: pg.Connection): unknown => {
        connection.stream.cork();
        try {
          send(before, connection);
          query.submit(connection);
        } finally {
          connection.stream.uncork();
        }
        return null;
      },
      handleCommandComplete: (message: CommandComplete, connection: pg.Connection): void => {
        if (answered === before.length) query.handleCommandComplete(message, connection);
        else answered += 1;
      },
    };
    client.query(
      new Proxy(query, { get: (target, key) => (Object.hasOwn(own, key) ? own[key] : Reflect.get(target, key)) }),
    );
  });
}

/**
 * True for a query that needs the extended protocol and that the driver will send: others are a message of their own, which
 * the server would not answer after an error in a statement before it.
 */
export function mayFollow(client: pg.ClientBase, [config, values, ...more]: readonly unknown[]): boolean {
  const { text, name, ...rest }: pg.QueryConfig & { readonly submit?: unknown; readonly rows?: unknown } =
    typeof config === "string" ? { text: config } : ((config ?? {}) as pg.QueryConfig);
  if (typeof text !== "string" || rest.submit !== undefined || rest.rows !== undefined || more.length > 0) return false;
  const given = values ?? rest.values;
  if (given !== undefined && !Array.isArray(given)) return false;
  if (name === undefined) return given !== undefined && given.length > 0;
  // The driver refuses a name that has another text.
  const { connection } = client as unknown as { readonly connection: DriverConnection };
  return (connection.parsedStatements[name] ?? text) === text;
}

/** Removes all prepared statements of a session: a function that ran in it may have prepared others under any name. */
export async function removePrepared(client: pg.ClientBase): Promise<void> {
  await client.query("DEALLOCATE ALL");
  const { parsedStatements } = (client as unknown as { readonly connection: DriverConnection }).connection;
  for (const name of Object.keys(parsedStatements)) delete parsedStatements[name];
}

/** Value of a parameter in text format, or as bytes. */
export function parameter(value: unknown): string | Buffer | null {
  if (Array.isArray(value)) return `{${value.join(",")}}`;
  return typeof value === "boolean" ? String(value) : (value as string | Buffer | null);
}
