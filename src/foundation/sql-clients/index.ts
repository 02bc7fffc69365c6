/** Clients, pools and URLs by which users give access to Postgres. Nothing here loads node-postgres. */
export { type SessionAttributes, type TlsParameter, tlsParameters } from "./connection-parameters.js";
export { attributesOf, splitOnce, urlsOf, validateTlsMode } from "./connection-uri.js";
export { checkedUrl, urlFromEnvironment, urlsOrEnvironment } from "./given-url.js";
export { connectionUriOf } from "./keyword-string.js";
export { fromDrizzle, fromKnex, fromKysely, fromPrisma } from "./library-clients.js";
export { postgresErrorOf, rowsOf, type SqlClient } from "./sql-client.js";
export { queryText } from "./statements.js";
export { checkPool, UserPool } from "./user-pool.js";
