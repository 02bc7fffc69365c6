/**
 * Reads sockets without allocating memory per read. All plaintext sockets of a thread read into one shared block, and
 * the consumer copies the bytes. Node.js streams allocate 64 KiB per read, and under load this makes the garbage
 * collector mark the whole heap again and again.
 *
 * Node.js offers the option `onread` only for sockets that it connects. For an accepted socket, a second Socket is
 * created around its handle. Node's own server does the same, but this is undocumented. Dialled sockets are treated the
 * same way, and sockets with another kind of handle use data events.
 */
import { type OnReadOpts, Socket, type SocketConstructorOpts } from "node:net";

/** Twice the size of a read in Node.js. Larger blocks bring no gain (measured) and delay other sockets. */
const blockBytes = 128 * 1024;

let block: Uint8Array | undefined;

/**
 * Starts reading a socket.
 *
 * @param socket owned by the returned socket, and closed with it and vice versa. Nothing may have been written to it,
 * and it must not have ended
 * @param onBytes called with received bytes, never within this call; the bytes are valid until it returns
 * @returns the socket to use for writing and events
 */
export function readSocket(socket: Socket, onBytes: (bytes: Uint8Array) => void): Socket {
  const inner = socket as unknown as { _handle?: object | null };
  const { _handle: handle } = inner;
  if (handle?.constructor?.name !== "TCP" || !("useUserBuffer" in handle)) {
    socket.on("data", (chunk: Buffer) => onBytes(plain(chunk)));
    return socket.resume();
  }
  // Bytes that were already read.
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

/** Converts to a plain Uint8Array, because views of a Buffer are Buffers and cost more. */
function plain({ buffer, byteOffset, byteLength }: Buffer): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
