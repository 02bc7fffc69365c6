/** Entry of the list in `objects.ts`. All operations of the installation iterate over these entries. */
import pg from "pg";
import type { Fault, State } from "./state.js";

/** Removable part of an object, if it exists. */
export interface Removal {
  /** For example, `the event trigger hawser_nats_server_drop`. */
  readonly what: string;
  readonly sql: string;
  /** Message if the part could not be removed, in place of the default one. */
  readonly left?: { readonly what: string; readonly meaning: string; readonly remedy: string };
}

/** Object of the installation. */
export interface InstalledObject {
  /** Kebab-case identifier. */
  readonly name: string;
  /** Short description of what `create` creates. Heading of its transaction. */
  readonly what: string;
  /** True if the object belongs to NATS from SQL; false if peers need it too. */
  readonly ofNats: boolean;
  /**
   * Transaction that creates or repairs the object. It is repeatable, and skips with a NOTICE what its role may not do.
   * A function receives the state after the creation of all earlier objects, or in a dry run that before the
   * installation; it returns undefined if the object cannot be created in that state.
   */
  readonly create?: string | ((state: State, dryRun: boolean) => string | undefined);
  /**
   * SELECTs of `nth`, `code`, `what` and `remedy` that find conflicts, in ASCII. They can join `input` with the columns
   * `place` (schema of the functions), `shared` (every role may use dblink) and `scripted` (called by the script of the
   * extension).
   */
  readonly conflicts?: string;
  /** Defects of the object. */
  faults(state: State): readonly Fault[];
  /** Statements that only a superuser can run for the current role, without semicolon, in order. */
  superuserStatements?(state: State): readonly string[];
  /** Uses that prevent the removal, and how to end them; undefined if there are none. */
  inUse?(state: State): string | undefined;
  /**
   * Parts that `hawser uninstall` removes. Functions are removed first, and nothing is removed while they are in
   * use.
   */
  removals?(state: State): readonly Removal[];
}

/** Runs a query of an inspection and returns its rows. */
export type RunQuery = <Row extends object>(text: string, ...values: unknown[]) => Promise<Row[]>;

export const { escapeIdentifier: identifier, escapeLiteral: literal } = pg;

/** Comma-separated SQL literals. */
export const literals = (values: readonly string[]): string => values.map(literal).join(", ");

/** SQL array of texts. */
export const textArray = (values: readonly string[]): string => `ARRAY[${literals(values)}]::text[]`;

/**
 * First statements of transactions, also of those that psql runs: fix the search_path, so that objects of other roles
 * cannot shadow the intended ones, and fail where row security would hide rows.
 */
export const pinnedPath = "SET LOCAL search_path = pg_catalog, pg_temp;\nSET LOCAL row_security = off;";

/** Settings of functions that an installation makes beside those of the spec, which `codegen/sql/function-settings.ts` explains. */
export const pinnedSettings = "SET search_path = pg_catalog, pg_temp\nSET jit = off";

/** Last part of remedies that make a repair possible. */
export const againText = "then run `hawser init` again";

/** Lists the first `most` items, and the number of the others. */
export function someOf(items: readonly string[], most: number): string {
  const more = items.length > most ? ` and ${items.length - most} more` : "";
  return `${items.slice(0, most).join(", ")}${more}`;
}

/** PL/pgSQL constant: owner of the schema `hawser`, who also owns the functions. */
export const ownerDeclaration =
  "owner CONSTANT name := (SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace AS n WHERE n.nspname = 'hawser');";

/**
 * PL/pgSQL block to run after objects were created. It revokes the privileges that ALTER DEFAULT PRIVILEGES granted on
 * them to other roles, and grants the owner the privileges that ALTER DEFAULT PRIVILEGES withheld.
 *
 * @param objects query of `object` (as in GRANT), `owner` and `acl`
 */
export function normalizePrivilegesSql(objects: string): string {
  return `DECLARE
      statement text;
    BEGIN
      FOR statement IN
        SELECT format('REVOKE ALL ON %s FROM %s CASCADE', o.object, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
        FROM (${objects}) AS o CROSS JOIN LATERAL aclexplode(o.acl) AS a
        WHERE a.grantee <> o.owner
        UNION
        SELECT format('GRANT ALL ON %s TO %I', o.object, pg_get_userbyid(o.owner)) FROM (${objects}) AS o
      LOOP
        EXECUTE statement;
      END LOOP;
    END;`;
}

/** Query for {@link normalizePrivilegesSql}: functions of a schema, as `p`. */
export function functionsOf(schema: string, condition = "true"): string {
  return `SELECT 'FUNCTION ' || p.oid::regprocedure AS object, p.proowner AS owner, coalesce(p.proacl, acldefault('f', p.proowner)) AS acl
        FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace(${literal(schema)}) AND ${condition}`;
}
