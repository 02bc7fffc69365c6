/**
 * What a connection says of itself while it lives.
 */
import { errors } from "@nats-io/transport-node";
import type { Established } from "./connect.js";
import { shown } from "./connect-failure.js";
import type { Refusal } from "./link-events.js";
import { publishViolation } from "./operations/violation.js";

/** Who hears of it. */
interface ConnectionObserver {
  /** The server does not permit something. */
  onRefused(refusal: Refusal): void;
  /** The server is about to end, and takes no new connections. */
  onLeaving(): void;
  /** The server complains of something else; it may end the connection after it. @param words its own */
  onComplaint(words: string): void;
}

/** Observes until the connection ends. Never rejects. */
export async function watchConnection(
  { connection, conceal }: Established,
  observer: ConnectionObserver,
): Promise<void> {
  for await (const status of connection.status()) {
    if (status.type === "ldm") observer.onLeaving();
    if (status.type !== "error") continue;
    const { error } = status;
    const message = shown(conceal(error.message));
    if (error instanceof errors.PermissionViolationError) {
      const { operation, queue } = error;
      // Out of the very words: those that are shown may be shortened, and without our secret.
      const subject = publishViolation(error.message)?.subject ?? error.subject;
      observer.onRefused({ operation, subject, queue, message });
    } else {
      observer.onComplaint(message);
    }
  }
}
