/**
 * Parsers of the values that Hawser reads in its own sessions.
 *
 * node-postgres keeps its parsers and defaults in one module, which a program shares with all libraries that it loads:
 * `pg.types.setTypeParser` and `pg.defaults` of the program would change what Hawser reads. So nothing here is of that
 * module. Statements of a user keep the parsers of the program: {@link programTypes}.
 */
import pg from "pg";

type Parse = (text: string) => unknown;

const numberOf: Parse = Number;
const isTrue: Parse = (text) => text === "t";
const same: Parse = (text) => text;

/** Scalar types, by the oid of the type and of its array. */
const scalars: readonly (readonly [oid: number, arrayOid: number, parse: Parse])[] = [
  [16, 1000, isTrue],
  [17, 1001, bytesOf],
  [21, 1005, numberOf],
  [23, 1007, numberOf],
  [26, 1028, numberOf],
  [700, 1021, numberOf],
  [701, 1022, numberOf],
  [114, 199, JSON.parse],
  [3802, 3807, JSON.parse],
  [1184, 1185, timestampOf],
  // text, varchar, uuid
  [25, 1009, same],
  [1043, 1015, same],
  [2950, 2951, same],
];

const parsers = new Map<number, Parse>([
  ...scalars.flatMap(([oid, arrayOid, parse]): [number, Parse][] => [
    [oid, parse],
    [arrayOid, (text) => arrayOf(text, parse)],
  ]),
  // bigint, and arrays of its texts, which the generated callers convert.
  [20, BigInt],
  [1016, (text) => arrayOf(text, same)],
]);

/** Parsers for the generated row types and for Hawser's own statements. Other types are texts. */
export const ownTypes: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number) => parsers.get(oid) ?? same) as typeof pg.types.getTypeParser,
};

/** Parsers for statements of a user in a session of Hawser: those of the program, but bigint as bigint. */
export const programTypes: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: "text" | "binary") =>
    oid === pg.types.builtins.INT8 && format !== "binary"
      ? BigInt
      : pg.types.getTypeParser(oid, format as "text")) as typeof pg.types.getTypeParser,
};

/** Makes {@link ownTypes} those of a client of a user's pool. */
export function useOwnTypes(client: pg.ClientBase): void {
  for (const oid of new Set([...parsers.keys(), ...Object.values(pg.types.builtins)]))
    client.setTypeParser(oid, parsers.get(oid) ?? same);
}

/** Members of the driver's client that its types omit. */
interface DriverClient {
  binary: boolean;
  readonly connectionParameters: { query_timeout?: number | undefined };
}

/** Removes from a client, before its first statement, what the program has set for all clients: binary results, and a limit. */
export function withoutProgramDefaults<Client extends pg.ClientBase>(client: Client, queryTimeoutMs = 0): Client {
  const driver = client as unknown as DriverClient;
  driver.binary = false;
  driver.connectionParameters.query_timeout = queryTimeoutMs;
  return client;
}

/** Runs a statement of Hawser on a client whose parsers, or whose format of results, may be a user's. */
export function queryOwn<Row extends object>(
  client: pg.ClientBase,
  statement: pg.QueryConfig,
): Promise<pg.QueryResult<Row>> {
  const driver = client as unknown as DriverClient;
  const { binary } = driver;
  // The driver reads it before it returns.
  driver.binary = false;
  try {
    return client.query<Row>({ ...statement, types: ownTypes });
  } finally {
    driver.binary = binary;
  }
}

/** Parses a bytea in the format hex, or in the format escape of a login in whose session its own functions run. */
function bytesOf(text: string): Buffer {
  if (text.startsWith("\\x")) return Buffer.from(text.slice(2), "hex");
  const bytes = text.replace(/\\(\\|[0-7]{3})/g, (_, one: string) =>
    one === "\\" ? one : String.fromCharCode(Number.parseInt(one, 8)),
  );
  return Buffer.from(bytes, "latin1");
}

/** Parses a timestamptz in the ISO format and UTC or another zone. Infinity is a number, as in node-postgres. */
function timestampOf(text: string): Date | number {
  const match =
    /^(\d{4,6})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?( BC)?$/.exec(
      text,
    );
  if (match === null) {
    if (text.endsWith("infinity")) return text.startsWith("-") ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
    return new Date(text);
  }
  const [, years, months, days, hours, minutes, seconds, fraction = "0", sign, ...rest] = match;
  const [zoneHours, zoneMinutes = "0", zoneSeconds = "0", era] = rest;
  const year = era === undefined ? Number(years) : 1 - Number(years);
  const offsetS = (Number(zoneHours) * 60 + Number(zoneMinutes)) * 60 + Number(zoneSeconds);
  const date = new Date(0);
  // Date.UTC takes the years 0 to 99 for 1900 to 1999.
  date.setUTCFullYear(year, Number(months) - 1, Number(days));
  date.setUTCHours(Number(hours), Number(minutes), Number(seconds), Math.floor(Number(`0.${fraction}`) * 1000));
  date.setTime(date.getTime() - (sign === "-" ? -offsetS : offsetS) * 1000);
  return date;
}

/** Parses an array in the syntax of Postgres. */
function arrayOf(text: string, parse: Parse): unknown[] {
  // In front of the elements are the bounds, if the first is not 1.
  let at = text.indexOf("{");
  const element = (): unknown => {
    if (text[at] === "{") return list();
    if (text[at] === '"') return parse(quoted());
    const from = at;
    while (text[at] !== "," && text[at] !== "}") at += 1;
    const value = text.slice(from, at);
    return value === "NULL" ? null : parse(value);
  };
  const quoted = (): string => {
    const special = /["\\]/g;
    let value = "";
    for (let from = at + 1; ; ) {
      special.lastIndex = from;
      const end = special.exec(text)!.index;
      value += text.slice(from, end);
      if (text[end] === '"') {
        at = end + 1;
        return value;
      }
      value += text[end + 1];
      from = end + 2;
    }
  };
  const list = (): unknown[] => {
    const values: unknown[] = [];
    at += 1;
    while (text[at] !== "}") {
      values.push(element());
      if (text[at] === ",") at += 1;
    }
    at += 1;
    return values;
  };
  return list();
}
