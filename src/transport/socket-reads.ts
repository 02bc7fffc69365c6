/**
 * Reading a socket without memory for each read. All plaintext sockets of a thread read into one block. Who is told of the
 * bytes copies them from there. Node's streams have 64 KiB allocated for each read, and under load the collector
 * marks the whole heap again and again because of them.
 *
 * Node offers this, as the option `onread`, for sockets that it connects. One that a server has accepted gets it by a second
 * socket around its handle, which Node's own server makes in the same way, and does not document: so dialled sockets are
 * taken in the same way, and where a handle is of another kind, data events serve.
 */
import { type OnReadOpts, Socket, type SocketConstructorOpts } from "node:net";

/** Twice what Node reads at a time; more makes no difference (measured), and other sockets wait for longer. */
const blockBytes = 128 * 1024;

let block: Uint8Array | undefined;

/**
 * Reads a socket from now on.
 *
 * @param socket belongs to the one that is returned: each closes with the other. Nothing was written to it, and it has not
 * ended
 * @param onBytes called with what has come, never within this call; the bytes are valid until it returns
 * @returns the socket to write to and to listen to
 */
export function readSocket(socket: Socket, onBytes: (bytes: Uint8Array) => void): Socket {
  const inner = socket as unknown as { _handle?: object | null };
  const { _handle: handle } = inner;
  if (handle?.constructor?.name !== "TCP" || !("useUserBuffer" in handle)) {
    socket.on("data", (chunk: Buffer) => onBytes(plain(chunk)));
    return socket.resume();
  }
  // What was read already.
  const first = socket.read() as Buffer | null;
  block ??= new Uint8Array(blockBytes);
  const options: SocketConstructorOpts & { readonly handle: object; readonly onread: OnReadOpts } = {
    handle,
    onread: {
      buffer: block,
      callback: (count, bytes) => {
        onBytes(bytes.subarray(0, count));
        return true;
      },
    },
  };
  inner._handle = null;
  const reading = new Socket(options);
  reading.once("close", () => socket.destroy());
  socket.once("close", () => reading.destroy());
  if (first !== null) process.nextTick(() => onBytes(plain(first)));
  return reading;
}

/** Views of a Buffer are Buffers, too, and cost more. */
function plain({ buffer, byteOffset, byteLength }: Buffer): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
