/**
 * The migrations, in their order.
 *
 * The texts of released steps are frozen: they are files in `schema/migrations/`. The step of the next release follows the
 * spec until then. It is put together from what a file there says about old tables, from the new tables of the spec, and
 * from all functions of the spec. `npm run verify` holds both ends together: the steps must end in what the spec
 * generates.
 */
import { createHash } from "node:crypto";
import { natsOptionsFunctionsSql } from "../../generated/ts/nats-options/index.js";
import { errorsFunctionsSql } from "../../generated/ts/sql/errors-schema.js";
import { nextMigration, releasedMigrations } from "../../generated/ts/sql/migrations.js";
import { natsFunctionsSql, natsSchemaSql } from "../../generated/ts/sql/nats-schema.js";
import { outboxFunctionsSql, outboxSchemaSql } from "../../generated/ts/sql/outbox-schema.js";
import { peerFunctionsSql, peerSchemaSql } from "../../generated/ts/sql/peer-schema.js";

/** A step from one version of the schema to the next. */
export interface Migration {
  /** Its place: 1, 2, 3, … without a gap. */
  readonly id: number;
  /** What it does, in a few words. */
  readonly name: string;
  /** Its {@link partsOf parts}. The last one runs in the transaction in which the step is recorded. */
  readonly sql: string;
}

/** A part of a step. */
export interface MigrationPart {
  readonly sql: string;
  /** False: one statement that runs outside of a transaction. */
  readonly isTransaction: boolean;
  /** The index that the part makes concurrently. */
  readonly index?: string | undefined;
  /** The tables that it locks against readers and writers, as its statements name them. */
  readonly tables: readonly string[];
}

/** The line between two parts, which the generator of the step knows, too. */
const partLine = "-- Next part.\n";

/** Statements that take long and hold up nobody who reads or writes. */
const outsideTransaction =
  /^(?:--.*\n|\s)*(?:(?:CREATE (?:UNIQUE )?|DROP )INDEX CONCURRENTLY\b|ALTER TABLE \S+ VALIDATE CONSTRAINT\b)/;

/** At the beginning of a line: not in the body of a function. */
const lockingStatement =
  /^(?:(?:ALTER|DROP|LOCK|TRUNCATE) TABLE (?:IF EXISTS |ONLY )*|(?:CREATE (?:UNIQUE )?INDEX|(?:CREATE|DROP) TRIGGER)[^;]*? ON )(hawser\.\w+(?:,\s*hawser\.\w+)*)/gm;

/**
 * The parts of a step, in their order. All but the last may run again, after a failure in between.
 *
 * @param isNew the database has no step yet, so that nobody works in it: the step is one part, in which indexes are made at once
 */
export function partsOf({ sql }: Migration, isNew = false): MigrationPart[] {
  const texts = sql.split(partLine);
  if (isNew) {
    const text = texts.map((part) => part.replace("INDEX CONCURRENTLY", "INDEX")).join("");
    return [{ sql: text, isTransaction: true, tables: [] }];
  }
  return texts.map((part, n, all) => {
    const isTransaction = n === all.length - 1 || !outsideTransaction.test(part);
    const index = isTransaction ? undefined : /\bCREATE (?:UNIQUE )?INDEX CONCURRENTLY (\w+)/.exec(part)?.[1];
    const lists = isTransaction ? [...part.matchAll(lockingStatement)].map(([, list]) => list!) : [];
    const names = lists.flatMap((list) => list.split(/,\s*/)).map((name) => name.slice("hawser.".length));
    return { sql: part, isTransaction, index, tables: [...new Set(names)] };
  });
}

/** The whole schema as the spec has it, without grants. */
export const generatedSchemaSql = [
  peerSchemaSql,
  errorsFunctionsSql,
  natsOptionsFunctionsSql,
  natsSchemaSql,
  outboxSchemaSql,
].join("\n");

/** Each of them replaces the one that is there. */
const functionsSql = [
  peerFunctionsSql,
  errorsFunctionsSql,
  natsOptionsFunctionsSql,
  natsFunctionsSql,
  outboxFunctionsSql,
].join("\n");

/** All migrations that this version knows. */
export const migrations: readonly Migration[] = [
  ...releasedMigrations,
  ...(nextMigration === undefined ? [] : [{ ...nextMigration, sql: `${nextMigration.sql}\n${functionsSql}` }]),
];

/** SHA-256 of a migration's SQL, in hex. */
export function checksumOf({ sql }: Migration): string {
  return createHash("sha256").update(sql).digest("hex");
}
