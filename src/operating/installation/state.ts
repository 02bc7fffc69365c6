/**
 * Result of an inspection: the state of each object of the installation, the abilities of the current role, and the
 * faults.
 */
import type { NatsFunction } from "../../../generated/ts/nats-functions/sql.js";
import type { ErrorCode } from "../../foundation/errors/index.js";
import type { Grant, StateDifference } from "../../jobs-and-peers/migrations/index.js";

/** State of a database for the current role, as of one inspection. */
export interface State {
  /** Schema of the SQL functions. */
  readonly schema: string;
  /** Differences of the tables from the state in which Hawser creates them. */
  readonly tables: readonly StateDifference[];
  /** Differences of the schema `hawser` from this version. */
  readonly schemaObjects: readonly Difference[];
  readonly roles: RolesState;
  readonly privileges: PrivilegesState;
  readonly dblink: DblinkState;
  readonly functions: FunctionsState;
  readonly bindings: BindingsState;
  readonly foreignData: ForeignDataState;
  /** Reasons why Postgres refused to create objects, by object name. Set by the installation that has just run. */
  readonly refusals: ReadonlyMap<string, string>;
}

/** Defect of the installation. */
export interface Fault {
  /** `missing`: an object or privilege is missing. `risk`: it works, but other roles can do more than intended. */
  readonly kind: "missing" | "risk";
  /** Description of the fault, with its values. */
  readonly what: string;
  /**
   * Action that the installing role may not do, as a verb phrase after "may not"; undefined if `what` already says it.
   */
  readonly refused?: string | undefined;
  /** Consequence for users of the database. For a risk, `what` says it. */
  readonly meaning?: string;
  /** True if `what` is enough for a reader who does not run the installation. */
  readonly isPlain?: boolean;
  /** Repair: a statement, or a sentence that starts with a lowercase letter. */
  readonly remedy: string;
  /**
   * True if the current role can repair the fault. An installation will repair it, and a dry run does not report it.
   */
  readonly repairable?: boolean;
  /** True if the SQL functions are missing or fail because of it. */
  readonly essential?: boolean;
  /** Severity in `hawser doctor`. Default: a warning for a risk, otherwise an error. */
  readonly severity?: "error" | "warning" | "note";
  readonly code?: ErrorCode;
  /** Role or schema concerned, if another check of `hawser doctor` reports more about it. */
  readonly subject?: string;
  /** Check of `hawser doctor` that reports it. Default: the check with the name of the object. */
  readonly check?: string;
}

/** Object of the schema `hawser` that differs from this version. */
export interface Difference {
  /** Schema-qualified name; for a column, constraint, index or trigger, that of its table. */
  readonly object: string;
  /** For example, `the function hawser.is_alive(integer, bigint)`. */
  readonly what: string;
  /** For example, `is missing`. */
  readonly how: string;
  /** Statements that create it again. Either this or `remedy` is set. */
  readonly repair?: string;
  /** True if the object is created rather than replaced, so that other roles have no grants on it. */
  readonly isNew?: boolean;
  /** True if it contains data, or if data cannot be written without it. */
  readonly isLost?: boolean;
  /** Manual repair. */
  readonly remedy?: string;
}

/** Abilities of the current role, and existing roles. */
export interface RolesState {
  readonly role: string;
  readonly database: string;
  readonly superuser: boolean;
  /** True if the role may create roles. */
  readonly makesRoles: boolean;
  /** True if the role may create the schema `hawser`, or if the schema exists. */
  readonly makesSchema: boolean;
  /** Owner of the schema `hawser`; null if the schema does not exist. */
  readonly owner: string | null;
  /** True if superusers must not use the schema `hawser`, because its owner is not trusted. */
  readonly ownerIsUntrusted: boolean;
  /** Missing roles of Hawser. */
  readonly missing: readonly string[];
  /** True if the role has the privileges of hawser_owner, or if the installation can make it a member. */
  readonly joins: boolean;
  /** True if the role is a member of hawser_owner. */
  readonly isMember: boolean;
  /** True if the role can act as the owner of every object of the schema. */
  readonly ownsAll: boolean;
  /** True if the role may change the owner of the schema. */
  readonly movesSchema: boolean;
  /**
   * Number of objects of the schema by owners other than hawser_owner. Sequences, indexes and row types go with their
   * tables.
   */
  readonly otherOwners: readonly { readonly owner: string; readonly objects: number }[];
  readonly risks: readonly Fault[];
  /** Members of the roles. */
  readonly members: readonly { readonly role: string; readonly members: readonly string[] }[];
}

