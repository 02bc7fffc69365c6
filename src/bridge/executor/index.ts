/**
 * Runs user functions in Postgres, so that neither the functions nor their roles can do more than their owners may.
 *
 * The executor's login is a member of `hawser_executor` only. It calls each bound function through its wrapper, which
 * is owned by the function's role and checks a token. A session serves one role at a time and is cleared between
 * transactions. Everything that a function leaves behind or sends is assumed to be hostile: message sizes and notices
 * are limited, statements have time limits in addition to those of Postgres, and triggers that are deferred to COMMIT
 * run read-only.
 *
 * A transaction (`transaction.ts`) is BEGIN with settings and a first statement, the call, and COMMIT. Its ending is
 * one of: committed, rolled back by the work, failed by the function, timed out, transient (caused by no message),
 * session lost, Postgres unavailable. A batch (`batch-runner.ts`) starts with the fence, so that it commits only while
 * this process is the leader; a batch of a stream depends on the generation instead. It runs in groups behind
 * savepoints (`groups.ts`) after serialization failures. The version of the wrapper is compared before and after each
 * call (`wrapper.ts`), because its owner may replace it at any moment.
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
