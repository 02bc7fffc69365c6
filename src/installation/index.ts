/**
 * Database objects that `hawser init` creates: one list of objects, and operations over it.
 *
 * **Objects**, in the order of their creation (`objects.ts`):
 *
 * | object | content | required role |
 * |---|---|---|
 * | schema | the schema `hawser`, by the migrations of the store | a role with CREATE on the database |
 * | tables | row security and persistence of its tables, which others can change | the owner of the schema |
 * | schema-objects | functions, views and triggers of that schema that were dropped or changed | the owner of the schema |
 * | roles | hawser_owner, hawser_peer, …, and the ownership of the schema's objects | a role that may create roles; membership of hawser_owner to transfer objects to it |
 * | grants | privileges of the roles on the schema | the owner of the schema |
 * | dblink | dblink in a schema that only the owner of the functions may use | a superuser; the installing role may use an existing one |
 * | functions | the SQL functions that call NATS | a role that may create functions in their schema |
 * | bindings | the schema of wrappers, the view of subscriptions, the login that calls bound functions | CREATE on the database; for the login, a role that may create roles |
 * | foreign-data | the foreign data wrappers, and the schema of functions that superusers run | a superuser |
 * | event-triggers | event triggers that track the definition of the NATS server | a superuser |
 *
 * Peers need the first five. The others are NATS from SQL; `--no-nats` omits them.
 *
 * **An entry** (`object.ts`) has these parts: `create`, a repeatable transaction that skips with a NOTICE what its role
 * may not do; `conflicts`, existing objects that prevent the installation; `faults`, defects of the object;
 * `superuserStatements`, statements that a superuser has to run for the current role; `inUse`, uses that prevent the
 * removal; and `removals`, its removable parts. An inspection (`inspect`, with a part in the file of each object) reads
 * the catalogs once and returns a `State` (`state.ts`). All parts except `create` and `conflicts` are functions of that
 * state.
 *
 * **Operations:**
 *
 * - `install` rejects conflicts, creates the objects in order, inspects them and reports the faults: those of kind
 * `missing` as missing privileges, the others as warnings. If one object is refused, the next one is still created.
 * - A dry run prints the transactions instead, and reports the faults that the current role could not repair.
 * - `uninstall` fails while an object is in use. Then it drops the functions, all or none, and every other part
 * separately.
 * - The script of the extension (`extension/`) checks the same conflicts and runs the same transactions in one PL/pgSQL
 * block.
 * - `hawser doctor` reports the faults, each under the check that it names.
 *
 * Before anything is read or created, `inspectSchema` of the store verifies that the schema `hawser` is Hawser's. The
 * installing role may be a superuser, and a schema of another role could contain code that would run with its
 * privileges. For the same reason, all SQL here runs with the search_path `pg_catalog, pg_temp`.
 *
 * See schema/README.md, "An installed object", for adding an object.
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
export { optionsPollMs } from "./foreign-data.js";
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
