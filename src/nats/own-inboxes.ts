/**
 * The inboxes of Hawser's own connections. All of them use one NATS user, so that whoever may subscribe by it could hear the
 * answers to everybody's requests: they are known by where they are, and are handed to nobody but who asked.
 */
import { gatewayConstants } from "../../generated/ts/settings/nats.js";

const { natsInboxPrefix } = gatewayConstants;

/** Whether answers to requests of Hawser come to the subject, of this process or another one. */
export function isOwnInbox(subject: string): boolean {
  return subject.startsWith(natsInboxPrefix) && (subject[natsInboxPrefix.length] ?? ".") === ".";
}
