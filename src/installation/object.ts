/**
 * What an object of the installation is: an entry of the list in `objects.ts`. Whatever is done with the installation folds
 * over these entries.
 */
import pg from "pg";
import type { Fault, State } from "./state.js";

/** A part of an object that can be removed, and is there. */
export interface Removal {
  /** Such as `the event trigger hawser_nats_server_drop`. */
  readonly what: string;
  readonly sql: string;
  /** What to say instead of the usual sentences where it could not be removed. */
  readonly left?: { readonly what: string; readonly meaning: string; readonly remedy: string };
}

/** An object of the installation. */
export interface InstalledObject {
  /** Of words with hyphens. */
  readonly name: string;
  /** What `create` makes, in a few words; heading of its transaction. */
  readonly what: string;
  /** It belongs to NATS from SQL; else peers need it, too. */
  readonly ofNats: boolean;
  /**
   * Makes or mends it: one transaction, which may be run again, and which leaves out with a NOTICE what its role may not do.
   * A function is given the state after all objects before it were made, in a dry run as it is foreseen; undefined: it cannot be
   * made in that state.
   */
  readonly create?: string | ((state: State, dryRun: boolean) => string | undefined);
  /** The state after the present role has made it, as far as other objects depend on that. */
  foresee?(state: State): State;
  /**
   * SELECTs of `nth`, `code`, `what` and `remedy`, in ASCII: what is in the way. They may join `input`, which has `place`
   * (the schema of the functions), `shared` (every role may use dblink) and `scripted` (asked by the script of the extension).
   */
  readonly conflicts?: string;
  /** What is not as it should be. */
  faults(state: State): readonly Fault[];
  /** Statements that only a superuser can run for the present role, each without its semicolon, in their order. */
  superuserStatements?(state: State): readonly string[];
  /** Why it must not be removed: what uses it, and what ends that. */
  inUse?(state: State): string | undefined;
  /** What `hawser uninstall` removes of it. The functions go first, and nothing goes while they are in use. */
  removals?(state: State): readonly Removal[];
}

/** One inspection: runs a query and returns its rows. */
export type Ask = <Row extends object>(text: string, ...values: unknown[]) => Promise<Row[]>;

export const { escapeIdentifier: identifier, escapeLiteral: literal } = pg;

/** A list of SQL literals. */
export const literals = (values: readonly string[]): string => values.map(literal).join(", ");

/** An SQL array of texts. */
export const textArray = (values: readonly string[]): string => `ARRAY[${literals(values)}]::text[]`;

/** Begins the text of transactions: nothing that others have put on the path comes before what is meant. */
export const pinnedPath = "SET LOCAL search_path = pg_catalog, pg_temp;";

/** The end of remedies that make something possible. */
export const againText = "then run `hawser init` again";

/** The first few, and how many more there are. */
export function someOf(items: readonly string[], most: number): string {
  const more = items.length > most ? ` and ${items.length - most} more` : "";
  return `${items.slice(0, most).join(", ")}${more}`;
}

/** The owner of the schema `hawser`, to which the functions belong, too: a constant of PL/pgSQL. */
export const ownerDeclaration =
  "owner CONSTANT name := (SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace AS n WHERE n.nspname = 'hawser');";

/**
 * A block of PL/pgSQL that follows the making of objects: revokes what ALTER DEFAULT PRIVILEGES has granted on them to
 * others, and grants the owner what it has left out.
 *
 * @param objects a query of `object` as GRANT names it, `owner` and `acl`
 */
export function closeSql(objects: string): string {
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

/** The query of {@link closeSql} for the functions of a schema, as `p`. */
export function functionsOf(schema: string, condition = "true"): string {
  return `SELECT 'FUNCTION ' || p.oid::regprocedure AS object, p.proowner AS owner, coalesce(p.proacl, acldefault('f', p.proowner)) AS acl
        FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace(${literal(schema)}) AND ${condition}`;
}
