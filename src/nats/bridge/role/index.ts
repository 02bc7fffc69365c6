/**
 * Watches whether Postgres is a primary or a standby, and publishes changes to NATS.
 */

export { RoleNotices, type RoleNoticesOptions } from "./role-notices.js";
export { type PostgresRole, RoleWatch, type ServerAddress } from "./role-watch.js";
