/** Roles and grants of the schema. */
import type pg from "pg";
import { natsOptionsGrantsSql } from "../../generated/ts/nats-options/index.js";
import { errorsGrantsSql } from "../../generated/ts/sql/errors-schema.js";
import { natsGrantsSql } from "../../generated/ts/sql/nats-schema.js";
import { outboxGrantsSql } from "../../generated/ts/sql/outbox-schema.js";
import { peerGrantsSql } from "../../generated/ts/sql/peer-schema.js";
import { isServerError } from "../postgres/index.js";
import { lockedTables } from "./migrations.js";
import type { Preparation } from "./preparation.js";

/**
 * SQL that creates the roles, grants and owners of the spec. Can be run repeatedly. The grants of the error functions
 * come last, because they go to all roles that exist by then.
 */
export const grantsSql = [peerGrantsSql, natsGrantsSql, outboxGrantsSql, natsOptionsGrantsSql, errorsGrantsSql].join(
  "\n",
);

/** Roles that {@link grantsSql} creates if they are missing. */
export const grantedRoles: readonly string[] = rolesIn(grantsSql);

/** Roles that generated SQL creates if they are missing. */
function rolesIn(sql: string): string[] {
  return [...new Set([...sql.matchAll(/^ *CREATE ROLE (\w+)/gm)].map(([, role]) => role!))];
}

/** Privilege of a role. */
export interface Grant {
  readonly role: string;
  readonly kind: "SCHEMA" | "TABLE" | "SEQUENCE" | "FUNCTION";
  /** Schema-qualified name; for a function, with its argument types. */
  readonly object: string;
  readonly privilege: string;
}

/** Grants of {@link grantsSql}, one entry per privilege. Includes grants to roles that it does not create. */
export const grants: readonly Grant[] = grantsIn(grantsSql);

/** Grants of generated SQL, one entry per privilege. */
export function grantsIn(sql: string): Grant[] {
  const statements = sql.matchAll(/^ *GRANT ([A-Z, ]+) ON (SCHEMA|TABLE|SEQUENCE|FUNCTION) (.+) TO (\w+);$/gm);
  return [...statements].flatMap(([, privileges, kind, object, role]) =>
    privileges!.split(", ").map((privilege) => ({
      role: role!,
      kind: kind as Grant["kind"],
      object: object!,
      privilege,
    })),
  );
}

/**
 * Creates roles, grants and owners. A refused statement does not prevent the others.
 *
 * @returns the server's message if all of it was refused; undefined otherwise
 */
export async function makeGrants(preparation: Preparation): Promise<string | undefined> {
  return (await tryTransaction(preparation, "make the grants", grantsSql))?.message;
}

/**
 * SQLSTATEs of a concurrent change of the same roles by another database of the cluster: internal error, unique
 * violation, serialization failure.
 */
const collisions = new Set(["XX000", "23505", "40001"]);
const collisionTries = 10;

/**
 * Runs statements in one transaction. Retries it after a collision with a concurrent change.
 *
 * @param action the failed action if a lock is not available, to follow "could not"
 * @returns the server's error if it refused; undefined otherwise
 * @throws HawserError `store_failed`, which names the sessions that hold the lock
 */
export async function tryTransaction(
  preparation: Preparation,
  action: string,
  sql: string,
): Promise<pg.DatabaseError | undefined> {
  for (let tries = 1; ; tries++) {
    try {
      await preparation.transaction(action, async () => void (await preparation.client.query(sql)), lockedTables(sql));
      return undefined;
    } catch (error) {
      if (!isServerError(error)) throw error;
      if (!collisions.has(error.code ?? "") || tries === collisionTries) return error;
    }
  }
}
