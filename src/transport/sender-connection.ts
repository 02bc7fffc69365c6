/**
 * The dialler's end of an established connection: Batch, GoLive and Goodbye go out, Ack and Goodbye come in.
 */
import { type HawserError, TransportError } from "../errors/index.js";
import type { AckFrame, Capability, Frame, GoodbyeFrame, OutgoingBatch } from "../wire/index.js";
import type { FrameReceiver, FrameSocket } from "./frame-socket.js";

/** Who hears of a {@link SenderConnection}. Called synchronously, one at a time; must not throw. */
export interface SenderHandlers {
  /** The listener acknowledged, or changed what may be sent. */
  onAck(ack: AckFrame): void;
  /** The listener goes in good order; its committed cursor is final. The connection closes soon. */
  onGoodbye(goodbye: GoodbyeFrame): void;
  /** {@link SenderConnection.canWrite} was false and is true again. */
  onDrain(): void;
  /**
   * The connection has ended: undefined after a Goodbye or {@link SenderConnection.end}, else why (`connection_lost`, or
   * the code with which the listener refused). Called once, last.
   */
  onClosed(error: HawserError | undefined): void;
}

/**
 * An established connection to a listener. Writing never throws for a connection that has gone: what is written then is
 * lost, as is what was on its way. After {@link destroy} no handler is called any more.
 */
export class SenderConnection {
  /** What the listener can read. */
  readonly capabilities: readonly Capability[];
  /** The greatest payload that the listener takes, uncompressed, in bytes. */
  readonly maxMessageBytes: number;

  readonly #socket: FrameSocket;

  constructor(
    socket: FrameSocket,
    listener: { readonly capabilities: readonly Capability[]; readonly maxMessageBytes: number },
  ) {
    this.#socket = socket;
    this.capabilities = listener.capabilities;
    this.maxMessageBytes = listener.maxMessageBytes;
  }

  /** Bytes that were written here and have not reached the kernel. */
  get bufferedBytes(): number {
    return this.#socket.writer.bufferedBytes;
  }

  /** False from `writeHighWaterBytes` (1 MiB) buffered bytes on, until half of them have gone and `onDrain` is called. */
  get canWrite(): boolean {
    return this.#socket.writer.canWrite;
  }

  /**
   * Writes a batch; it leaves at the end of this tick, together with what else is written in it. A batch longer than the
   * listener's greatest frame (by its headers) leaves as several. The payloads' bytes must not change until they have
   * left: never, as far as the caller can tell.
   *
   * @throws WireError `invalid_argument` if the batch breaks a rule of the spec, or one message is too long for the
   * listener; nothing is written then
   */
  writeBatch(batch: OutgoingBatch): void {
    this.#socket.writer.writeBatch(batch);
  }

  /** Says that everything not known to be stored follows on this connection. */
  writeGoLive(epoch: number): void {
    this.#socket.writer.write({ kind: "goLive", value: { epoch } });
  }

  /** Says that nothing more will be sent. The listener acknowledges what it has, says Goodbye too and closes. */
  writeGoodbye(): void {
    this.#socket.writer.write({ kind: "goodbye", value: { epoch: 0, number: 0 } });
  }

  /** Writes what is buffered, then closes this direction. Handlers are called until the listener has closed the other. */
  end(): void {
    this.#socket.end();
  }

  /** Closes at once; what is buffered is lost. No handler is called any more, not even `onClosed`. */
  destroy(): void {
    this.#socket.destroy();
  }
}

/** What a sender's connection does with the frames of the listener. */
export function senderReceiver(socket: FrameSocket, handlers: SenderHandlers): FrameReceiver {
  return {
    onFrame(frame: Frame) {
      if (frame.kind === "ack") {
        handlers.onAck(frame.value);
      } else if (frame.kind === "goodbye") {
        socket.endsInGoodOrder = true;
        handlers.onGoodbye(frame.value);
      } else {
        socket.fail(new TransportError("protocol_violation", `the listener sent ${frame.kind} after the handshake`));
      }
    },
    onDrain: () => handlers.onDrain(),
    onClosed: (error) => handlers.onClosed(error),
  };
}
