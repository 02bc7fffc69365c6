/**
 * What a connector to NATS reports without being asked: its own events, and what the server says of a connection.
 */
import { errors, type NatsConnection } from "@nats-io/transport-node";
import type { HawserError } from "../errors/index.js";
import type { Logger } from "../runtime/index.js";
import type { Established } from "./connect.js";
import { shown } from "./connect-failure.js";

/** Something that the server does not permit its user. */
export interface Refusal {
  readonly operation: "publish" | "subscription";
  /** The subject, or the reply subject, whole and as it was sent; "" where the server's words do not tell. */
  readonly subject: string;
  /** Of a subscription in a queue group: its name. */
  readonly queue: string | undefined;
  /** The server's words to be shown: shortened, and without our secret. */
  readonly message: string;
}

/** The events and what they are told with. */
export interface NatsConnectorEvents {
  /** There is a connection, the first one or another one: subscriptions are to be made on it. */
  connected: [connection: NatsConnection];
  /** The connection has ended, and not because it was to. */
  lost: [error: HawserError];
  /** An attempt to connect has failed; another one follows. */
  failed: [error: HawserError];
  /** The server has refused something, some time after it was sent. */
  refused: [refusal: Refusal, connection: NatsConnection];
}

type Listener<Name extends keyof NatsConnectorEvents> = (...event: NatsConnectorEvents[Name]) => void;

/** Listeners by event. One that throws is logged, and does no harm to the others. */
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

  /** @returns what takes the listener away */
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

/** Is called with what a connection reports while it lives. */
interface ConnectionObserver {
  /** The server does not permit something. */
  onRefused(refusal: Refusal): void;
  /** The server is about to end, and takes no new connections. */
  onServerEnding(): void;
  /** The server complains of something else; it may end the connection after it. @param words its own */
  onComplaint(words: string): void;
}

/** Observes until the connection ends. Never rejects. */
export async function watchConnection(
  { connection, conceal }: Established,
  observer: ConnectionObserver,
): Promise<void> {
  for await (const status of connection.status()) {
    if (status.type === "ldm") observer.onServerEnding();
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

/** A publish that the server did not permit. */
export interface Violation {
  /** The subject, or the reply subject, that was refused; "" where the server's words do not tell. */
  readonly subject: string;
  /** The server's words. */
  readonly message: string;
}

// The subject is quoted as Go quotes (`%q`), which nats.js does not undo; and the refusal of a reply subject has words that
// nats.js does not know.
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
 * The violation that a server reports with these words; undefined if they do not speak of publishing.
 *
 * @param message of the `PermissionViolationError` in a status event of the connection, whole
 */
export function publishViolation(message: string): Violation | undefined {
  const quoted = refusal.exec(message)?.[1];
  if (quoted === undefined) return undefined;
  return { subject: unquote(quoted.slice(1, -1)), message };
}

function unquote(text: string): string {
  return text.replace(escaped, (_all, byte?: string, short?: string, long?: string, letter?: string) => {
    const code = byte ?? short ?? long;
    return code === undefined ? (letters[letter!] ?? letter!) : String.fromCodePoint(Number.parseInt(code, 16));
  });
}
