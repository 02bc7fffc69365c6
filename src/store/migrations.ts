/**
 * The migrations, in their order.
 *
 * Until the first release there is one: the generated schema itself, which changes with the spec; a database that has
 * another version of it is refused and made anew. With the first release its text is frozen (a copy of the generated
 * SQL under `schema/migrations/`), and from then on a change of the spec comes with a numbered step that leads there from
 * the step before. `npm run verify` holds both ends together: the steps must end in what the spec generates.
 */
import { createHash } from "node:crypto";
import { natsOptionsFunctionsSql } from "../../generated/ts/nats-options/index.js";
import { errorsSchemaSql } from "../../generated/ts/sql/errors-schema.js";
import { natsSchemaSql } from "../../generated/ts/sql/nats-schema.js";
import { outboxSchemaSql } from "../../generated/ts/sql/outbox-schema.js";
import { peerSchemaSql } from "../../generated/ts/sql/peer-schema.js";

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
  errorsSchemaSql,
  natsOptionsFunctionsSql,
  natsSchemaSql,
  outboxSchemaSql,
].join("\n");

/** All migrations that this version knows. */
export const migrations: readonly Migration[] = [{ id: 1, name: "initial schema", sql: generatedSchemaSql }];

/** SHA-256 of a migration's SQL, in hex. */
export function checksumOf({ sql }: Migration): string {
  return createHash("sha256").update(sql).digest("hex");
}
