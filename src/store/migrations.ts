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
  /** Runs in one transaction: no CREATE INDEX CONCURRENTLY, no VACUUM. */
  readonly sql: string;
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
