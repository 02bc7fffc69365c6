/**
 * Both ends of an established connection: the frames that each may write, and the handling of received frames.
 *
 *     sender → listener    Batch, GoLive, Request, Cancel, Goodbye
 *     listener → sender    Ack, Answer, Goodbye
 *
 * {@link FrameSocket} handles Refuse, Ping and Pong. Any other frame is a protocol violation. Each receiver lists all
 * kinds of frames, so that the compiler reports a new kind.
 */
import { HawserError } from "../../foundation/errors/index.js";
import {
  type Ack,
  type Answer,
  type Batch,
  Capability,
  type Goodbye,
  type HelloFields,
  type Request,
} from "../wire/index.js";
import type { FrameReceiver, FrameSocket, ReceivedFrame } from "./frame-socket.js";

/**
 * Event handlers of {@link ListenerConnection}s, each with its connection. Called synchronously, one at a time; must not
 * throw.
 */
export interface ListenerHandlers {
  /** Validated messages arrived. Their epoch is that of the Hello. The payloads are views of the received bytes. */
  onBatch(batch: Batch, connection: ListenerConnection): void;
  /** GoLive arrived: all messages that are not known to be stored follow. Its epoch is that of the Hello. */
  onGoLive(connection: ListenerConnection): void;
  /** A validated request arrived. Its payload is a view of the received bytes. */
  onRequest(request: Request, connection: ListenerConnection): void;
  /** The sender no longer waits for the answer to a request. */
  onCancel(id: number, connection: ListenerConnection): void;
  /** {@link ListenerConnection.canWrite} became true again. */
  onDrain(connection: ListenerConnection): void;
  /** The sender shuts down gracefully: acknowledge completed messages, write Goodbye, and end. */
  onGoodbye(connection: ListenerConnection): void;
  /**
   * The connection has ended: undefined after a Goodbye or {@link ListenerConnection.end}, otherwise the error
   * (`connection_lost`, `protocol_violation`, …). Called once, as the last event.
   */
  onClosed(error: HawserError | undefined, connection: ListenerConnection): void;
}

/** Common part of both ends of an established connection. Writes to a closed connection are ignored. */
class EstablishedConnection {
  protected readonly socket: FrameSocket;

  constructor(socket: FrameSocket) {
    this.socket = socket;
  }

  /** False from `writeHighWaterBytes` (1 MiB) buffered bytes until half of them have left and `onDrain` is called. */
  get canWrite(): boolean {
    return this.socket.writer.canWrite;
  }

  /**
   * Announces a graceful shutdown: no further messages follow. A listener sends it with its final committed cursor
   * after the newest Ack, followed by {@link end}. On a sender's Goodbye, it acknowledges what it has handled, answers
   * with Goodbye and closes.
   */
  writeGoodbye(cursor: Goodbye = { epoch: 0, number: 0 }): void {
    this.socket.writer.write({ $case: "goodbye", value: cursor });
  }

  /**
   * Writes the buffered bytes, then closes this direction. Handlers are called until the other side has closed its
   * direction.
   */
  end(): void {
    this.socket.end();
  }

  /** Closes at once and discards the buffered bytes. No handler is called any more, not even `onClosed`. */
  destroy(): void {
    this.socket.destroy();
  }
}

/** Established connection from a sender. */
export class ListenerConnection extends EstablishedConnection {
  /** Authenticated identity of the sender, and its channel. */
  readonly hello: HelloFields;

  constructor(socket: FrameSocket, hello: HelloFields) {
    super(socket);
    this.hello = hello;
  }

  /**
   * Writes an Ack at the end of this tick. Of several Acks in a tick, or while the sender does not read, only the
   * newest is sent.
   */
  writeAck(ack: Ack): void {
    this.socket.writer.writeLatest({ $case: "ack", value: ack });
  }

