/**
 * What an inspection finds: the state of each object of the installation, what the present role may do about it, and what is
 * wrong with it.
 */
import type { ErrorCode } from "../errors/index.js";
import type { Grant } from "../store/index.js";

/** A database and the present role, as one inspection has found them. */
export interface State {
  /** The schema of the SQL functions. */
  readonly schema: string;
  /** What of the schema `hawser` is otherwise than this version makes it. */
  readonly schemaObjects: readonly Difference[];
  readonly roles: RolesState;
  readonly privileges: PrivilegesState;
  readonly dblink: DblinkState;
  readonly functions: FunctionsState;
  readonly bindings: BindingsState;
  readonly foreignData: ForeignDataState;
  /** Why Postgres has refused to make an object, by its name; of an installation that has just been made. */
  readonly refusals: ReadonlyMap<string, string>;
}

/** Something that is not as this version makes it. */
export interface Fault {
  /** `missing`: a privilege was missing to make it. `risk`: it works, and lets others do more than they should. */
  readonly kind: "missing" | "risk";
  /** What is so, with its values. */
  readonly what: string;
  /** What the installing role may not do, to follow "may not"; undefined where `what` says it. */
  readonly refused?: string | undefined;
  /** What that means for the users of the database; a risk says it in `what`. */
  readonly meaning?: string;
  /** `what` tells all that a reader has to know who does not install. */
  readonly isPlain?: boolean;
  /** What to do: a statement, or a sentence that begins with a small letter. */
  readonly remedy: string;
  /** The present role can mend it: an installation will, and a dry run does not name it. */
  readonly mendable?: boolean;
  /** The SQL functions are missing or fail because of it. */
  readonly essential?: boolean;
  /** How `hawser doctor` reports it. Default: a warning for a risk, else an error. */
  readonly severity?: "error" | "warning" | "note";
  readonly code?: ErrorCode;
  /** The role or the schema that it is about, where `hawser doctor` has more to say about that elsewhere. */
  readonly subject?: string;
  /** The check of `hawser doctor` that reports it. Default: the one that is named like the object. */
  readonly check?: string;
}

/** An object of the schema `hawser` that is not as this version makes it. */
export interface Difference {
  /** With its schema; of a column, a constraint, an index and a trigger its table. */
  readonly object: string;
  /** Such as `the function hawser.is_alive(integer, bigint)`. */
  readonly what: string;
  /** Such as `is missing`. */
  readonly how: string;
  /** The statements that make it anew. Either this or `remedy`. */
  readonly mend?: string;
  /** It is made, and not replaced: it has no privileges yet that somebody has granted. */
  readonly isNew?: boolean;
  /** It has data, or data cannot be written without it. */
  readonly isLost?: boolean;
  /** What people can do. */
  readonly remedy?: string;
}

/** What the present role may do, and what there is. */
export interface RolesState {
  readonly role: string;
  readonly database: string;
  readonly superuser: boolean;
  /** It may make roles. */
  readonly makesRoles: boolean;
  /** It may make the schema `hawser`, or that is there. */
  readonly makesSchema: boolean;
  /** The owner of the schema `hawser`; null where there is none yet. */
  readonly owner: string | null;
  /** A superuser would not touch the schema `hawser`, because of its owner. */
  readonly ownerIsStranger: boolean;
  /** The roles of Hawser that are not there. */
  readonly missing: readonly string[];
  /** The role is in hawser_owner with its rights, or the installation makes it a member. */
  readonly joins: boolean;
  /** The role is in hawser_owner. */
  readonly isMember: boolean;
  /** The role acts as the owner of each object of the schema. */
  readonly ownsAll: boolean;
  /** It may give the schema away. */
  readonly movesSchema: boolean;
  /** How many objects of the schema belong to others than hawser_owner. Sequences, indexes and row types go with their tables. */
  readonly otherOwners: readonly { readonly owner: string; readonly objects: number }[];
  readonly risks: readonly Fault[];
  /** Members that the roles have. */
  readonly members: readonly { readonly role: string; readonly members: readonly string[] }[];
}

/** What roles have, compared with what they are to have. */
export interface PrivilegesState {
  /** How many are wanted. */
  readonly wanted: number;
  /** Those of the wanted that are not there, those of a role together. What is not there lacks nothing. */
  readonly lacking: readonly (readonly Grant[])[];
  readonly excess: readonly ExcessFault[];
  readonly paths: readonly Fault[];
}

