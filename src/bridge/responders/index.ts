/**
 * SQL functions that answer requests from NATS.
 */
export { ResponderService, type ResponderServiceOptions } from "./responder-service.js";
export type { RequestOutcome, RequestRunner, ResponderRequest } from "./runner.js";
export type { ResponderServiceStats, ResponderStats } from "./stats.js";