/** Privileges of roles, compared with the required ones. */
export interface PrivilegesState {
  /** Number of required grants. */
  readonly wanted: number;
  /** Missing grants, grouped by role. An object that does not exist counts as no missing grant. */
  readonly lacking: readonly (readonly Grant[])[];
  readonly excess: readonly ExcessFault[];
  readonly paths: readonly Fault[];
}

/** Privileges of a role beyond the required ones. */
export interface ExcessFault extends Fault {
  /** Null for PUBLIC. */
  readonly role: string | null;
}

/** State of dblink. */
export interface DblinkState {
  /** Undefined if it is not installed. */
  readonly found:
    | {
        readonly schema: string;
        /** True if `hawser init` or our extension created it. */
        readonly isOurs: boolean;
        /** True for single functions of its library instead of the extension dblink. */
        readonly isBare: boolean;
        /** True if the current role may use all dblink functions in use. */
        readonly usable: boolean;
        /** True if the owner of the functions may use it, or if the current role can grant that. */
        readonly ownerUses: boolean;
      }
    | undefined;
  /** True if the server has dblink. */
  readonly available: boolean;
  /** True if {@link dblinkSchema} exists. */
  readonly hasSchema: boolean;
  /** Functions of dblink's library that every role may call. */
  readonly open: readonly {
    readonly signature: string;
    /** True if it belongs to the extension dblink. */
    readonly isMember: boolean;
  }[];
  /** Roles other than PUBLIC that may call functions of dblink's library. */
  readonly users: readonly string[];
}

/** Function with one of our names, in any schema. */
export interface FoundFunction extends Omit<NatsFunction, "statement"> {
  readonly body: string;
  /** Signature in the form that DROP FUNCTION expects. */
  readonly signature: string;
  readonly owner: string;
  /** True if `hawser init` created it and only trusted roles can replace it. */
  readonly isOurs: boolean;
  /** Privileges that its owner lacks for objects that the function reads: `USAGE on …`. */
  readonly lacking: readonly string[];
  /** True if its owner may use all dblink functions in use. */
  readonly reachesDblink: boolean;
}

/** State of the SQL functions. */
export interface FunctionsState {
  readonly found: readonly FoundFunction[];
  /** Body of `hawser.gateway_call`, through which all others reach the gateway; null if it does not exist. */
  readonly gatewayCall: string | null;
  /** True if the current role may create functions in the schema. */
  readonly creatable: boolean;
  /** True if `hawser_nats` may use the schema, or if the role or the schema does not exist. */
  readonly usable: boolean;
  /** True if hawser_owner may create functions in it. */
  readonly ownerCreates: boolean;
  /** True if `hawser_nats` may use it, or if the current role can grant that. */
  readonly callersUse: boolean;
}

/** State of the objects for bound functions: schemas, view, login, and the functions themselves. */
export interface BindingsState {
  readonly hasRunSchema: boolean;
  readonly hasSubscriptionsSchema: boolean;
  readonly hasSubscriptionsView: boolean;
  /** True if no object of another role is in the place of one of ours. */
  readonly isOurs: boolean;
  /** Bound functions with their subjects, such as `public.capture on orders.*`. */
  readonly reached: readonly string[];
  /** Login that calls the wrappers; null if the current role may not read its name, or if it has no name yet. */
  readonly login: {
    readonly name: string;
    readonly exists: boolean;
    /** True if the login is a member of hawser_executor, and hawser_bridge is a member of the login. */
    readonly joined: boolean;
  } | null;
}

/** State of the foreign data wrappers and event triggers with our names. */
export interface ForeignDataState {
  /** True if the schema exists and all its objects belong to superusers. */
  readonly hasSchema: boolean;
  readonly wrappers: readonly { readonly name: string; readonly isOurs: boolean }[];
  readonly eventTriggers: readonly {
    readonly name: string;
    readonly isOurs: boolean;
    /** True if it has the event and the tags of this version. */
    readonly isCurrent: boolean;
    readonly enabled: boolean;
  }[];
  /** Our foreign servers with the names of their options. Every role can read the options with their values. */
  readonly servers: readonly { readonly name: string; readonly wrapper: string; readonly options: readonly string[] }[];
}
