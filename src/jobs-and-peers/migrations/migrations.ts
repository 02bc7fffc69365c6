/**
 * The schema that this program brings: tables by numbered steps, functions and views as a whole.
 *
 * The SQL of released steps is frozen in `schema/migrations/`. The step of the next release follows the spec until its
 * release. It consists of the changes to old tables from a file there, and the new tables of the spec. Functions, views,
 * triggers and grants are those of the spec, and run behind the last step. `npm run verify` checks that the result is the
 * schema that the spec generates.
 */
import { createHash } from "node:crypto";
import { natsOptionsFunctionsSql, natsOptionsGrantsSql } from "../../../generated/ts/nats-options/index.js";
import { errorsFunctionsSql, errorsGrantsSql } from "../../../generated/ts/sql/errors-schema.js";
import { droppedObjects, nextMigration, releasedMigrations } from "../../../generated/ts/sql/migrations.js";
import { natsFunctionsSql, natsGrantsSql, natsSchemaSql } from "../../../generated/ts/sql/nats-schema.js";
import { outboxFunctionsSql, outboxGrantsSql, outboxSchemaSql } from "../../../generated/ts/sql/outbox-schema.js";
import { peerFunctionsSql, peerGrantsSql, peerSchemaSql } from "../../../generated/ts/sql/peer-schema.js";
import { queueFunctionsSql, queueGrantsSql, queueSchemaSql } from "../../../generated/ts/sql/queue-schema.js";

/** Step from one version of the schema to the next. */
export interface Migration {
  /** Sequence number: 1, 2, 3, … without gaps. */
  readonly id: number;
  /** Short description. */
  readonly name: string;
  /** Number of the last step that a program must know at least to work with this one. */
  readonly oldestProgram: number;
  /** SQL of all {@link partsOf parts}. The last part runs in the transaction that records the step. */
  readonly sql: string;
}

/** Schema that a program brings. */
export interface ProgramSchema {
  /** Steps in order. */
  readonly steps: readonly Migration[];
  /** Creates or replaces functions, views and triggers, and makes the grants. Can be run repeatedly. */
  readonly functions: string;
  /**
   * Statements that drop functions and views of released programs which this one lacks, or declares otherwise: each with
   * the last step at which they were there. Those with `last` run after `functions`, the others before.
   */
  readonly dropped: readonly { readonly step: number; readonly last: boolean; readonly sql: string }[];
}

/** Part of a step. */
export interface MigrationPart {
  readonly sql: string;
  /** False for a single statement that runs outside a transaction. */
  readonly isTransaction: boolean;
  /** Index that the part creates concurrently. */
  readonly index?: string | undefined;
  /** Tables that it locks against readers or writers. */
  readonly tables: readonly string[];
}

/** Separator line between two parts. The generator of the step writes it too. */
const partLine = "-- Next part.\n";

/** Slow statements that block neither readers nor writers. */
const outsideTransaction =
  /^(?:--.*\n|\s)*(?:(?:CREATE (?:UNIQUE )?|DROP )INDEX CONCURRENTLY\b|ALTER TABLE \S+ VALIDATE CONSTRAINT\b)/;

/** Matches only at the start of a line, to skip function bodies. */
const lockingStatement =
  /^(?:(?:ALTER|DROP|LOCK|TRUNCATE) TABLE (?:IF EXISTS |ONLY )*|(?:CREATE (?:UNIQUE )?INDEX|(?:CREATE|DROP) TRIGGER)[^;]*? ON )(hawser\w*_data\.\w+(?:,\s*hawser\w*_data\.\w+)*)/gm;

/**
 * Parts of a step, in order. All parts but the last may run again after a failure.
 *
 * @param isNew true if the database has no step yet, so that it has no users: the step is then one part, in which
 * indexes are created without CONCURRENTLY
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
    return { sql: part, isTransaction, index, tables: isTransaction ? lockedTables(part) : [] };
  });
}

/** Tables that a script locks against readers or writers, without their schema. */
export function lockedTables(sql: string): string[] {
  const names = [...sql.matchAll(lockingStatement)].flatMap(([, list]) => list!.split(/,\s*/));
  return [...new Set(names.map((name) => name.slice(name.indexOf(".") + 1)))];
}

/** Whole schema of the spec, without grants. */
export const generatedSchemaSql = [
  peerSchemaSql,
  errorsFunctionsSql,
  natsOptionsFunctionsSql,
  natsSchemaSql,
  queueSchemaSql,
  // Behind what its views call.
  outboxSchemaSql,
].join("\n");

/**
 * SQL that creates the roles, grants and owners of the spec. Can be run repeatedly. The grants of the error functions
 * come last, because they go to all roles that exist by then.
 */
export const grantsSql = [
  peerGrantsSql,
  natsGrantsSql,
  outboxGrantsSql,
  queueGrantsSql,
  natsOptionsGrantsSql,
  errorsGrantsSql,
].join("\n");

/** All migrations that this version knows. */
export const migrations: readonly Migration[] = [
  ...releasedMigrations,
  ...(nextMigration === undefined ? [] : [nextMigration]),
];

/** Schema of this version. */
export const programSchema: ProgramSchema = {
  steps: migrations,
  functions: [
    peerFunctionsSql,
    errorsFunctionsSql,
    natsOptionsFunctionsSql,
    natsFunctionsSql,
    queueFunctionsSql,
    outboxFunctionsSql,
    grantsSql,
  ].join("\n"),
  dropped: droppedObjects,
};

/** SHA-256 of a migration's SQL, in hex. */
export function checksumOf({ sql }: Migration): string {
  return sha256(sql);
}

/** SHA-256 of the functions, views and grants of a program, in hex. */
export function functionsChecksum({ functions }: ProgramSchema): string {
  return sha256(functions);
}

export function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
