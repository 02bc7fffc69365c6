/**
 * The listener's end of an established connection: Batch, GoLive and Goodbye come in, Ack and Goodbye go out.
 */
import { type HawserError, TransportError } from "../errors/index.js";
import type { AckFrame, Batch, Frame, GoodbyeFrame, HelloFields, IncomingBatch } from "../wire/index.js";
import type { FrameReceiver, FrameSocket } from "./frame-socket.js";

/** Who hears of a {@link ListenerConnection}. Called synchronously, one at a time; must not throw. */
export interface ListenerHandlers {
  /** Messages came, checked; their epoch is the Hello's. The payloads are views, see `Batch`. */
  onBatch(batch: IncomingBatch): void;
  /** Everything not known to be stored follows. Its epoch is the Hello's. */
  onGoLive(): void;
  /** The sender goes in good order: acknowledge what is done, write Goodbye, and end. */
  onGoodbye(): void;
  /**
   * The connection has ended: undefined after a Goodbye or {@link ListenerConnection.end}, else why
   * (`connection_lost`, `protocol_violation`, …). Called once, last.
   */
  onClosed(error: HawserError | undefined): void;
}

/**
 * An established connection from a sender. Writing does nothing on a connection that has gone. After {@link destroy} no
 * handler is called any more.
 */
export class ListenerConnection {
  readonly #socket: FrameSocket;
  readonly hello: HelloFields;
  readonly remoteAddress: string;

  constructor(
    socket: FrameSocket,
    /** Who called, and on which channel: proved by the handshake. */
    hello: HelloFields,
    /** Where from: host:port. */
    remoteAddress: string,
  ) {
    this.#socket = socket;
    this.hello = hello;
    this.remoteAddress = remoteAddress;
  }

  /**
   * Writes an Ack. It leaves at the end of this tick; of several Acks in a tick, or while the sender does not read, only
   * the newest does.
   */
  writeAck(ack: AckFrame): void {
    this.#socket.writer.writeAck(ack);
  }

  /** Writes the final committed cursor, behind the newest Ack: this side goes in good order. {@link end} comes next. */
  writeGoodbye(goodbye: GoodbyeFrame): void {
    this.#socket.writer.write({ kind: "goodbye", value: goodbye });
  }

  /**
   * Stops reading, so that the sender has to wait. At once: what was received and not delivered yet stays. The connection
   * is kept alive meanwhile, however long.
   */
  pause(): void {
    this.#socket.pause();
  }

  /** Reads on; handlers are called later, never within this call. */
  resume(): void {
    this.#socket.resume();
  }

  /** Tells the sender why, and closes: `fenced` for one that a newer epoch has replaced. Then `onClosed` with the error. */
  refuse(error: HawserError): void {
    this.#socket.fail(error);
  }

  /** Writes what is buffered, then closes this direction. Handlers are called until the sender has closed the other. */
  end(): void {
    this.#socket.end();
  }

  /** Closes at once; what is buffered is lost. No handler is called any more, not even `onClosed`. */
  destroy(): void {
    this.#socket.destroy();
  }
}

/** What a listener's connection does with the frames of the sender with this Hello. */
export function listenerReceiver(
  socket: FrameSocket,
  hello: HelloFields,
  maxMessageBytes: number,
  handlers: ListenerHandlers,
): FrameReceiver {
  const violation = (message: string): void => socket.fail(new TransportError("protocol_violation", message));
  let saidGoodbye = false;
  return {
    onFrame(frame: Frame) {
      if (saidGoodbye) {
        violation(`the sender sent ${frame.kind} after Goodbye`);
      } else if (frame.kind === "batch") {
        const fault = faultOfSender(frame.value, hello, maxMessageBytes);
        if (fault === undefined) handlers.onBatch(frame.value);
        else violation(fault);
      } else if (frame.kind === "goLive") {
        if (frame.value.epoch === hello.epoch) handlers.onGoLive();
        else violation(`GoLive has epoch ${frame.value.epoch}; the Hello had ${hello.epoch}`);
      } else if (frame.kind === "goodbye") {
        saidGoodbye = true;
        socket.endsInGoodOrder = true;
        handlers.onGoodbye();
      } else {
        violation(`the sender sent ${frame.kind} after the handshake`);
      }
    },
    // Acks replace one another, so that there is nothing to wait for.
    onDrain: () => {},
    onClosed: (error) => handlers.onClosed(error),
  };
}

/** What a batch breaks that only the connection knows. */
function faultOfSender(batch: Batch, hello: HelloFields, maxMessageBytes: number): string | undefined {
  if (batch.epoch !== hello.epoch) return `a Batch has epoch ${batch.epoch}; the Hello had ${hello.epoch}`;
  for (const { length } of batch.payloads) {
    if (length > maxMessageBytes) return `a payload has ${length} bytes; at most ${maxMessageBytes} are accepted`;
  }
  for (const { uncompressedBytes } of batch.compressions ?? []) {
    if (uncompressedBytes > maxMessageBytes) {
      return `a payload declares ${uncompressedBytes} bytes uncompressed; at most ${maxMessageBytes} are accepted`;
    }
  }
  return undefined;
}
