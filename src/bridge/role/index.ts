/**
 * Whether Postgres is a primary or a standby, followed while it changes, and the notices that tell NATS of it.
 */

export { RoleNotices, type RoleNoticesOptions } from "./role-notices.js";
export { type PostgresRole, RoleWatch, type ServerAddress } from "./role-watch.js";