  /**
   * Writes the answer to a request of this connection at the end of this tick. If it violates a rule of the spec, the
   * sender ends the connection.
   */
  writeAnswer(answer: Answer): void {
    this.socket.writer.write({ $case: "answer", value: answer });
  }

  /**
   * Stops reading at once, which throttles the sender. Bytes that were received and not delivered are kept. The
   * connection is kept alive for any duration.
   */
  pause(): void {
    this.socket.pause();
  }

  /** Resumes reading. Handlers are called later, never within this call. */
  resume(): void {
    this.socket.resume();
  }

  /**
   * Sends the error to the sender and closes, such as `fenced` when a newer epoch replaces it. `onClosed` gets the
   * error.
   */
  refuse(error: HawserError): void {
    this.socket.fail(error);
  }
}

/**
 * Event handlers of {@link SenderConnection}s, each with its connection. Called synchronously, one at a time; must not
 * throw.
 */
export interface SenderHandlers {
  /** The listener acknowledged messages, or changed its credit or state. */
  onAck(ack: Ack, connection: SenderConnection): void;
  /** Answer to a request of this connection, possibly one that was cancelled. */
  onAnswer(answer: Answer, connection: SenderConnection): void;
  /** The listener shuts down gracefully. Its committed cursor is final. The connection closes soon. */
  onGoodbye(goodbye: Goodbye, connection: SenderConnection): void;
  /** {@link SenderConnection.canWrite} became true again. */
  onDrain(connection: SenderConnection): void;
  /**
   * The connection has ended: undefined after a Goodbye or {@link SenderConnection.end}, otherwise the error
   * (`connection_lost`, or the listener's refusal). Called once, as the last event.
   */
  onClosed(error: HawserError | undefined, connection: SenderConnection): void;
}

/** Established connection to a listener. Messages written after it has closed are lost, and so are those in transit. */
export class SenderConnection extends EstablishedConnection {
  /** Capabilities of the listener. */
  readonly capabilities: readonly Capability[];
  /** Largest uncompressed payload in bytes that the listener accepts. */
  readonly maxMessageBytes: number;

  constructor(
    socket: FrameSocket,
    listener: { readonly capabilities: readonly Capability[]; readonly maxMessageBytes: number },
  ) {
    super(socket);
    this.capabilities = listener.capabilities;
    this.maxMessageBytes = listener.maxMessageBytes;
  }

  /** Bytes that were written but have not reached the kernel. */
  get bufferedBytes(): number {
    return this.socket.writer.bufferedBytes;
  }

  /**
   * Writes a batch at the end of this tick, together with other frames of the tick. A batch that exceeds the listener's
   * frame limit because of its headers is split. The caller may reuse the payload bytes afterwards.
   *
   * @throws HawserError `invalid_argument` if one message is too long for the listener; nothing is written then
   */
  writeBatch(batch: Batch): void {
    this.socket.writer.write({ $case: "batch", value: batch });
  }

  /**
   * Writes an at-most-once message without headers at the end of this tick, in a batch with others. The caller may
   * reuse its bytes afterwards.
   *
   * @throws HawserError `invalid_argument` if it is too long for the listener
   */
  writeAtMostOnce(epoch: number, topicId: number, payload: Uint8Array): void {
    this.socket.writer.writeAtMostOnce(epoch, topicId, payload);
  }

  /** True if the listener answers requests. */
  get takesRequests(): boolean {
    return this.capabilities.includes(Capability.REQUESTS);
  }

  /**
   * Writes a request at the end of this tick. Requires {@link takesRequests}.
   *
   * @throws HawserError `invalid_argument` if the request is too long for the listener; nothing is written then
   */
  writeRequest(request: Request): void {
    this.socket.writer.write({ $case: "request", value: request });
  }

  /** Cancels a request: its answer is no longer needed. */
  writeCancel(id: number): void {
    this.socket.writer.write({ $case: "cancel", value: { id } });
  }

  /** Announces that all messages not known to be stored follow on this connection. */
  writeGoLive(epoch: number): void {
    this.socket.writer.write({ $case: "goLive", value: { epoch } });
  }
}

