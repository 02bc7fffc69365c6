/**
 * What `hawser init` makes in a database: one list of objects, and folds over it.
 *
 * **The objects**, in the order in which they are made (`objects.ts`):
 *
 * | object | what | who may make it |
 * |---|---|---|
 * | schema | the schema `hawser`, by the migrations of the store | a role with CREATE on the database |
 * | schema-objects | functions, views and triggers of that schema that were dropped or changed since | the owner of the schema |
 * | roles | hawser_owner, hawser_peer, …, and whose the objects of the schema are | a role that may make roles; membership of hawser_owner to give objects to it |
 * | grants | what the roles may do with the schema | the owner of the schema |
 * | dblink | dblink in a schema that only the owner of the functions may use | a superuser; the installing role may use one that was made for it |
 * | functions | the SQL functions that reach NATS | a role that may make functions in their schema |
 * | bindings | the schema of wrappers, the view of subscriptions, the login that calls bound functions | CREATE on the database; for the login a role that may make roles |
 * | foreign-data | the foreign data wrappers, and the schema of what superusers run | a superuser |
 * | event-triggers | those that follow the definition of the NATS server | a superuser |
 *
 * The first four are what peers need; the others are NATS from SQL, and `--no-nats` leaves them out.
 *
 * **An entry** (`object.ts`) says how its object is made (`create`: one transaction of SQL, which may be run again and leaves out
 * with a NOTICE what its role may not do), what may be in its way (`conflicts`), what is wrong with it (`faults`), which
 * statements a superuser has to run for the present role (`superuserStatements`), what must not be using it when it is removed
 * (`inUse`), and how its parts are removed (`removals`). An inspection (`inspect`, with a part in each object's file) reads the
 * catalogs once, and all but `create` and `conflicts` are functions of the `State` that it returns (`state.ts`).
 *
 * **The folds:**
 *
 * - `install` refuses conflicts, makes one object after the other, inspects, and reports the faults: those of the kind `missing`
 *   as missing privileges, the others as warnings. A refused object does not keep the next one from being made.
 * - A dry run prints the transactions instead, and reports the faults that the present role could not mend.
 * - `uninstall` refuses while something is in use; then it drops the functions, all or none, and every other part by itself.
 * - The script of the extension (`extension/`) runs the same conflicts and the same transactions in one block of PL/pgSQL.
 * - `hawser doctor` reports the faults, each under the check that the fault names.
 *
 * Nothing is read or made before it is known that the schema `hawser` is Hawser's (`inspectSchema` of the store): the installing
 * role may be a superuser, and somebody else's schema could hold code that would run with its rights. For the same reason all SQL
 * here runs with the path `pg_catalog, pg_temp`.
 *
 * How to add an object: schema/README.md, "An installed object".
 */

export { dblinkSchema, usedDblinkFunctions } from "./dblink.js";
export {
  type ExtensionReport,
  extensionFiles,
  extensionName,
  findServerDirectories,
  installExtension,
  type ServerDirectories,
  uninstallExtension,
} from "./extension/index.js";
export { publicFunctionCount } from "./functions.js";
export {
  type InstallOptions,
  type InstallReport,
  install,
  type MissingPrivilege,
  type UninstallReport,
  uninstall,
} from "./install.js";
export { someOf } from "./object.js";
export { faultsOf, hasNats, inspect } from "./objects.js";
export type { Fault, State } from "./state.js";
