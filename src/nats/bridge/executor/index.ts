/**
 * Runs user functions in Postgres, so that neither the functions nor their roles can do more than their owners may. See README.md.
 */
export { advanceParameters, advanceValues } from "./advance.js";
export { BatchRunner } from "./batch-runner.js";
export {
  type DatabaseIdentity,
  differenceOf,
  ExecutorLogin,
  identitySql,
  isSameDatabase,
  sameDatabaseRemedy,
} from "./executor-login.js";
export { ExecutorPool } from "./executor-pool.js";
export { executorOverdueMs } from "./executor-session.js";
export { PostgresRequestRunner } from "./request-runner.js";
export { errorText, failureOf } from "./transaction.js";
export { packPayloads } from "./wrapper.js";
