/**
 * Both ends of an established connection: what each may write, and what each does with the frames that come.
 *
 *     sender → listener    Batch, GoLive, Request, Cancel, Goodbye
 *     listener → sender    Ack, Answer, Goodbye
 *
 * Refuse, Ping and Pong are {@link FrameSocket}'s business. Any other frame breaks the protocol. Each receiver names every
 * kind of frame, so that the compiler asks what a new kind means to it.
 */
import { HawserError } from "../errors/index.js";
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

/** Who hears of a {@link ListenerConnection}. Called synchronously, one at a time; must not throw. */
export interface ListenerHandlers {
  /** Messages came, checked; their epoch is the Hello's. The payloads are views of what was received. */
  onBatch(batch: Batch): void;
  /** Everything not known to be stored follows. Its epoch is the Hello's. */
  onGoLive(): void;
  /** A request came, checked. Its payload is a view of what was received. */
  onRequest(request: Request): void;
  /** Nobody waits for the answer to a request any more. */
  onCancel(id: number): void;
  /** {@link ListenerConnection.canWrite} was false and is true again. */
  onDrain(): void;
  /** The sender goes in good order: acknowledge what is done, write Goodbye, and end. */
  onGoodbye(): void;
  /**
   * The connection has ended: undefined after a Goodbye or {@link ListenerConnection.end}, else why
   * (`connection_lost`, `protocol_violation`, …). Called once, last.
   */
  onClosed(error: HawserError | undefined): void;
}

/** What both ends of an established connection have in common. Writing does nothing on a connection that has gone. */
class EstablishedConnection {
  protected readonly socket: FrameSocket;

  constructor(socket: FrameSocket) {
    this.socket = socket;
  }

  /** False from `writeHighWaterBytes` (1 MiB) buffered bytes on, until half of them have gone and `onDrain` is called. */
  get canWrite(): boolean {
    return this.socket.writer.canWrite;
  }

  /**
   * Says that nothing more will be sent: this side goes in good order. A listener says it with its final committed cursor, behind
   * the newest Ack, and {@link end} comes next; to a sender's Goodbye it acknowledges what it has, says Goodbye too and closes.
   */
  writeGoodbye(cursor: Goodbye = { epoch: 0, number: 0 }): void {
    this.socket.writer.write({ $case: "goodbye", value: cursor });
  }

  /** Writes what is buffered, then closes this direction. Handlers are called until the other side has closed the other. */
  end(): void {
    this.socket.end();
  }

  /** Closes at once; what is buffered is lost. No handler is called any more, not even `onClosed`. */
  destroy(): void {
    this.socket.destroy();
  }
}

/** An established connection from a sender. */
export class ListenerConnection extends EstablishedConnection {
  /** Who called, and on which channel: proved by the handshake. */
  readonly hello: HelloFields;

  constructor(socket: FrameSocket, hello: HelloFields) {
    super(socket);
    this.hello = hello;
  }

  /**
   * Writes an Ack. It leaves at the end of this tick; of several Acks in a tick, or while the sender does not read, only
   * the newest does.
   */
  writeAck(ack: Ack): void {
    this.socket.writer.writeLatest({ $case: "ack", value: ack });
  }

  /**
   * Writes the answer to a request that came on this connection; it leaves at the end of this tick. The sender ends the
   * connection if the answer breaks a rule of the spec.
   */
  writeAnswer(answer: Answer): void {
    this.socket.writer.write({ $case: "answer", value: answer });
  }

  /**
   * Stops reading, so that the sender has to wait. At once: what was received and not delivered yet stays. The connection
   * is kept alive meanwhile, however long.
   */
  pause(): void {
    this.socket.pause();
  }

  /** Reads on; handlers are called later, never within this call. */
  resume(): void {
    this.socket.resume();
  }

  /** Tells the sender why, and closes: `fenced` for one that a newer epoch has replaced. Then `onClosed` with the error. */
  refuse(error: HawserError): void {
    this.socket.fail(error);
  }
}

/** Who hears of a {@link SenderConnection}. Called synchronously, one at a time; must not throw. */
export interface SenderHandlers {
  /** The listener acknowledged, or changed what may be sent. */
  onAck(ack: Ack): void;
  /** The answer to a request of this connection, perhaps to one that nobody waits for any more. */
  onAnswer(answer: Answer): void;
  /** The listener goes in good order; its committed cursor is final. The connection closes soon. */
  onGoodbye(goodbye: Goodbye): void;
  /** {@link SenderConnection.canWrite} was false and is true again. */
  onDrain(): void;
  /**
   * The connection has ended: undefined after a Goodbye or {@link SenderConnection.end}, else why (`connection_lost`, or
   * the code with which the listener refused). Called once, last.
   */
  onClosed(error: HawserError | undefined): void;
}

