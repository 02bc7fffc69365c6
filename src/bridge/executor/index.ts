/**
 * Runs the functions of others in Postgres, so that neither they nor their roles can do more than their owners may.
 *
 * The login of the executor belongs to `hawser_executor` alone. It calls each bound function through its wrapper, which
 * belongs to the function's role and asks for a token. A session serves one role at a time and is cleared between
 * two transactions; what a function leaves behind, or sends, is expected to be hostile: limits on message size and
 * notices, statement timeouts of our own beside those of Postgres, triggers deferred to COMMIT run read-only.
 *
 * One transaction (`transaction.ts`): BEGIN with settings and a first statement, the call, COMMIT. Its ending says what is
 * known: committed, given up, failed by the function, timed out, transient (nobody's fault), session lost, or Postgres away.
 * A batch (`batch-runner.ts`) begins behind the fence, so that it commits only while this process leads, and runs in
 * groups behind savepoints (`groups.ts`) where functions run into serialization failures. Before and after each call the
 * wrapper's version is compared (`wrapper.ts`): its owner may replace it at any moment.
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
export { PostgresRequestRunner } from "./request-runner.js";
export { failureOf, wordsOf } from "./transaction.js";
export { packPayloads } from "./wrapper.js";
