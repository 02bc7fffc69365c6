/**
 * Common parts of responders and Connect services, which answer requests over NATS: discovery and statistics as micro
 * services (ADR-32), and error replies.
 */
export { Discovery, isAnswerable, SubscriptionSet } from "./discovery.js";
export { errorHeaders } from "./error-headers.js";
export { EndpointCounters, type MicroEndpoint, type MicroService } from "./micro-service.js";
