/**
 * The roles and grants of the schema: who may do what.
 */
import type pg from "pg";
import { natsOptionsGrantsSql } from "../../generated/ts/nats-options/index.js";
import { errorsGrantsSql } from "../../generated/ts/sql/errors-schema.js";
import { natsGrantsSql } from "../../generated/ts/sql/nats-schema.js";
import { outboxGrantsSql } from "../../generated/ts/sql/outbox-schema.js";
import { peerGrantsSql } from "../../generated/ts/sql/peer-schema.js";
import { isServerError } from "../postgres/index.js";
import type { Preparation } from "./preparation.js";

/**
 * Makes the roles, grants and owners as the spec has them, whatever they were. May be run again and again. Those of the
 * errors come last: they are for all roles that are there by then.
 */
export const grantsSql = [peerGrantsSql, natsGrantsSql, outboxGrantsSql, natsOptionsGrantsSql, errorsGrantsSql].join(
  "\n",
);

/** The roles that {@link grantsSql} makes where they are missing. */
export const grantedRoles: readonly string[] = rolesIn(grantsSql);

/** The roles that generated SQL makes where they are missing. */
function rolesIn(sql: string): string[] {
  return [...new Set([...sql.matchAll(/^ *CREATE ROLE (\w+)/gm)].map(([, role]) => role!))];
}

/** A privilege that a role is to have. */
export interface Grant {
  readonly role: string;
  readonly kind: "SCHEMA" | "TABLE" | "SEQUENCE" | "FUNCTION";
  /** With its schema, and a function with its argument types. */
  readonly object: string;
  readonly privilege: string;
}

/** What {@link grantsSql} grants, one entry for each privilege; of roles that it does not make, too. */
export const grants: readonly Grant[] = grantsIn(grantsSql);

/** What generated SQL grants, one entry for each privilege. */
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
 * Makes roles, grants and owners. What the role may not do does not keep it from doing the rest.
 *
 * @returns why all of it was refused; undefined if it was not
 */
export async function makeGrants(preparation: Preparation): Promise<string | undefined> {
  return (await tryTransaction(preparation, "make the grants", grantsSql))?.message;
}

/** Another database of the cluster changes the same roles at the same moment: internal error, and unique violation. */
const collisions = new Set(["XX000", "23505", "40001"]);
const collisionTries = 10;

/**
 * Runs statements in one transaction, again where others came between.
 *
 * @param action what could not be done if a lock is not to be had, to follow "could not"
 * @returns why Postgres refused; undefined if it did not
 * @throws HawserError `store_failed`, which names the sessions in the way
 */
export async function tryTransaction(
  preparation: Preparation,
  action: string,
  sql: string,
): Promise<pg.DatabaseError | undefined> {
  for (let tries = 1; ; tries++) {
    try {
      await preparation.transaction(action, async () => void (await preparation.client.query(sql)));
      return undefined;
    } catch (error) {
      if (!isServerError(error)) throw error;
      if (!collisions.has(error.code ?? "") || tries === collisionTries) return error;
    }
  }
}
