/** Reads files that users name and that are expected to be small: a certificate, a key. */
import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";

/** Maximum size of a certificate or key file, also for connections to Postgres. */
export const tlsFileMaxBytes = 1024 * 1024;

/** Without O_NONBLOCK, opening a pipe without a writer would block forever; regular files ignore the flag. */
const flags = constants.O_RDONLY | constants.O_NONBLOCK;

/**
 * Reads a regular file, following symbolic links.
 *
 * @param maxBytes greatest size that is read and kept in memory
 * @throws Error if the file cannot be opened or read, is a device, a pipe or a directory, or has more than `maxBytes`
 */
export function readSmallFileSync(path: string, maxBytes: number): Buffer {
  const descriptor = openSync(path, flags);
  try {
    const buffer = bufferFor(fstatSync(descriptor), maxBytes);
    let length = 0;
    for (let read = -1; read !== 0 && length < buffer.length; length += read) {
      read = readSync(descriptor, buffer, length, buffer.length - length, null);
    }
    return withinLimit(buffer.subarray(0, length), maxBytes);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Reads a regular file like {@link readSmallFileSync}, without blocking.
 *
 * @param check checks the open file before it is read; if it rejects, nothing is read
 * @throws Error (as a rejection) as {@link readSmallFileSync}
 */
export async function readSmallFile(
  path: string,
  maxBytes: number,
  check?: (opened: FileHandle) => Promise<void>,
): Promise<Buffer> {
  const handle = await open(path, flags);
  try {
    await check?.(handle);
    const buffer = bufferFor(await handle.stat(), maxBytes);
    let length = 0;
    for (let read = -1; read !== 0 && length < buffer.length; length += read) {
      read = (await handle.read(buffer, length, buffer.length - length, null)).bytesRead;
    }
    return withinLimit(buffer.subarray(0, length), maxBytes);
  } finally {
    await handle.close();
  }
}

/**
 * Buffer of `maxBytes` and one byte more, so that a longer file is noticed. The size that the system reports may be
 * outdated, or meaningless as for files in /proc.
 */
function bufferFor(stat: Stats, maxBytes: number): Buffer {
  if (!stat.isFile()) throw new Error("it is not a regular file but a device, a pipe or a directory");
  if (stat.size > maxBytes) throw tooLong(maxBytes);
  return Buffer.allocUnsafe(maxBytes + 1);
}

function withinLimit(bytes: Buffer, maxBytes: number): Buffer {
  if (bytes.length > maxBytes) throw tooLong(maxBytes);
  // A copy, so that the result does not retain the larger buffer.
  return Buffer.from(bytes);
}

function tooLong(maxBytes: number): Error {
  return new Error(`it has more than ${maxBytes} bytes, the greatest size for such a file`);
}