/** Creates the receiver of a listener's connection. */
export function listenerReceiver(
  socket: FrameSocket,
  connection: ListenerConnection,
  maxMessageBytes: number,
  handlers: ListenerHandlers,
): FrameReceiver {
  const violation = (message: string): void => socket.fail(new HawserError("protocol_violation", message));
  const { hello } = connection;
  let goodbyeReceived = false;
  let lastRequest = 0;
  return {
    onFrame(frame: ReceivedFrame) {
      if (goodbyeReceived) {
        violation(`the sender sent ${frame.$case} after Goodbye`);
        return;
      }
      switch (frame.$case) {
        case "batch": {
          const fault = faultOfSender(frame.value, hello, maxMessageBytes);
          if (fault === undefined) handlers.onBatch(frame.value, connection);
          else violation(fault);
          return;
        }
        case "goLive":
          if (frame.value.epoch === hello.epoch) handlers.onGoLive(connection);
          else violation(`GoLive has epoch ${frame.value.epoch}; the Hello had ${hello.epoch}`);
          return;
        case "request": {
          const { id, payload } = frame.value;
          if (id <= lastRequest) violation(`a Request has id ${id} after ${lastRequest}; ids must grow`);
          else if (payload.length > maxMessageBytes) violation(tooLong(payload.length, maxMessageBytes));
          else {
            lastRequest = id;
            handlers.onRequest(frame.value, connection);
          }
          return;
        }
        case "cancel":
          handlers.onCancel(frame.value.id, connection);
          return;
        case "goodbye":
          goodbyeReceived = true;
          socket.isClosingGracefully = true;
          handlers.onGoodbye(connection);
          return;
        case "challenge":
        case "hello":
        case "welcome":
        case "ack":
        case "answer":
          violation(`the sender sent ${frame.$case} after the handshake`);
          return;
        default:
          frame satisfies never;
      }
    },
    onDrain: () => handlers.onDrain(connection),
    onClosed: (error) => handlers.onClosed(error, connection),
  };
}

/** Creates the receiver of a sender's connection. */
export function senderReceiver(
  socket: FrameSocket,
  connection: SenderConnection,
  handlers: SenderHandlers,
): FrameReceiver {
  return {
    onFrame(frame: ReceivedFrame) {
      switch (frame.$case) {
        case "ack":
          handlers.onAck(frame.value, connection);
          return;
        case "answer":
          handlers.onAnswer(frame.value, connection);
          return;
        case "goodbye":
          socket.isClosingGracefully = true;
          handlers.onGoodbye(frame.value, connection);
          return;
        case "challenge":
        case "hello":
        case "welcome":
        case "batch":
        case "goLive":
        case "request":
        case "cancel":
          socket.fail(new HawserError("protocol_violation", `the listener sent ${frame.$case} after the handshake`));
          return;
        default:
          frame satisfies never;
      }
    },
    onDrain: () => handlers.onDrain(connection),
    onClosed: (error) => handlers.onClosed(error, connection),
  };
}

/** Checks the rules of a batch that depend on the connection. */
function faultOfSender(batch: Batch, hello: HelloFields, maxMessageBytes: number): string | undefined {
  if (batch.epoch !== hello.epoch) return `a Batch has epoch ${batch.epoch}; the Hello had ${hello.epoch}`;
  for (const { length } of batch.payloads) {
    if (length > maxMessageBytes) return tooLong(length, maxMessageBytes);
  }
  for (const { uncompressedBytes } of batch.compressions) {
    if (uncompressedBytes > maxMessageBytes) {
      return `a payload declares ${uncompressedBytes} bytes uncompressed; at most ${maxMessageBytes} are accepted`;
    }
  }
  return undefined;
}

function tooLong(bytes: number, maxMessageBytes: number): string {
  return `a payload has ${bytes} bytes; at most ${maxMessageBytes} are accepted`;
}
