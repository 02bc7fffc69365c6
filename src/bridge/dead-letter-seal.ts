/**
 * What tells the dead letters that the bridge wrote from rows that others put beside them. Peers may write the table, and
 * would have messages of their own making handled as if NATS had brought them; the token of the wrapper they cannot read.
 */

/**
 * SQL for the seal of a dead letter: the last characters of its `message_id`, behind a dot.
 *
 * @param token of its wrapper @param letter SQL for its topic, payload and headers as they are stored
 */
export function sealSql(
  token: string,
  { topic, payload, headers }: { readonly topic: string; readonly payload: string; readonly headers: string },
): string {
  const hashes = [`convert_to(${topic}, 'UTF8')`, payload, `convert_to(coalesce(${headers}::text, ''), 'UTF8')`];
  // Each of 32 bytes: nothing can be appended, nor moved from one to the next.
  return `encode(sha256(${[token, ...hashes.map((hashed) => `sha256(${hashed})`)].join(" || ")}), 'hex')`;
}
