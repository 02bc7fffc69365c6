/** The schema `hawser`: its migrations, grants, and the lock of those who change it; see README.md. */
export { type Grant, grantedRoles, grants, grantsIn, tryTransaction } from "./grants.js";
export { installationLockKey, installationOwner, takeInstallationLock, turnLimitMs } from "./installation-lock.js";
export {
  applyMissing,
  dependentObjects,
  inUse,
  isCurrent,
  isReady,
  type MissingSteps,
  migrate,
  missingSteps,
  plannedTransactions,
  repairState,
  wholeIfNew,
} from "./migrate.js";
export {
  checksumOf,
  functionsChecksum,
  generatedSchemaSql,
  grantsSql,
  migrations,
  programSchema,
} from "./migrations.js";
export { explainRefusal, explainServeRefusal, noSchema } from "./missing-privileges.js";
export { Preparation } from "./preparation.js";
export {
  type CatalogReader,
  dropSchemasSql,
  inspectSchema,
  newSchemaSql,
  ownSchemaNames,
  ownSchemas,
  schemaInspectionSql,
  tableSchema,
  tableSchemaNames,
  trustedRoles,
} from "./schema.js";
export { adoptRoles, behindSequences, raiseSequences } from "./sequences.js";
export {
  describeDifferences,
  type StateDifference,
  sameDifferences,
  stateDifferences,
  stateRepairBlock,
  stateRepairsSql,
} from "./table-state.js";
