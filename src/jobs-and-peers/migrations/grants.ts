/** Roles and grants of the schema. */
import type pg from "pg";
import { isServerError } from "../../foundation/postgres/index.js";
import { grantsSql, lockedTables } from "./migrations.js";
import type { Preparation } from "./preparation.js";

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
  try {
    await runTransaction(preparation, action, sql, lockedTables(sql));
    return undefined;
  } catch (error) {
    if (isServerError(error)) return error;
    throw error;
  }
}

/**
 * Like {@link tryTransaction}, but throws the server's error.
 *
 * @param tables as in `Preparation.transaction`
 */
export async function runTransaction(
  preparation: Preparation,
  action: string,
  sql: string,
  tables: readonly string[],
): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await preparation.transaction(action, async () => void (await preparation.client.query(sql)), tables);
    } catch (error) {
      if (!isServerError(error) || !collisions.has(error.code ?? "") || tries === collisionTries) throw error;
    }
  }
}
