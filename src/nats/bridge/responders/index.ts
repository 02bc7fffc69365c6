/**
 * SQL functions that answer requests from NATS, as micro services (ADR-32).
 *
 * Every process answers. A NATS queue group delivers each request to one of them. A request waits for a slot, of which
 * no responder takes all while others wait, runs in a transaction of its own, and is answered over the connection that
 * delivered it (`dispatcher.ts`). Each connection has an attachment (`attachment.ts`), which holds the subscriptions and
 * answers `$SRV` requests (`services/` of `src/nats/connections`). When a new connection replaces an old one, the old one is
 * released only after the server has processed the new subscriptions. Every failure is answered at once by an error in
 * headers (`requests.ts`): busy, removed, timed out, failed, or shutting down.
 */
export type { RequestOutcome, RequestRunner, ResponderRequest } from "./requests.js";
export {
  ResponderService,
  type ResponderServiceOptions,
  type ResponderServiceStats,
  type ResponderStats,
  requestQueueDefaults,
} from "./responder-service.js";
