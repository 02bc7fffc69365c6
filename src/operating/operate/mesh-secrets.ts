/**
 * Rotation of the mesh secret: a new secret is added, all peers learn it and dial with it, then the old one is retired.
 * Both are valid in between, so that no peer is locked out.
 *
 * Postgres generates the secret and sends it only to peers: it appears in no statement and no log. The peers' role can
 * read the table but not write it; rotation requires `hawser_owner` or the role that created the schema.
 */
import { type MeshSecretRow, tables } from "../../../generated/ts/rows/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import { lacksPrivilege, sqlstateOf } from "../../foundation/postgres/index.js";
import type { Database, Statement } from "../../jobs-and-peers/store/index.js";

/** Valid mesh secret, without its bytes. */
interface MeshSecretEntry {
  /** Grows with each rotation. */
  readonly id: number;
  readonly createdAt: Date;
}

/** SQLSTATE unique_violation. */
const uniqueViolation = "23505";

// Random bits of two UUIDs, as for the first secret, from the strong generator of Postgres.
const newSecret = "decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')";
const entry = "id, created_at";

const sql = {
  list: `SELECT ${entry} FROM ${tables.meshSecret} ORDER BY id DESC`,
  // Two concurrent rotations choose the same id, and the primary key admits one of them.
  rotate: `INSERT INTO ${tables.meshSecret} (id, secret)
           SELECT coalesce(max(id), 0) + 1, ${newSecret} FROM ${tables.meshSecret} HAVING count(*) < 2
           RETURNING ${entry}`,
  retire: `DELETE FROM ${tables.meshSecret}
           WHERE id < (SELECT max(id) FROM ${tables.meshSecret}) RETURNING ${entry}`,
} as const;

/** Mesh-secret functions of a database. */
export function meshSecrets(database: Pick<Database, "query">) {
  const entries = async (action: string, statement: Statement): Promise<MeshSecretEntry[]> => {
    const rows = await database.query<Pick<MeshSecretRow, "id" | "created_at">>(action, statement);
    return rows.map(({ id, created_at: createdAt }) => ({ id, createdAt }));
  };
  return {
    /** Lists the valid secrets, newest first: one, or two during a rotation. */
    meshSecrets: (): Promise<MeshSecretEntry[]> => entries("list the mesh secrets", { text: sql.list }),
    /**
     * Adds a new secret. Running peers are notified and dial with it. The previous secret stays valid.
     *
     * @throws HawserError `rotation_refused` if two are already valid; `store_failed` if the role lacks the privilege
     */
    async rotateSecret(): Promise<MeshSecretEntry> {
      const added = await entries("rotate the mesh secret", { text: sql.rotate }).catch((error: HawserError) => {
        if (sqlstateOf(error) === uniqueViolation) return [];
        throw namingOwners(error);
      });
      if (added[0] !== undefined) return added[0];
      throw new HawserError(
        "rotation_refused",
        "two mesh secrets are already valid; retire the older one before you add another",
      );
    },
    /**
     * Deletes all secrets but the newest. Peers that know only older ones are refused from then on. Existing
     * connections continue.
     *
     * @returns the deleted secrets
     * @throws HawserError `rotation_refused` if there is only one; `store_failed` if the role lacks the privilege
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
        "there is only one mesh secret, which peers need; rotate first, then retire the older one",
      );
    },
  };
}

/** Mesh-secret functions of a database. */
export type MeshSecrets = ReturnType<typeof meshSecrets>;

/** Adds the roles that have the privilege to the error of a role that lacks it. Other errors pass unchanged. */
export function namingOwners(error: HawserError): HawserError {
  if (!lacksPrivilege(error)) return error;
  const message = `${error.message}; use a role that is a member of hawser_owner, or the role that created the schema`;
  return new HawserError(error.code, message, { cause: error.cause });
}
