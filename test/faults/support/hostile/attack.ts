/**
 * Calls of every function with hostile arguments, and writes to every table, by one login.
 */
import type pg from "pg";
import type { Random } from "../../../simulator/random.js";
import { leaks, type Secrets, wrongError } from "./audit.js";
import type { AttackerRole, Parameter, SqlFunction, SqlObject } from "./catalog.js";
import { concrete, hostileValues, type Value, validValue } from "./values.js";
import type { VictimIds } from "./world.js";

/** Statement timeout of an attacker: a longer statement is a hang, even on a busy machine. */
export const statementMs = 60_000;

/** Duration from which a call is reported as slow. */
const slowMs = 1_000;

/** A call, and what it is called in the report. */
export interface Call {
  readonly label: string;
  readonly sql: string;
}

/** Caller and extent of an attack on a function. */
export interface CallOptions {
  readonly role: AttackerRole;
  readonly ids: VictimIds;
  readonly random: Random;
  /** Hostile values to try for each argument; undefined for all of them. */
  readonly valuesPerArgument?: number | undefined;
  /** Pairs of hostile arguments to try. */
  readonly pairs: number;
  /** Ids of the caller's position, by the names of parameters. */
  readonly own?: Readonly<Record<string, string>>;
}

/** The name by which a function is called; `signature` has quotes where it needs them. */
const calledAs = ({ schema, signature }: SqlFunction): string => {
  const name = signature.slice(0, signature.lastIndexOf("("));
  return name.startsWith(`${schema}.`) || name.startsWith('"') || schema === "public" ? name : `${schema}.${name}`;
};

/** Builds a call in the list of SELECT, where functions that return rows need no list of columns. */
function callOf(called: SqlFunction, values: readonly Value[]): Call {
  const casts = called.parameters.map(({ type }, nth) => `(${values[nth]!.sql})::${concrete(type)}`);
  const labels = called.parameters.map(({ name }, nth) => `${name || nth} => ${values[nth]!.label.slice(0, 60)}`);
  return { label: `${calledAs(called)}(${labels.join(", ")})`, sql: `SELECT ${calledAs(called)}(${casts.join(", ")})` };
}

/** The calls of one function: first as it should be called, then one hostile argument at a time, then two. */
export function callsOf(
  called: SqlFunction,
  { role, ids, random, valuesPerArgument, pairs, own = {} }: CallOptions,
): Call[] {
  const valid = called.parameters.map((parameter) => {
    const one = own[parameter.name];
    return one === undefined ? validValue(parameter, called, role) : { label: one, sql: `'${one}'` };
  });
  const calls = [callOf(called, valid)];
  if (!called.callers.has(role)) {
    const nothing = { label: "NULL", sql: "NULL" };
    return called.parameters.length === 0
      ? calls
      : [
          ...calls,
          callOf(
            called,
            called.parameters.map(() => nothing),
          ),
        ];
  }
  const hostile = called.parameters.map((parameter) => hostileValues(parameter, ids));
  // The variants of a function for other types of payload share its checks of all else.
  const isVariant = /_(json|jsonb|binary)(_|$)/.test(called.name);
  const count = valuesPerArgument === undefined || !isVariant ? valuesPerArgument : Math.ceil(valuesPerArgument / 4);
  const withValue = (values: readonly Value[], nth: number, value: Value): Value[] => values.with(nth, value);
  for (const [nth, values] of hostile.entries()) {
    for (const value of sample(values, count, random)) calls.push(callOf(called, withValue(valid, nth, value)));
  }
  for (let pair = 0; pair < (isVariant ? Math.ceil(pairs / 4) : pairs) && called.parameters.length > 1; pair++) {
    const one = random.between(0, hostile.length - 1);
    const other = random.between(0, hostile.length - 1);
    const values = withValue(valid, one, random.pick(hostile[one]!));
    calls.push(callOf(called, withValue(values, other, random.pick(hostile[other]!))));
  }
  return calls;
}

/** Some of them, NULL always. */
function sample(values: readonly Value[], count: number | undefined, random: Random): readonly Value[] {
  if (count === undefined || values.length <= count) return values;
  const rest = values.slice(1);
  const chosen = Array.from({ length: count - 1 }, () => rest.splice(random.between(0, rest.length - 1), 1)[0]!);
  return [values[0]!, ...chosen];
}

/**
 * Statements on a table: what reads or changes the rows of others is rolled back where the role may do it, and rows with
 * hostile values are added for good.
 */
