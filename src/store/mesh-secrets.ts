/**
 * Rotating the mesh secret: a new one is added, every peer learns of it and dials with it, and then the older is retired.
 * Between the two steps both are valid, so that no peer is shut out on the way.
 *
 * A secret is made by Postgres and never leaves it but to peers: it stands in no statement and in no log. The role of
 * peers may read the table and not write it; rotating is for `hawser_owner`, or the role that made the schema.
 */
import { type MeshSecretRow, tables } from "../../generated/ts/rows/peer.js";
import { HawserError } from "../errors/index.js";
import { insufficientPrivilege, sqlstateOf } from "../postgres/index.js";
import type { Database, Statement } from "./database.js";

/** A valid mesh secret, without the secret. */
interface MeshSecretEntry {
  /** Grows with each rotation. */
  readonly id: number;
  readonly createdAt: Date;
}

/** SQLSTATE: the row is there already. */
const uniqueViolation = "23505";

// The random bits of two UUIDs, as for the first secret: from Postgres's strong generator.
const newSecret = "decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')";
const entry = "id, created_at";

const sql = {
  list: `SELECT ${entry} FROM ${tables.meshSecret} ORDER BY id DESC`,
  // Two at once choose the same id, and its key lets one of them in.
  rotate: `INSERT INTO ${tables.meshSecret} (id, secret)
           SELECT coalesce(max(id), 0) + 1, ${newSecret} FROM ${tables.meshSecret} HAVING count(*) < 2
           RETURNING ${entry}`,
  retire: `DELETE FROM ${tables.meshSecret}
           WHERE id < (SELECT max(id) FROM ${tables.meshSecret}) RETURNING ${entry}`,
} as const;

/** The mesh secrets of a database. */
export function meshSecrets(database: Pick<Database, "query">) {
  const entries = async (action: string, statement: Statement): Promise<MeshSecretEntry[]> => {
    const rows = await database.query<Pick<MeshSecretRow, "id" | "created_at">>(action, statement);
    return rows.map(({ id, created_at: createdAt }) => ({ id, createdAt }));
  };
  return {
    /** The valid secrets, newest first: one, or two while one is rotated. */
    meshSecrets: (): Promise<MeshSecretEntry[]> => entries("list the mesh secrets", { text: sql.list }),
    /**
     * Adds a new secret; running peers hear of it at once and dial with it. The one before stays valid.
     *
     * @throws HawserError `rotation_refused` if two are valid already; `store_failed` if the role may not
     */
    async rotateSecret(): Promise<MeshSecretEntry> {
      const added = await entries("rotate the mesh secret", { text: sql.rotate }).catch((error: HawserError) => {
        if (sqlstateOf(error) === uniqueViolation) return [];
        throw namingOwners(error);
      });
      if (added[0] !== undefined) return added[0];
      throw new HawserError(
        "rotation_refused",
        "two mesh secrets are valid already; retire the older one before another is added",
      );
    },
    /**
     * Takes away the secrets before the newest: a peer that knows no newer one is refused from then on. Connections that were
     * made before go on.
     *
     * @returns what was taken away
     * @throws HawserError `rotation_refused` if there is but one; `store_failed` if the role may not
     */
    async retireSecret(): Promise<MeshSecretEntry[]> {
      const retired = await entries("retire the older mesh secret", { text: sql.retire }).catch(
        (error: HawserError) => {
          throw namingOwners(error);
        },
      );
      if (retired.length > 0) return retired;
      throw new HawserError(
        "rotation_refused",
        "there is but one mesh secret, which peers need; rotate first, then retire the older one",
      );
    },
  };
}

/** The steps of a rotation. */
export type MeshSecrets = ReturnType<typeof meshSecrets>;

/** The error, with the roles that may where the present role may not. */
export function namingOwners(error: HawserError): HawserError {
  if (sqlstateOf(error) !== insufficientPrivilege) return error;
  const message = `${error.message}; use a role that is a member of hawser_owner, or the one that made the schema`;
  return new HawserError(error.code, message, { cause: error.cause });
}