/** An established connection to a listener. What is written when it has gone is lost, as is what was on its way. */
export class SenderConnection extends EstablishedConnection {
  /** What the listener can do. */
  readonly capabilities: readonly Capability[];
  /** The greatest payload that the listener takes, uncompressed, in bytes. */
  readonly maxMessageBytes: number;

  constructor(
    socket: FrameSocket,
    listener: { readonly capabilities: readonly Capability[]; readonly maxMessageBytes: number },
  ) {
    super(socket);
    this.capabilities = listener.capabilities;
    this.maxMessageBytes = listener.maxMessageBytes;
  }

  /** Bytes that were written here and have not reached the kernel. */
  get bufferedBytes(): number {
    return this.socket.writer.bufferedBytes;
  }

  /**
   * Writes a batch; it leaves at the end of this tick, together with what else is written in it. A batch longer than the
   * listener's greatest frame (by its headers) leaves as several. The payloads' bytes are the caller's again afterwards.
   *
   * @throws HawserError `invalid_argument` if one message is too long for the listener; nothing is written then
   */
  writeBatch(batch: Batch): void {
    this.socket.writer.write({ $case: "batch", value: batch });
  }

  /**
   * Writes an at-most-once message without headers; it leaves at the end of this tick, in a batch with others. Its bytes are the
   * caller's again afterwards.
   *
   * @throws HawserError `invalid_argument` if it is too long for the listener
   */
  writeAtMostOnce(epoch: number, topicKey: number, payload: Uint8Array): void {
    this.socket.writer.writeAtMostOnce(epoch, topicKey, payload);
  }

  /** Whether the listener answers requests. */
  get takesRequests(): boolean {
    return this.capabilities.includes(Capability.REQUESTS);
  }

  /**
   * Writes a request; it leaves at the end of this tick. Only where {@link takesRequests}.
   *
   * @throws HawserError `invalid_argument` if the request is too long for the listener; nothing is written then
   */
  writeRequest(request: Request): void {
    this.socket.writer.write({ $case: "request", value: request });
  }

  /** Says that nobody waits for the answer to a request any more. */
  writeCancel(id: number): void {
    this.socket.writer.write({ $case: "cancel", value: { id } });
  }

  /** Says that everything not known to be stored follows on this connection. */
  writeGoLive(epoch: number): void {
    this.socket.writer.write({ $case: "goLive", value: { epoch } });
  }
}

/** What a listener's connection does with the frames of the sender with this Hello. */
export function listenerReceiver(
  socket: FrameSocket,
  hello: HelloFields,
  maxMessageBytes: number,
  handlers: ListenerHandlers,
): FrameReceiver {
  const violation = (message: string): void => socket.fail(new HawserError("protocol_violation", message));
  let saidGoodbye = false;
  let lastRequest = 0;
  return {
    onFrame(frame: ReceivedFrame) {
      if (saidGoodbye) {
        violation(`the sender sent ${frame.$case} after Goodbye`);
        return;
      }
      switch (frame.$case) {
        case "batch": {
          const fault = faultOfSender(frame.value, hello, maxMessageBytes);
          if (fault === undefined) handlers.onBatch(frame.value);
          else violation(fault);
          return;
        }
        case "goLive":
          if (frame.value.epoch === hello.epoch) handlers.onGoLive();
          else violation(`GoLive has epoch ${frame.value.epoch}; the Hello had ${hello.epoch}`);
          return;
        case "request": {
          const { id, payload } = frame.value;
          if (id <= lastRequest) violation(`a Request has id ${id} after ${lastRequest}; ids must grow`);
          else if (payload.length > maxMessageBytes) violation(tooLong(payload.length, maxMessageBytes));
          else {
            lastRequest = id;
            handlers.onRequest(frame.value);
          }
          return;
        }
        case "cancel":
          handlers.onCancel(frame.value.id);
          return;
        case "goodbye":
          saidGoodbye = true;
          socket.endsInGoodOrder = true;
          handlers.onGoodbye();
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
    onDrain: () => handlers.onDrain(),
    onClosed: (error) => handlers.onClosed(error),
  };
}

/** What a sender's connection does with the frames of the listener. */
export function senderReceiver(socket: FrameSocket, handlers: SenderHandlers): FrameReceiver {
  return {
    onFrame(frame: ReceivedFrame) {
      switch (frame.$case) {
        case "ack":
          handlers.onAck(frame.value);
          return;
        case "answer":
          handlers.onAnswer(frame.value);
          return;
        case "goodbye":
          socket.endsInGoodOrder = true;
          handlers.onGoodbye(frame.value);
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
    onDrain: () => handlers.onDrain(),
    onClosed: (error) => handlers.onClosed(error),
  };
}

/** What a batch breaks that only the connection knows. */
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
