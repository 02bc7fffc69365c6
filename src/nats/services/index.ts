/**
 * Shared parts of services that answer requests over NATS: discovery and statistics as micro services (ADR-32), and
 * error replies. Used by responders of SQL functions, and by Connect services.
 */
export { Discovery, isAnswerable, SubscriptionSet } from "./discovery.js";
export { errorHeaders } from "./error-headers.js";
export { EndpointCounters, type MicroEndpoint, type MicroService } from "./micro-service.js";
