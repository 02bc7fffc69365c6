/**
 * What answers requests over NATS has in common: being found, described and measured as a micro service (ADR-32), and
 * saying that it failed. Responders of SQL functions use it, and services of Connect.
 */
export { Discovery, isAnswerable, SubscriptionSet } from "./discovery.js";
export { errorHeaders } from "./error-headers.js";
export { EndpointCounters, type MicroEndpoint, type MicroService } from "./micro-service.js";
