/**
 * The client protocol of nats.js, in which nothing that anybody publishes can end the connection.
 *
 * nats.js reads what comes in one loop, which ends with the first exception: one of whoever listens, or of reading the
 * headers of a message. Here listeners are guarded, and headers are read by {@link ReceivedHeaders}, wherever a message goes:
 * to subscriptions, requests, JetStream.
 */
import {
  type ConnectionOptions,
  type Msg,
  MsgImpl,
  Parser,
  ProtocolHandler,
  type Subscription,
  type SubscriptionImpl,
} from "@nats-io/transport-node";
import { ReceivedHeaders } from "./received-headers.js";

/** Who hears of what nobody else does. */
export interface ProtocolObserver {
  /** Whoever listens to a message has thrown. It has not been handled. */
  onDefect(error: unknown): void;
  /** The server has sent what is no NATS: nothing more can be read of this connection. */
  onBreach(): void;
}

/** See above. */
export class GuardedProtocol extends ProtocolHandler {
  readonly #observer: ProtocolObserver;

  constructor(
    options: ConnectionOptions,
    publisher: ConstructorParameters<typeof ProtocolHandler>[1],
    observer: ProtocolObserver,
  ) {
    super(options, publisher);
    this.#observer = observer;
  }

  override subscribe(subscription: SubscriptionImpl): Subscription {
    const { callback } = subscription;
    subscription.callback = (error, message) => {
      try {
        callback.call(subscription, error, error === null ? withReadableHeaders(message) : message);
      } catch (defect) {
        this.#observer.onDefect(defect);
      }
    };
    return super.subscribe(subscription);
  }

  /** Begins a connection. */
  override resetOutbound(): void {
    super.resetOutbound();
    this.parser = new GuardedParser(this, () => this.#observer.onBreach());
  }
}

/** The library would write its exceptions, with what was received, to the standard output. */
class GuardedParser extends Parser {
  readonly #onBreach: () => void;
  #isBroken = false;

  constructor(dispatcher: ConstructorParameters<typeof Parser>[0], onBreach: () => void) {
    super(dispatcher);
    this.#onBreach = onBreach;
  }

  override parse(received: Uint8Array): void {
    if (this.#isBroken) return;
    try {
      super.parse(received);
    } catch {
      this.#isBroken = true;
      this.#onBreach();
    }
  }
}

class ReadableMessage extends MsgImpl {
  override get headers(): ReceivedHeaders {
    this._headers ??= new ReceivedHeaders(this._rdata.subarray(0, this._msg.hdr));
    return this._headers as ReceivedHeaders;
  }
}

function withReadableHeaders(message: Msg): Msg {
  if (!(message instanceof MsgImpl) || message._msg.hdr < 0) return message;
  return new ReadableMessage(message._msg, message._rdata, message.publisher);
}
