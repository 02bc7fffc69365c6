/**
 * Writes the chunks of a file.
 */
import { createHash } from "node:crypto";
import type { JetStreamClient } from "@nats-io/jetstream";

/** What was written. */
export interface Upload {
  readonly chunks: number;
  /** SHA-256 of the content. */
  readonly digest: Buffer;
}

/** Chunks that wait for their acknowledgement at once. */
const maxInFlight = 16;

/**
 * Publishes the content in chunks, in their order, and resolves when all have been stored.
 *
 * @param chunkBytes of each but the last
 * @param signal ends it early, with its reason
 * @throws what the library throws for the first that was not stored
 */
export async function uploadChunks(
  client: JetStreamClient,
  subject: string,
  content: Uint8Array,
  chunkBytes: number,
  signal: AbortSignal,
): Promise<Upload> {
  const count = Math.ceil(content.length / chunkBytes);
  // Chunk by chunk, so that a large file does not hold everything else up.
  const digest = createHash("sha256");
  const inFlight = new Set<Promise<void>>();
  try {
    for (let index = 0; index < count; index++) {
      if (inFlight.size >= maxInFlight) await Promise.race(inFlight);
      signal.throwIfAborted();
      const chunk = content.subarray(index * chunkBytes, (index + 1) * chunkBytes);
      digest.update(chunk);
      const stored = client.publish(subject, chunk).then(() => {
        inFlight.delete(stored);
      });
      // Awaited below; a failure of one must not count as unhandled while another is awaited.
      stored.catch(() => undefined);
      inFlight.add(stored);
    }
    await Promise.all(inFlight);
  } catch (error) {
    // So that none is stored after whoever catches this has removed them.
    await Promise.allSettled(inFlight);
    throw error;
  }
  return { chunks: count, digest: digest.digest() };
}
