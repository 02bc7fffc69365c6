/** Clients, pools and URLs by which users give access to Postgres. Nothing here loads node-postgres. */
export {
  attributesOf,
  type SessionAttributes,
  splitOnce,
  type TlsParameter,
  tlsParameters,
  urlsOf,
  validateTlsMode,
} from "./connection-uri.js";
export { checkedUrl, urlFromEnvironment, urlsOrEnvironment } from "./given-url.js";
export { fromDrizzle, fromKnex, fromKysely, fromPrisma } from "./library-clients.js";
export { postgresErrorOf, rowsOf, type SqlClient } from "./sql-client.js";
export { checkPool, UserPool } from "./user-pool.js";
