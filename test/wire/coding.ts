/**
 * Encoding and decoding in one call, as the tests want it.
 */
import { checkFrame, type Frame, FrameDecoder, FrameEncoder, recycle } from "../../src/jobs-and-peers/wire/index.js";

/** More than any frame of the tests. */
export const ampleBytes = 64 * 1024 * 1024;

/** The bytes of frames, each with its length prefix. */
export function encode(...frames: readonly Frame[]): Uint8Array {
  const encoder = new FrameEncoder({ maxFrameBytes: ampleBytes });
  for (const frame of frames) {
    checkFrame(frame);
    encoder.append(frame);
  }
  const output = encoder.take();
  const bytes = new Uint8Array(Buffer.concat(output.chunks));
  recycle(output);
  return bytes;
}

/** The frames of a stream that comes in these chunks. */
export function decode(chunks: Iterable<Uint8Array>, maxFrameBytes = ampleBytes): Frame[] {
  const decoder = new FrameDecoder({ maxFrameBytes });
  const frames: Frame[] = [];
  for (const chunk of chunks) {
    const read = chunk.slice();
    decoder.push(read);
    // It is read over.
    read.fill(0xff);
    for (let frame = decoder.next(); frame !== undefined; frame = decoder.next()) frames.push(frame);
  }
  return frames;
}

/** Cuts bytes at ascending offsets. */
export function cut(bytes: Uint8Array, offsets: readonly number[]): Uint8Array[] {
  const ends = [...offsets, bytes.length];
  return ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
}
