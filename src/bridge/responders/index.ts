/**
 * SQL functions that answer requests from NATS, as micro services (ADR-32).
 *
 * Every process answers: a queue group makes NATS give each request to one of them. A request waits for its turn
 * (`fair-queue.ts`: no responder takes all slots while others wait), runs in a transaction of its own, and is answered over
 * the connection that it came by (`dispatcher.ts`). On each connection an attachment holds the subscriptions and answers
 * `$SRV` questions (`attachment.ts`, and `services/` of `src/nats`); when a connection replaces another, the old one is left only after
 * the server knows the new subscriptions. Whatever goes wrong is answered by an error in headers (`requests.ts`), as soon as
 * it is known: busy, removed, out of time, failed, stopping.
 */
export type { RequestOutcome, RequestRunner, ResponderRequest } from "./requests.js";
export {
  ResponderService,
  type ResponderServiceOptions,
  type ResponderServiceStats,
  type ResponderStats,
} from "./responder-service.js";
