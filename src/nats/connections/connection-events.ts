/**
 * Events of a {@link NatsConnector}, and errors that the server reports on a connection.
 */
import { errors, type NatsConnection } from "@nats-io/transport-node";
import type { HawserError } from "../../foundation/errors/index.js";
import type { Logger } from "../../foundation/runtime/index.js";
import type { Established } from "./connect.js";
import { singleLine } from "./connect-failure.js";

/** An operation that the server does not permit. */
export interface PermissionViolation {
  readonly operation: "publish" | "subscription";
  /** Subject or reply subject, complete and as it was sent; "" if the server's text does not contain it. */
  readonly subject: string;
  /** Queue group of a subscription. */
  readonly queue: string | undefined;
  /** Text of the server, shortened and without secrets. */
  readonly message: string;
}

/** Events with their arguments. */
export interface NatsConnectorEvents {
  /** There is a new connection; subscriptions must be made on it. */
  connected: [connection: NatsConnection];
  /** The connection has closed unexpectedly. */
  lost: [error: HawserError];
  /** An attempt to connect failed; another one follows. */
  failed: [error: HawserError];
  /** The server refused an operation, some time after it was sent. */
  refused: [refusal: PermissionViolation, connection: NatsConnection];
}

type Listener<Name extends keyof NatsConnectorEvents> = (...event: NatsConnectorEvents[Name]) => void;

/** Listeners by event. An error of one listener is logged and does not affect the others. */
export class Listeners {
  readonly #listeners: { [Name in keyof NatsConnectorEvents]: Set<Listener<Name>> } = {
    connected: new Set(),
    lost: new Set(),
    failed: new Set(),
    refused: new Set(),
  };

  readonly #logger: Logger;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** @returns function that removes the listener */
  add<Name extends keyof NatsConnectorEvents>(name: Name, listener: Listener<Name>): () => void {
    this.#listeners[name].add(listener);
    return () => this.#listeners[name].delete(listener);
  }

  emit<Name extends keyof NatsConnectorEvents>(name: Name, ...event: NatsConnectorEvents[Name]): void {
    for (const listener of [...this.#listeners[name]]) {
      try {
        listener(...event);
      } catch (error) {
        this.#logger.error({ err: error }, `a listener of the NATS connection's event "${name}" failed`);
      }
    }
  }
}

/** Callbacks of {@link watchConnection}. */
interface ConnectionObserver {
  /** The server does not permit an operation. */
  onRefused(refusal: PermissionViolation): void;
  /** The server will shut down, and accepts no new connections (lame duck mode). */
  onServerEnding(): void;
  /** The server reports another error, and may close the connection. @param words its text */
  onServerError(words: string): void;
}

/** Reports events of a connection until it closes. Never rejects. */
export async function watchConnection(
  { connection, conceal }: Established,
  observer: ConnectionObserver,
): Promise<void> {
  for await (const status of connection.status()) {
    if (status.type === "ldm") observer.onServerEnding();
    if (status.type !== "error") continue;
    const { error } = status;
    const message = singleLine(conceal(error.message));
    if (error instanceof errors.PermissionViolationError) {
      const { operation, queue } = error;
      // The subject is parsed from the original text, because the shown text is shortened, and without secrets.
      const subject = refusedSubject(error.message) ?? error.subject;
      observer.onRefused({ operation, subject, queue, message });
    } else {
      observer.onServerError(message);
    }
  }
}

// Servers quote the subject as Go's %q does, which nats.js does not undo; and nats.js does not know the text for a
// refused reply subject.
const refusal = /^Permissions Violation for Publish (?:to|with Reply of) (".*")/i;
const escaped = /\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))/g;
const letters: Readonly<Record<string, string>> = {
  a: "\u0007",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

/**
 * Subject, or reply subject, of a refused publish; undefined for a text about anything else.
 *
 * @param message complete text of the `PermissionViolationError` in a status event of the connection
 */
export function refusedSubject(message: string): string | undefined {
  const quoted = refusal.exec(message)?.[1];
  return quoted === undefined ? undefined : unquote(quoted.slice(1, -1));
}

function unquote(text: string): string {
  return text.replace(escaped, (_all, byte?: string, short?: string, long?: string, letter?: string) => {
    const code = byte ?? short ?? long;
    if (code === undefined) return letters[letter!] ?? letter!;
    const point = Number.parseInt(code, 16);
    return point > 0x10ffff ? "\ufffd" : String.fromCodePoint(point);
  });
}