/** A role has more than it is to have. */
export interface ExcessFault extends Fault {
  /** Null: every role. */
  readonly role: string | null;
}

/** What there is of dblink. */
export interface DblinkState {
  /** Where it is installed; undefined if it is not. */
  readonly found:
    | {
        readonly schema: string;
        /** Made by `hawser init`, or by our extension. */
        readonly isOurs: boolean;
        /** Not the extension dblink, but some functions of its library. */
        readonly isBare: boolean;
        /** The present role may use all that the functions use. */
        readonly usable: boolean;
        /** The owner of the functions may, or the present role can let it. */
        readonly ownerUses: boolean;
      }
    | undefined;
  /** Postgres has it. */
  readonly available: boolean;
  /** {@link dblinkSchema} is there. */
  readonly hasSchema: boolean;
  /** Functions of dblink's library that every role may call. */
  readonly open: readonly {
    readonly signature: string;
    /** It is one of the extension dblink. */
    readonly isMember: boolean;
  }[];
  /** Other roles, not everybody, that may call functions of dblink's library. */
  readonly users: readonly string[];
}

/** A function as the catalogs of Postgres describe it. */
export interface FunctionDefinition {
  readonly name: string;
  /** The types of its arguments, as `format_type` prints them. */
  readonly types: string;
  /** As `pg_get_function_arguments` prints them. */
  readonly arguments: string;
  /** As `pg_get_function_result` prints it. */
  readonly result: string;
  readonly body: string;
}

/** A function with one of our names, wherever it is. */
export interface FoundFunction extends FunctionDefinition {
  /** As DROP FUNCTION names it. */
  readonly signature: string;
  readonly schema: string;
  readonly owner: string;
  /** Made by `hawser init`, and in hands that may replace it. */
  readonly isOurs: boolean;
  /** What its owner lacks of what the function reads: `USAGE on …`; empty if nothing. */
  readonly lacking: readonly string[];
  /** Its owner may use all that it uses of dblink. */
  readonly reachesDblink: boolean;
}

/** What there is of the functions. */
export interface FunctionsState {
  readonly found: readonly FoundFunction[];
  /** The body of `hawser.gateway_call`, through which all others reach the gateway; null if there is none. */
  readonly gatewayCall: string | null;
  /** The present role may make functions in the schema. */
  readonly creatable: boolean;
  /** `hawser_nats` may use the schema; true where the role or the schema is missing. */
  readonly usable: boolean;
  /** hawser_owner may make functions in it. */
  readonly ownerCreates: boolean;
  /** `hawser_nats` may use it, or the present role can let it. */
  readonly callersUse: boolean;
}

/** What there is for the functions that NATS reaches: schemas, view, login, and the functions themselves. */
export interface BindingsState {
  readonly hasRunSchema: boolean;
  readonly hasSubscriptionsSchema: boolean;
  readonly hasSubscriptionsView: boolean;
  /** Nothing in the place of something of ours belongs to others. */
  readonly isOurs: boolean;
  /** What is reached, as `public.capture on orders.*`. */
  readonly reached: readonly string[];
  /** The login by which wrappers are called; null where the role may not read which one it is, or it is not known yet. */
  readonly login: {
    readonly name: string;
    readonly exists: boolean;
    /** It is in hawser_executor, and `hawser_bridge` in it. */
    readonly joined: boolean;
  } | null;
}

/** What there is of the foreign data wrappers and event triggers, by our names. */
export interface ForeignDataState {
  /** The schema is there, and nothing in it belongs to anybody but superusers. */
  readonly hasSchema: boolean;
  readonly wrappers: readonly { readonly name: string; readonly isOurs: boolean }[];
  readonly eventTriggers: readonly {
    readonly name: string;
    readonly isOurs: boolean;
    /** It has the event and the tags of this version. */
    readonly isCurrent: boolean;
    readonly enabled: boolean;
  }[];
  /** Foreign servers of ours, with the names of their options, which every role can read with their values. */
  readonly servers: readonly { readonly name: string; readonly wrapper: string; readonly options: readonly string[] }[];
}