export function writesOf({ name, privileges }: SqlObject, columns: readonly Parameter[], options: CallOptions): Call[] {
  const { role } = options;
  const may = (privilege: string): boolean => privileges.includes(`${role}:${privilege}`);
  const statements = [
    `SELECT t::text FROM ${name} AS t LIMIT 1000`,
    `INSERT INTO ${name} DEFAULT VALUES`,
    ...columns.slice(0, may("UPDATE") ? undefined : 1).map((column) => `UPDATE ${name} SET ${column.name} = NULL`),
    `DELETE FROM ${name}`,
    `TRUNCATE ${name}`,
    `BEGIN; LOCK TABLE ${name} IN ACCESS EXCLUSIVE MODE; ROLLBACK`,
    `CREATE TRIGGER mine BEFORE INSERT ON ${name} EXECUTE FUNCTION attack_${role}.nothing()`,
  ];
  // By design of its grants, a role may do this to the rows of others; what it breaks is its own peers' or serve's.
  const rolledBack = may("UPDATE") || may("DELETE") || may("INSERT");
  const tried = statements.map((sql) => ({
    label: sql,
    sql: rolledBack && !sql.startsWith("BEGIN") ? `BEGIN; ${sql}; ROLLBACK` : sql,
  }));
  // A row in hawser_bridge_data.gateways is where all calls go to; its role is the login of hawser serve.
  const added = may("INSERT") && role !== "hawser_bridge" ? insertsInto(name, columns, options) : [];
  return [...tried, ...added];
}

/** Rows with one hostile value each. */
function insertsInto(
  table: string,
  columns: readonly Parameter[],
  { role, ids, random, valuesPerArgument }: CallOptions,
): Call[] {
  const names = columns.map(({ name }) => name).join(", ");
  const valid = columns.map((column) => validValue(column, {}, role));
  const row = (nth: number, value: Value): Call => {
    const values = valid.with(nth, value).map(({ sql }, at) => `(${sql})::${columns[at]!.type}`);
    const label = `INSERT INTO ${table} with ${columns[nth]!.name} ${value.label.slice(0, 60)}`;
    return { label, sql: `INSERT INTO ${table} (${names}) VALUES (${values.join(", ")})` };
  };
  return columns.flatMap((column, nth) =>
    sample(hostileValues(column, ids), valuesPerArgument, random).map((value) => row(nth, value)),
  );
}

/** Results of an attack. */
export interface Findings {
  calls: number;
  /** Calls that succeeded. */
  succeeded: number;
  /** The calls that took longest, in milliseconds. */
  readonly slowest: { readonly label: string; readonly ms: number }[];
  /** Each kind of failure, by SQLSTATE. */
  readonly states: Map<string, number>;
  readonly wrong: string[];
}

/** Makes calls one after another in sessions side by side, and judges what they return. */
export async function attack(
  clients: readonly pg.Client[],
  role: AttackerRole,
  calls: readonly Call[],
  secrets: Secrets,
): Promise<Findings> {
  const findings: Findings = { calls: calls.length, succeeded: 0, slowest: [], states: new Map(), wrong: [] };
  let next = 0;
  const work = async (client: pg.Client): Promise<void> => {
    for (;;) {
      const call = calls[next++];
      if (call === undefined) return;
      const begun = performance.now();
      await make(client, call);
      const ms = Math.round(performance.now() - begun);
      if (ms > slowMs) findings.slowest.push({ label: call.label, ms });
    }
  };
  const make = async (client: pg.Client, { label, sql }: Call): Promise<void> => {
    const said: string[] = [];
    const onNotice = (notice: unknown): void => void said.push(JSON.stringify(notice));
    client.on("notice", onNotice);
    try {
      const result = await client.query({ text: sql, rowMode: "array" });
      findings.succeeded += 1;
      for (const each of [result].flat()) said.push(shown(each.rows));
    } catch (error) {
      const failure = error as pg.DatabaseError;
      const { code = "" } = failure;
      findings.states.set(code, (findings.states.get(code) ?? 0) + 1);
      const wrong = wrongError(label, failure);
      if (wrong !== undefined) findings.wrong.push(`${role}: ${label}: ${wrong}`);
      // Each by itself: a message may repeat an argument, and all together would be too long for a string.
      const { message, detail, hint, where, internalQuery } = failure;
      for (const part of [message, detail, hint, where, internalQuery]) if (part !== undefined) said.push(part);
      if (sql.startsWith("BEGIN")) await client.query("ROLLBACK");
    } finally {
      client.off("notice", onNotice);
    }
    const found = new Set(said.flatMap((part) => leaks(role, part, secrets)));
    for (const leak of found) findings.wrong.push(`${role}: ${label}: shows ${leak}`);
  };
  await Promise.all(clients.map(work));
  return findings;
}

/** Rows as text; `bytea` as hexadecimal digits, and as it reads. */
function shown(rows: readonly unknown[][]): string {
  const parts: string[] = [];
  const add = (value: unknown): void => {
    if (Buffer.isBuffer(value)) parts.push(value.toString("hex"));
    else if (typeof value === "object" && value !== null) {
      parts.push(JSON.stringify(value));
    } else parts.push(`${value}`);
  };
  for (const row of rows) for (const value of row) add(value);
  return parts.join("\n");
}
